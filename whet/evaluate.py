"""Held-out problems, many responses each: the counts from which pass@k, length and diversity are computed."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whet.batch import Batch
from whet.draw import Draw, generator
from whet.metrics import pass_at_k
from whet.runs.store import Evaluated
from whet.tasks import Problem

EVAL_SEED = 20_000  # the same for every run: differences between runs are not differences in luck
AT_ONCE = 16  # problems in one call, so that progress can be shown


def evaluate(
    engine: Any,
    task: Any,
    samples: int = 64,
    splits: Sequence[str] | None = None,
    progress: Callable[[float], None] | None = None,
    keep: Callable[[str, Batch], None] | None = None,
) -> list[Evaluated]:
    """`samples` responses to each held-out problem, at temperature 1; `keep` sees every judged batch."""
    held_out = {name: rows for name, rows in task.evaluation().items() if splits is None or name in splits}
    total, done, found = sum(map(len, held_out.values())), 0, []
    for split, problems in held_out.items():
        draw = Draw(engine, task, generator(EVAL_SEED, *split.encode()))
        for chunk in _chunks(problems, AT_ONCE):
            batch = draw(chunk, samples)
            found += _tallies(split, batch, chunk)
            if keep:
                keep(split, batch)
            done += len(chunk)
            if progress:
                progress(done / total)
    return found


def _chunks(problems: Sequence[Problem], size: int) -> Iterator[Sequence[Problem]]:
    for start in range(0, len(problems), size):
        yield problems[start : start + size]


def _tallies(split: str, batch: Batch, problems: Sequence[Problem]) -> list[Evaluated]:
    """One row for each problem; a problem whose every response is unknown gets no row."""
    rows: dict[str, list[int]] = {}
    for i, problem in enumerate(batch.problems):
        rows.setdefault(problem.id, []).append(i)
    position_entropy = batch["sampled_entropy"].sum(1) / batch["length"].clamp(min=1)
    return [
        Evaluated(
            split=split,
            problem=problem.id,
            level=problem.level,
            tries=len(mine),
            right=int(batch["correct"][mine].sum()),
            mean_length=float(batch["length"][mine].float().mean()),
            entropy=float(position_entropy[mine].mean()),
            distinct=len({batch.texts[i] for i in mine}),
        )
        for problem in problems
        if (mine := rows.get(problem.id))
    ]


def pass_at(rows: Sequence[Evaluated], k: int) -> float:
    """Mean over problems of the unbiased pass@k."""
    return sum(pass_at_k(row.tries, row.right, k) for row in rows) / max(len(rows), 1)


def by_split(rows: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    """The rows of each split, in the order in which they were evaluated."""
    found: dict[str, list[Evaluated]] = {}
    for row in rows:
        found.setdefault(row.split, []).append(row)
    return found


# --- the start of a run ----------------------------------------------------------------------------------


def remembered_start(
    model: Path, task: Any, samples: int, make: Callable[[], list[Evaluated]], how: str = ""
) -> list[Evaluated]:
    """The evaluation of an untrained model, from the user's cache where the very same one was made before.

    `how` tells apart what files and problems do not: how the model is asked, and who judges.
    """
    cache = _cache(model, task, samples, how)
    try:
        return [Evaluated(**row) for row in json.loads(cache.read_text())]
    except (OSError, ValueError, TypeError):
        rows = make()
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        aside = cache.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps([asdict(row) for row in rows]))
        aside.replace(cache)
    except OSError:
        pass  # without a cache the next run evaluates again
    return rows


def _cache(model: Path, task: Any, samples: int, how: str) -> Path:
    digest = hashlib.sha256(f"{EVAL_SEED} {samples} {task.name} {task.max_tokens} {how}".encode())
    for rows in task.evaluation().values():
        digest.update(json.dumps([[row.id, row.prompt, row.answer] for row in rows]).encode())
    here = Path(__file__).parent
    weights = [path for pattern in ("*.safetensors", "*.bin", "*.py") for path in sorted(model.glob(pattern))]
    for path in [*weights, *sorted(here.glob("engines/*.py")), Path(__file__)]:
        digest.update(path.read_bytes())
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return folder / "whet" / f"start-{digest.hexdigest()[:16]}.json"
