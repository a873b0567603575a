"""Forgetting against KL over finished runs (RL's Razor, Shenfeld et al. 2025, 2509.04259), task by task."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from whet.compare.measure import Evaluations, Read, followed, measure
from whet.compare.razor import drawn_as, explained
from whet.refusal import Refused
from whet.runs.files import write_aside
from whet.runs.store import Store

FEW = 5  # runs without which nothing is said of them together
RESAMPLES = 2000


@dataclass(frozen=True)
class Moved:
    """A run of a language model: its KL to the start in nats per token, and pass@1 lost on what is not trained.

    `chance` is the standard error of what is lost were the responses at the end drawn by themselves. All runs draw
    them with the same numbers and share their start, so that runs differ by less.
    """

    run: str
    recipe: str
    task: str
    kl: float
    lost: float
    chance: float


def moved(stores: Sequence[Store], out: Console | None = None) -> list[Moved]:
    """What finished runs of one base forgot and how far they went; those without forgetting to measure are left out."""
    found, first = [], stores[0].about
    for store in followed(stores, "reading runs", out):
        about = store.about
        if (about["base"], about.get("base_hash", "")) != (first["base"], first.get("base_hash", "")):
            raise Refused(
                f"{stores[0].name} and {store.name} began from different bases ({first['base']} and {about['base']}), "
                "so what they forgot does not compare: leave one of them out."
            )
        whole = Read(store.folder) if store.finished else None
        if whole is None:
            continue
        kl, lost = measure(whole, "kl"), measure(whole, "forgetting")
        if kl is not None and lost is not None:
            found.append(Moved(store.name, about["recipe"], about["task"], kl, lost, _chance(whole.ends)))
    if out is not None and len(found) < len(stores):
        out.print(f"{len(stores) - len(found)} of {len(stores)} runs are left out: not finished, or without a measure.")
    if not found:
        raise Refused(
            "None of these runs is finished and has splits that are not trained, evaluated at start and end: nothing "
            "to see."
        )
    return found


def _chance(ends: Evaluations) -> float:
    """The standard error of pass@1 over the splits that are not trained, from the tries to each problem."""
    shares = []
    for rows in (ends.after[split] for split in ends.elsewhere if split in ends.after):
        spread = [(p := row.right / row.tries) * (1 - p) / max(row.tries - 1, 1) for row in rows]
        shares.append(sum(spread) / len(rows) ** 2)
    return math.sqrt(sum(shares)) / max(len(shares), 1)


def rank(runs: Sequence[Moved], level: float = 0.95, seed: int = 0) -> dict[str, float | None]:
    """Spearman's correlation of KL and loss; its interval draws whole recipes anew, since their runs are alike.

    With fewer than five recipes runs are drawn, one by one. NaN where KL or loss is the same in all.
    """
    import numpy as np

    rng, by = np.random.default_rng(seed), dict[str, list[int]]()
    for i, one in enumerate(runs):
        by.setdefault(one.recipe, []).append(i)
    groups = [np.array(mine) for mine in (by.values() if len(by) >= 5 else [[i] for i in range(len(runs))])]
    kl, lost = np.array([one.kl for one in runs]), np.array([one.lost for one in runs])
    drawn = []
    for _ in range(RESAMPLES):
        some = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        drawn.append(_spearman(kl[some], lost[some]))
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return {"rank": _spearman(kl, lost), "low": float(low), "high": float(high), "clusters": len(groups)}


def _spearman(x: Any, y: Any) -> float:
    from scipy.stats import rankdata

    a, b = rankdata(x), rankdata(y)
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread else math.nan


def over(runs: Sequence[Moved]) -> dict[str, Any]:
    """What runs of one task say together: correlation, R² of a quadratic, and the spread beside that of chance."""
    lost = [one.lost for one in runs]
    mean = sum(lost) / len(lost)
    return {
        "runs": len(runs), "recipes": len({one.recipe for one in runs}), **rank(runs), "r2": explained(runs),
        "kl": [min(one.kl for one in runs), max(one.kl for one in runs)], "lost": [min(lost), max(lost)],
        "spread": math.sqrt(sum((x - mean) ** 2 for x in lost) / (len(lost) - 1)),
        "chance": math.sqrt(sum(one.chance**2 for one in runs) / len(runs)),
    }  # fmt: skip


def report_of(runs: Sequence[Moved]) -> Group:
    """What `whet razor RUN ...` prints, task by task: forgetting against KL run by run, and what they say together."""
    lines: list[Any] = []
    for task in dict.fromkeys(one.task for one in runs):
        mine = sorted((one for one in runs if one.task == task), key=lambda one: one.kl)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in (f"run on {task}", "KL, nats per token", "lost, points"):
            table.add_column(name, justify="left" if name.startswith("run") else "right", overflow="fold")
        for one in mine:
            table.add_row(one.run, f"{one.kl:.4f}", f"{100 * one.lost:+.1f}")
        lines += [table, Text(sentence(mine))]
    return Group(*lines)


def sentence(runs: Sequence[Moved]) -> str:
    """What runs of one task say together; negative losses are gains."""
    if len(runs) < FEW:
        which = f"{len(runs)} run{'s' * (len(runs) > 1)} on {runs[0].task}"
        return f"{which}: too few for a curve; five or more, the more different the better."
    told = over(runs)
    which = "recipes" if told["clusters"] == told["recipes"] != told["runs"] else "runs"
    return (
        f"Over {told['runs']} runs of {told['recipes']} recipes on {runs[0].task}, KL {told['kl'][0]:.3f} to "
        f"{told['kl'][1]:.3f} nats per token: pass@1 on what is not trained moved by {-100 * told['lost'][1]:+.1f} to "
        f"{-100 * told['lost'][0]:+.1f} points. Rank correlation of what is lost with the KL {told['rank']:+.2f} "
        f"[{told['low']:+.2f}, {told['high']:+.2f}], {which} drawn anew; a quadratic in the KL explains "
        f"{told['r2']:.0%} of it. It varies by {100 * told['spread']:.2f} points between runs (standard deviation); "
        f"other responses to the same problems would alone make {100 * told['chance']:.2f}."
    )


def save_of(runs: Sequence[Moved], path: Path) -> None:
    """Many runs as JSON, with the picture beside it."""
    tasks = {task: [one for one in runs if one.task == task] for task in dict.fromkeys(one.task for one in runs)}
    told = {
        "tasks": {task: _rounded(over(mine)) for task, mine in tasks.items() if len(mine) >= FEW},
        "columns": ["run", "recipe", "task", "kl", "lost", "chance"],
        "runs": [[_short(value) for value in asdict(one).values()] for one in runs],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = json.dumps(told, indent=1, allow_nan=False)
    write_aside(path, re.sub(r"\[\s+([^\[\]]*?)\s+\]", lambda row: f"[{' '.join(row[1].split())}]", whole).encode())
    write_aside(path.with_suffix(".svg"), picture_of(runs).encode())


def _rounded(told: dict[str, Any]) -> dict[str, Any]:
    return {name: [_short(x) for x in v] if isinstance(v, list) else _short(v) for name, v in told.items()}


def _short(value: Any) -> Any:
    """Four digits of a number; what is not finite is null."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else None


def picture_of(runs: Sequence[Moved]) -> str:
    """Forgetting against KL, a dot for each run, coloured by task."""
    import altair as alt

    names = list(dict.fromkeys(one.task for one in runs))
    rows = [{"arm": one.task, "kl": one.kl, "lost": one.lost} for one in runs]
    across, up = "KL to the start on training problems, nats per token", "pass@1 lost on what is not trained"
    return drawn_as(rows, names, across, up, f"Forgetting in {len(runs)} runs", alt.Axis(format=".1%"))
