"""What came of a comparison, as data: every number of the report, and refusals where runs do not compare."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console

from whet.compare import laws, stats
from whet.compare.measure import ALWAYS, Evaluations, followed, meaning, measure, read
from whet.refusal import Refused
from whet.report.smooth import smoothed, thinned
from whet.runs.curve import powers
from whet.runs.files import write_aside
from whet.runs.store import Store

CURVES = ("correct", "reward", "entropy", "kl", "length", "silent_groups", "distinct_right", "grad_norm")
POINTS = 40  # of a curve
MANY = 10  # of more recipes only the main measure is judged pair by pair, unless they are held against one
DELTA = 0.02  # ours: two points of a percent are a tie to a reader; other units: 5 % of the mean of both


@dataclass
class Result:
    """One task: recipes, what was measured of them at every seed, verdicts on pairs, and the curves of the report."""

    task: str
    base: str
    budget: str
    currency: str
    seeds: list[int]
    samples: int
    measure: str
    delta: float
    level: float
    against: str
    recipes: list[dict[str, Any]]
    values: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)
    means: dict[str, dict[str, Any]] = field(default_factory=dict)
    pairs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    curves: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    passing: dict[str, list[list[float]]] = field(default_factory=dict)
    law: dict[str, dict[str, Any]] = field(default_factory=dict)
    differs: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)  # recipes that a sweep found no rate for, and why

    @property
    def labels(self) -> list[str]:
        """The recipes that have a value of the main measure, the best first."""
        better = meaning(self.measure).better or 1
        known = self.means[self.measure]
        return sorted(known, key=lambda label: -better * known[label]["value"])


def gathered(
    runs: Mapping[str, Sequence[Store]], main: str = "pass@1", delta: float | None = None, against: str = "",
    level: float = stats.LEVEL, extra: Sequence[str] = (), budget: str = "", out: Console | None = None,
) -> Result:  # fmt: skip
    """The result of runs by recipe; refused when they differ in more than recipe and seed."""
    runs = read(runs, out)
    finished = {label: [s for s in stores if s.state[0] == "finished"] for label, stores in runs.items()}
    every = [store for stores in finished.values() for store in stores]
    if not every:
        raise Refused("No run of this comparison is finished: " + _why(runs))
    same(every)
    if against and against not in runs:
        raise Refused(f"--against {against}: it is not among {', '.join(runs)}.")
    about = every[0].about
    seeds = sorted({store.about["seed"] for store in every})
    asked = about["run"]
    result = Result(
        task=about["task"], base=about["base"], budget=budget or _budget(asked), currency=_currency(asked),
        seeds=seeds, samples=asked["eval_samples"], measure=main, delta=0.0, level=level, against=against,
        recipes=[_told(label, runs[label], finished[label]) for label in runs],
    )  # fmt: skip
    names = dict.fromkeys([main, *extra, *_passes(every[0]), *ALWAYS])
    for name in names:
        table = {label: _by_seed(stores, name) for label, stores in finished.items()}
        result.values[name] = {label: row for label, row in table.items() if row}
        begun = [v for store in every if (v := measure(store, name, start=True)) is not None]
        if begun:
            result.start[name] = sum(begun) / len(begun)
    if not result.values[main]:
        raise Refused(f"No run has the measure {main}.")
    _judge(result, delta, out)
    _draw(result, finished)
    result.differs = differing(finished)
    return result


def same(stores: Sequence[Store]) -> None:
    """Refused unless all runs have the same task, base, budget, evaluation and model: else nothing is compared."""
    names = {
        "task": lambda a: (a["task"], json.dumps(a["run"]["options"], sort_keys=True, default=str)),
        "base": lambda a: (a["base"], a.get("base_hash", "")),
        "number of responses in the evaluation": lambda a: a["run"]["eval_samples"],
        "budget": lambda a: _budget(a["run"]),
    }
    first = stores[0]
    for what, of in names.items():
        for store in stores[1:]:
            if of(store.about) != of(first.about):
                raise Refused(
                    f"{first.name} and {store.name} differ in their {what} ({_plain(of(first.about))} and "
                    f"{_plain(of(store.about))}), so they cannot be compared: leave one of them out."
                )


def _plain(value: Any) -> str:
    return " ".join(str(x) for x in value if x not in ("", "{}")) if isinstance(value, tuple) else str(value)


def _budget(run: Mapping[str, Any]) -> str:
    from whet.compare.plan import Budget

    return str(Budget(run.get("tokens"), run["steps"], run["budget"]))


def _currency(run: Mapping[str, Any]) -> str:
    return "tokens" if run.get("tokens") else "steps" if run["steps"] else "seconds"


def _why(runs: Mapping[str, Sequence[Store]]) -> str:
    said = [f"{store.name}: {store.state[1]}" for stores in runs.values() for store in stores]
    return said[0] if said else "there are none."


def _told(label: str, all_runs: Sequence[Store], finished: Sequence[Store]) -> dict[str, Any]:
    failed = [[s.about["seed"], s.state[1]] for s in all_runs if s.state[0] != "finished"]
    first = (finished or all_runs)[0].about
    spent = {name: [float(s.metrics(name)[name][1].sum()) for s in finished if s.metrics(name)]
             for name in ("drawn_tokens", "seconds")}  # fmt: skip
    mean = {name: sum(values) / len(values) if values else math.nan for name, values in spent.items()}
    updates = [s.steps for s in finished]
    return {
        "label": label, "recipe": first["recipe"], "new": first["new"], "paper": (first["papers"] or [{}])[0],
        "runs": [s.name for s in finished], "failed": failed, "tokens": _finite(mean["drawn_tokens"]),
        "seconds": _finite(mean["seconds"]), "updates": sum(updates) / len(updates) if updates else None,
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _by_seed(stores: Sequence[Store], name: str) -> dict[int, float]:
    found = {store.about["seed"]: measure(store, name) for store in stores}
    return {seed: value for seed, value in found.items() if value is not None and math.isfinite(value)}


def _passes(store: Store) -> list[str]:
    """pass@1 and pass@(largest k) on every split."""
    both = Evaluations.of(store)
    found = []
    for split, rows in both.after.items():
        suffix = "" if split == both.focus else f":{split}"
        found += [f"pass@{k}{suffix}" for k in dict.fromkeys((1, powers(rows)[-1]))]
    return found


def _judge(result: Result, delta: float | None, out: Console | None) -> None:
    for name, table in followed(result.values.items(), "comparing", out):
        what = meaning(name)
        result.means[name] = {
            label: asdict(stats.estimate([*row.values()], result.level)) for label, row in table.items()
        }
        mean = sum(m["value"] for m in result.means[name].values()) / max(len(table), 1)
        bound = DELTA if what.unit == "share" else 0.05 * abs(mean)
        if name == result.measure:
            result.delta = bound = bound if delta is None else delta
        elif not result.against and len(table) > MANY:
            continue
        best = [label for label in table if label != result.against]
        couples = (
            [(a, result.against) for a in best]
            if result.against in table
            else [*combinations(_ranked(result, name), 2)]
        )
        result.pairs[name] = [
            asdict(one) for one in stats.pairs(table, couples, bound, what.better, result.level, what.unit)
        ]


def _ranked(result: Result, name: str) -> list[str]:
    better = meaning(name).better or 1
    return sorted(result.means[name], key=lambda label: -better * result.means[name][label]["value"])


# --- curves ----------------------------------------------------------------------------------------------


def _draw(result: Result, finished: Mapping[str, Sequence[Store]]) -> None:
    for name in CURVES:
        lines = {label: curve(stores, name, result.currency) for label, stores in finished.items() if stores}
        if any(lines.values()):
            result.curves[name] = {label: line for label, line in lines.items() if line}
    for label, stores in finished.items():
        if stores:
            result.passing[label] = _passing(stores, result.level)
            result.law[label] = laws.exchange(stores)
    first = next(stores for stores in finished.values() if stores)
    result.passing["the base"] = _passing(first, result.level, start=True)


def curve(stores: Sequence[Store], name: str, currency: str) -> list[list[float]]:
    """[spent, mean, low, high] at points that all seeds reach: smooth lines, and a 95 % interval over seeds."""
    import numpy as np

    lines = []
    for store in stores:
        found = store.metrics(name, "drawn_tokens", "seconds")
        if name not in found or len(found[name][0]) < 2:
            continue
        steps, values = thinned(*found[name])
        if len(steps) < 2:
            continue
        at = steps.astype(float)
        if currency != "steps":
            done, cost = found["drawn_tokens" if currency == "tokens" else "seconds"]
            at = np.interp(at, done, cost.cumsum())
        lines.append((at, smoothed(values)))
    if not lines:
        return []
    grid = np.linspace(max(at[0] for at, _ in lines), min(at[-1] for at, _ in lines), POINTS)
    rows = np.array([np.interp(grid, at, values) for at, values in lines])
    ends = [stats.estimate(column.tolist()) for column in rows.T]
    return [[_short(x), *(_short(e.value if v is None else v) for v in (e.value, e.low, e.high))]
            for x, e in zip(grid, ends, strict=True)]  # fmt: skip


def _passing(stores: Sequence[Store], level: float, start: bool = False) -> list[list[float]]:
    """[k, mean, low, high] of pass@k on the split that the runs are about, over seeds."""
    from whet.evaluate import pass_at

    found = []
    for store in stores:
        both = Evaluations.of(store)
        rows = (both.before if start else both.after).get(both.focus)
        if rows:
            found.append(rows)
    ks = powers([row for rows in found for row in rows]) if found else ()
    points = []
    for k in ks:
        one = stats.estimate([pass_at(rows, k) for rows in found], level)
        points.append([k, *(_short(one.value if v is None else v) for v in (one.value, one.low, one.high))])
    return points


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def differing(finished: Mapping[str, Sequence[Store]]) -> list[dict[str, Any]]:
    """The settings in which the recipes differ: address, and the value of each recipe that has it."""
    table: dict[str, dict[str, Any]] = {}
    for label, stores in finished.items():
        for row in stores[0].about["settings"] if stores else ():
            table.setdefault(row["address"], {})[label] = row["value"]
    labels = [label for label, stores in finished.items() if stores]
    return [{"address": address, **row} for address, row in table.items()
            if len({str(row.get(label, "")) for label in labels}) > 1]  # fmt: skip


# --- keeping ---------------------------------------------------------------------------------------------


def save(results: Sequence[Result], path: Path) -> None:
    """All results as JSON; unknown numbers are null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"format": 1, "tasks": [asdict(result) for result in results], "across": across(results)}
    write_aside(path, json.dumps(_clean(whole), indent=1, ensure_ascii=False, allow_nan=False).encode())


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _clean(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def across(results: Sequence[Result]) -> dict[str, Any]:
    """Over several tasks: interquartile mean of each recipe, and the chance that one beats another."""
    if len(results) < 2:
        return {}
    main = results[0].measure
    tables = [result.values[main] for result in results]
    labels = [label for label in tables[0] if all(label in table for table in tables)]
    runs = {label: [[*table[label].values()] for table in tables] for label in labels}
    middle = {label: asdict(stats.middle_mean(runs[label])) for label in labels}
    order = sorted(labels, key=lambda label: -middle[label]["value"])
    chance = {a: {b: stats.improvement(runs[a], runs[b]) for b in order if b != a} for a in order}
    return {
        "measure": main,
        "tasks": [r.task for r in results],
        "middle": {a: middle[a] for a in order},
        "chance": chance,
    }
