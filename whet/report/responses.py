"""Which responses a page shows, and in what form: a sample that was not chosen for its looks, small enough to send."""

import json
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from whet.runs.rollouts import PER_TOKEN
from whet.runs.store import Store

MOST = 240  # responses; ours: more are not looked at
SIBLINGS = 8  # responses to the same problem at the same step
FILES = 12  # steps × splits
BUDGET = 2_200_000  # characters of JSON, so that the whole page stays below 4 MB

KEPT = ("step", "split", "problem", "level", "prompt", "answer", "score", "reward", "correct", "finished", "length",
        "pieces")  # fmt: skip

Row = dict[str, Any]


def chosen(store: Store, most: int = MOST, budget: int = BUDGET) -> list[Row]:
    """Responses spread over steps and splits, as the page reads them, in the order of steps.

    Problems are taken in the order of a hash of their name: blind to how well they went, and the same ones at
    every evaluation, so that before and after can be compared.
    """
    files = spread(store.rollout_steps())
    if not files:
        return []
    each = max(1, most // len(files) // SIBLINGS)
    found = [_blocks(store.samples(step=step, split=split))[:each] for step, split in files]
    room, kept = budget, []
    for turn in range(each):  # one problem of every file in turn, so that a tight budget hits all alike
        for place, blocks in enumerate(found):
            if turn < len(blocks):
                rows = [compact(row) for row in blocks[turn]]
                size = len(json.dumps(rows, ensure_ascii=False))
                if size <= room:
                    room -= size
                    kept.append((place, turn, rows))
    return [row for _, _, rows in sorted(kept, key=lambda one: one[:2]) for row in rows]


def spread(files: Sequence[tuple[int, str]], most: int = FILES) -> list[tuple[int, str]]:
    """At most `most` of the kept (step, split), evenly over the steps of each split, the first and last included."""
    splits = sorted({split for _, split in files})
    each = max(2, most // max(len(splits), 1))
    kept = []
    for split in splits:
        steps = [step for step, name in files if name == split]
        count = min(each, len(steps))
        places = {round(i * (len(steps) - 1) / max(count - 1, 1)) for i in range(count)}
        kept += [(steps[i], split) for i in places]
    return sorted(kept)


def _blocks(rows: Sequence[Row]) -> list[list[Row]]:
    """The responses by problem, at most `SIBLINGS` of each, in a blind order."""
    by_problem: dict[str, list[Row]] = {}
    for row in rows:
        by_problem.setdefault(row["problem"], []).append(row)
    order = sorted(by_problem, key=lambda name: crc32(name.encode()))
    return [by_problem[name][:SIBLINGS] for name in order]


def compact(row: Row) -> Row:
    """A response for the page: numbers to three digits, and one number where all tokens have the same."""
    small = {name: _short(row[name]) if isinstance(row[name], float) else row[name] for name in KEPT}
    for name in PER_TOKEN:
        values = row[name]
        if values is not None:
            few = [int(x) if isinstance(x, bool) else _short(x) for x in values]
            small[name] = few[0] if len(set(few)) == 1 else few
    return small


def _short(value: float | None) -> float | None:
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None  # JSON has no nan
    short = float(f"{value:.3g}")
    return int(short) if short == int(short) else short
