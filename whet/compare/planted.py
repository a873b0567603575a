"""Calibration: a recipe against itself. Unchanged there is nothing to find; with a lower learning rate there is.

A run is decided by its seed, so the recipe against itself at the *same* seeds would be the same bits and no test at
all. Unchanged therefore means: the same recipe on other seeds, which differ only by chance. The planted difference
is taken at the same seeds, as `whet compare` does.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from whet.compare import stats
from whet.compare.measure import meaning, measure, possible
from whet.compare.plan import Budget, Plan
from whet.compare.result import DELTA
from whet.compare.study import rate_of
from whet.compare.work import carry_out
from whet.refusal import Refused
from whet.runs.files import write_aside
from whet.tasks.shelf import make


def study(
    recipe: str,
    task: str,
    factor: float,
    repetitions: int,
    seeds: int,
    budget: Budget,
    name: str,
    delta: float | None,
    samples: int,
    runs: str,
    out: Console,
    workers: int = 0,
) -> dict[str, Any]:
    """`repetitions` comparisons of each kind, every one on `seeds` seeds of its own."""
    if not 0 < factor < math.inf or factor == 1:
        why = "nothing would be planted" if factor == 1 else "a learning rate is a finite number above 0"
        raise Refused(f"--factor {factor:g}: {why}; 0.8 is a small difference.")
    possible(name, samples, list(make(task).evaluation()))
    slower = f"{recipe}@update.lr={_rate(recipe, task) * factor:g}"
    many = repetitions * seeds
    plan = Plan((recipe,), (task,), tuple(range(2 * many)), budget, samples, runs=runs)
    other = replace(plan, arms=(slower,), seeds=tuple(range(many)))
    jobs = [*plan.checked().jobs(), *other.checked().jobs()]
    carry_out(sorted(jobs, key=lambda job: job.seed % many), out, workers)
    found = {(job.arm, job.seed): measure(job.store, name) for job in jobs if job.store}
    what, bound = meaning(name), DELTA if delta is None else delta

    def values(arm: str, first: int) -> dict[int, float]:
        known = {i: found.get((arm, first + i)) for i in range(seeds)}
        return {i: value for i, value in known.items() if value is not None}

    kinds: dict[str, list[Any]] = {"unchanged": [], "planted": []}
    for r in range(repetitions):
        mine, again, changed = values(recipe, r * seeds), values(recipe, many + r * seeds), values(slower, r * seeds)
        for kind, one in (("unchanged", again), ("planted", changed)):
            kinds[kind] += stats.pairs({"a": mine, "b": one}, [("a", "b")], bound, what.better, unit=what.unit)
    whole = stats.estimate(
        [
            a - b
            for i in range(many)
            if (a := found.get((recipe, i))) is not None and (b := found.get((slower, i))) is not None
        ]
    )
    return {
        "recipe": recipe,
        "task": task,
        "factor": factor,
        "measure": name,
        "repetitions": repetitions,
        "seeds": seeds,
        "budget": str(budget),
        "delta": bound,
        "level": stats.LEVEL,
        "counts": {kind: _count(pairs) for kind, pairs in kinds.items()},
        "covered": sum(p.low <= whole.value <= p.high for p in kinds["planted"] if p.low is not None),
        "planted_difference": [whole.value, whole.low, whole.high],
        "unit": what.unit,
        "pairs": {kind: [vars(p) for p in pairs] for kind, pairs in kinds.items()},
    }


def _rate(recipe: str, task: str) -> float:
    rate = rate_of(recipe, task)
    if rate is None:
        raise Refused(f"{recipe} has no setting update.lr to plant a difference in.")
    return rate


def _count(pairs: list[stats.Pair]) -> dict[str, int]:
    return {verdict: sum(p.verdict == verdict for p in pairs) for verdict in ("better", "worse", "tie", "open")}


def sentence(told: dict[str, Any]) -> str:
    """What came of it, with the stated level beside the observed rates."""
    n, same, planted = told["repetitions"], told["counts"]["unchanged"], told["counts"]["planted"]
    alarms, missed = same["better"] + same["worse"], n - planted["better"]
    value, low, high = (stats.said(x, told["unit"], sign=True) for x in told["planted_difference"])
    return (
        f"{told['recipe']} against itself on other seeds: {alarms} of {n} false alarms (stated level "
        f"{1 - told['level']:.0%}; {_interval(alarms, n)}), {same['tie']} ties, {same['open']} open.\n"
        f"Against its learning rate times {told['factor']:g}, a difference of {value} [{low}, {high}] "
        f"over all seeds: found {planted['better']} of {n}, missed {missed} ({_interval(missed, n)}): wrong way round "
        f"{planted['worse']}, called a tie {planted['tie']}, open {planted['open']}. {told['covered']} of {n} "
        f"intervals hold that difference (stated level {told['level']:.0%}; {_interval(told['covered'], n)})."
    )


def _interval(count: int, n: int) -> str:
    """Clopper and Pearson's interval of a rate.

    >>> _interval(1, 20)
    '95 % interval of the rate 0% to 25%'
    """
    from scipy.stats import binomtest

    bounds = binomtest(count, n).proportion_ci(method="exact")
    return f"95 % interval of the rate {bounds.low:.0%} to {bounds.high:.0%}"


def save(told: dict[str, Any], path: Path) -> None:
    """As JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, json.dumps(told, indent=1).encode())
