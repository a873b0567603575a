"""What is measured of a finished run: numbers by name, from its evaluations and its metrics."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from whet import evaluate
from whet.metrics import METRICS, Metric
from whet.refusal import Refused
from whet.runs.store import Evaluated, Store

if TYPE_CHECKING:
    import numpy as np

TAIL = 0.2  # ours: a training metric is its mean over the last fifth of the updates

HELD_OUT: dict[str, Metric] = {
    "pass@k": Metric("share", "held-out problems of a split", "unbiased pass@k, mean over problems", 1),
    "entropy": Metric("nats", "responses to held-out problems", "mean entropy of the next-token distribution"),
    "length": Metric("tokens", "responses to held-out problems", "mean length, end token included"),
    "distinct": Metric("responses", "held-out problems", "mean number of different texts among the tries to a problem"),
    "solvable": Metric("share", "held-out problems", "problems solved at least once in all tries", 1),
    "gap": Metric("share", "held-out problems", "the base's pass@k at the largest k - pass@1 now (2504.13837)", -1),
    "forgetting": Metric("share", "problems of the splits that are not trained", "pass@1 before - after", -1),
    "speed": Metric("share", "all updates", "mean `correct` over the whole run: the area under its curve", 1),
}
ALWAYS = ("pass@1", "entropy", "length", "distinct", "solvable", "forgetting", "kl", "reward", "correct", "speed",
          "silent_groups", "grad_norm", "half_agreement", "step_kl", "clip_fraction", "kept_tokens",
          "effective_samples", "ratio_tail", "finished", "distinct_right", "distinct_answers", "entropy_early",
          "entropy_late", "gap", "tokens_per_second", "peak_memory")  # fmt: skip


@dataclass(frozen=True)
class Evaluations:
    """The first and the last evaluation of a run, by split, and what the run is about."""

    before: dict[str, list[Evaluated]]
    after: dict[str, list[Evaluated]]
    focus: str
    elsewhere: tuple[str, ...]

    @classmethod
    def of(cls, store: Store) -> "Evaluations":
        """Read from the store; `after` is empty while the run has not been evaluated at its end."""
        if isinstance(store, Read):
            return store.ends
        rows = store.evaluations()
        first, last = (min((s for s, _ in rows), default=0), max((s for s, _ in rows), default=0))
        ends = [evaluate.by_split([row for step, row in rows if step == one]) for one in (first, last)]
        about = store.about
        return cls(ends[0] if first == 0 else {}, ends[1] if last else {}, about["focus"], tuple(about["elsewhere"]))


class Read(Store):
    """A run that is over, read from disk once however often it is asked; about a megabyte of memory for each."""

    @cached_property
    def about(self) -> dict[str, Any]:  # type: ignore[override]
        """run.json as it was when it was first asked for."""
        return super().about

    @cached_property
    def ends(self) -> Evaluations:
        """The first and the last evaluation."""
        return Evaluations.of(Store(self.folder))

    @cached_property
    def logged(self) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
        """Every metric by name: steps [m] and values [m]."""
        return super().metrics()

    def metrics(self, *names: str) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
        """As of any run, from memory."""
        return {name: self.logged[name] for name in names or self.logged if name in self.logged}


def read(runs: Mapping[str, Sequence[Store]], out: Console | None = None) -> dict[str, list[Store]]:
    """The same runs, those that are finished read from disk once; how far it has come is shown in a terminal."""
    known = {}
    for store in followed([store for stores in runs.values() for store in stores], "reading runs", out):
        known[store.folder] = store
        if store.finished:
            known[store.folder] = there = Read(store.folder)
            _ = there.ends, there.logged
    return {label: [known[store.folder] for store in stores] for label, stores in runs.items()}


def followed(items: Collection[Any], what: str, out: Console | None) -> Iterable[Any]:
    """The same items, with a bar while they are gone through; none where the output is no terminal."""
    return track(items, what, console=out, transient=True, disable=out is None or not out.is_terminal)


def meaning(name: str) -> Metric:
    """Unit, denominator, formula and direction of a measure; refused when there is none of that name."""
    kind = "pass@k" if name.startswith("pass@") else name
    if kind in HELD_OUT:
        return HELD_OUT[kind]
    if name in METRICS:
        metric = METRICS[name]
        return Metric(
            metric.unit, metric.over, f"{metric.formula}; mean over the last fifth of the updates", metric.better
        )
    from difflib import get_close_matches

    known = [*HELD_OUT, *METRICS]
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    nearest = f"; the nearest is {close[0]!r}" if close else ""
    raise Refused(
        f"There is no measure {name!r}{nearest}. There are pass@1, pass@64, pass@1:SPLIT, {', '.join(known)}."
    )


def possible(name: str, samples: int, splits: Sequence[str]) -> None:
    """Refused unless runs with so many responses to each held-out problem of these splits can have the measure."""
    meaning(name)
    what, _, split = name.partition(":")
    if what.startswith("pass@"):
        _k(what, samples)
    if split and split not in splits:
        raise Refused(f"There is no split {split!r} to measure {what} on: there are {', '.join(splits)}.")


def measure(store: Store, name: str, start: bool = False) -> float | None:
    """One number of a run at its end, or at its start; None where the run does not have it."""
    meaning(name)
    if name.startswith("pass@") or (name in HELD_OUT and name != "speed"):
        return _held_out(Evaluations.of(store), name, start)
    if name == "speed":
        values = [v for v in _values(store, "correct") if v == v]
        return sum(values) / len(values) if values and not start else None
    values = [v for v in _values(store, name) if v == v]
    few = max(1, round(TAIL * len(values)))
    some = values[:1] if start else values[-few:]
    return sum(some) / len(some) if some else None


def _values(store: Store, name: str) -> Sequence[float]:
    found = store.metrics(name).get(name)
    return [] if found is None else found[1].tolist()


def _held_out(both: Evaluations, name: str, start: bool) -> float | None:
    now = both.before if start else both.after
    if name == "forgetting":
        pairs = [(both.before[split], now[split]) for split in both.elsewhere if split in both.before and split in now]
        lost = [evaluate.pass_at(before, 1) - evaluate.pass_at(after, 1) for before, after in pairs]
        return sum(lost) / len(lost) if lost else None
    if name == "gap":
        before, after = both.before.get(both.focus, []), now.get(both.focus, [])
        return evaluate.pass_at(before, _most(before)) - evaluate.pass_at(after, 1) if before and after else None
    what, _, split = name.partition(":")
    rows = now.get(split or both.focus, [])
    if not rows:
        if split and both.after:
            raise Refused(f"There is no split {split!r}: there are {', '.join(both.after)}.")
        return None
    if what.startswith("pass@"):
        return evaluate.pass_at(rows, _k(what, _most(rows)))
    by: dict[str, Callable[[Evaluated], float]] = {
        "entropy": lambda row: row.entropy, "length": lambda row: row.mean_length,
        "distinct": lambda row: row.distinct, "solvable": lambda row: float(row.right > 0),
    }  # fmt: skip
    return sum(map(by[what], rows)) / len(rows)


def _most(rows: Sequence[Evaluated]) -> int:
    return min(row.tries for row in rows)


def _k(name: str, most: int) -> int:
    try:
        k = int(name.removeprefix("pass@"))
    except ValueError:
        raise Refused(f"{name!r} is no measure: write pass@1 or pass@64.") from None
    if not 1 <= k <= most:
        raise Refused(f"{name} needs {k} responses to each problem, and there are {most}: raise --samples.")
    return k
