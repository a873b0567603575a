"""The numbers that every report of a run shows: before, after, and how sure the change is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whet.runs.curve import Curve, change, curve, interval, lost, powers
from whet.runs.store import Evaluated, Store

if TYPE_CHECKING:
    import numpy as np

Rows = Sequence[Evaluated]


@dataclass(frozen=True)
class Fact:
    """One line of the table before → after. `change` is after minus before with its 95 % bounds over problems.

    `unit` is share, nats, tokens, …; `better` is +1, -1, or 0 when neither direction is good in itself.
    """

    split: str
    measure: str
    unit: str
    before: float | None
    after: float | None
    change: tuple[float, float, float] | None = None
    better: int = 0
    meaning: str = ""

    @property
    def sure(self) -> bool:
        """True when the interval of the change leaves out 0."""
        return self.change is not None and not self.change[1] <= 0 <= self.change[2]


@dataclass(frozen=True)
class Ends:
    """The evaluations of one split before and after training, over the problems that both have."""

    split: str
    before: Rows
    after: Rows
    before_step: int | None
    after_step: int | None
    every: Mapping[int, Rows] = field(default_factory=dict)

    @property
    def ks(self) -> tuple[int, ...]:
        """The k of pass@k that every problem has tries enough for."""
        return powers([*self.before, *self.after])


def told(about: Mapping[str, Any], name: str, default: Any = "") -> Any:
    """What run.json says about the run by that name; the default where it says nothing."""
    value = about.get(name)
    return default if value is None else value


def splits(store: Store) -> list[Ends]:
    """Each evaluated split: the one the run is about first, those it does not train last."""
    about = store.about
    by_split: dict[str, dict[int, list[Evaluated]]] = {}
    for step, row in store.evaluations():
        by_split.setdefault(row.split, {}).setdefault(step, []).append(row)
    focus, elsewhere = told(about, "focus"), told(about, "elsewhere", ())

    def place(split: str) -> tuple[bool, bool, str]:
        return split in elsewhere, split != focus, split

    return [_ends(split, by_split[split]) for split in sorted(by_split, key=place)]


def _ends(split: str, every: Mapping[int, list[Evaluated]]) -> Ends:
    steps = sorted(every)
    if len(steps) == 1:
        rows, step = every[steps[0]], steps[0]
        return Ends(split, *((rows, [], step, None) if step == 0 else ([], rows, None, step)), every=every)
    before, after = every[steps[0]], every[steps[-1]]
    both = {row.problem for row in before} & {row.problem for row in after}
    if both:  # a quick evaluation may have asked fewer problems: compare the same ones
        before = [row for row in before if row.problem in both]
        after = [row for row in after if row.problem in both]
    return Ends(split, before, after, steps[0], steps[-1], every)


def facts(store: Store) -> list[Fact]:
    """Every line of the table before → after; empty when nothing was evaluated."""
    ends = splits(store)
    lines = [fact for end in ends for fact in _of_split(end)]
    return lines + _forgetting(store, ends) + _of_policy(store) if lines else []


def _of_split(end: Ends) -> list[Fact]:
    ks = dict.fromkeys((1, min(64, *end.ks[-1:] or (1,))))
    lines = [_passing(end, k) for k in ks]
    lines.append(_mean(end, "entropy", "nats", "mean entropy of the next-token distribution", lambda row: row.entropy))
    lines.append(_mean(end, "length", "tokens", "mean length, end token included", lambda row: row.mean_length))
    tries = {row.tries for row in (*end.before, *end.after)}
    if len(tries) == 1:  # more tries find more different responses: other numbers of tries do not compare
        unit, meaning = f"of {min(tries)}", "different texts among the tries, mean over problems"
        lines.append(_mean(end, "different responses", unit, meaning, lambda row: row.distinct))
    return lines


def _passing(end: Ends, k: int) -> Fact:
    before, after = (float(curve(rows, [k]).mean[0]) if rows else None for rows in (end.before, end.after))
    moved = _first(change(end.before, end.after, [k])) if _paired(end) else None
    meaning = "share of problems" if k > 1 else "share of responses that are right"
    meaning += f" with at least one right answer in {k}" if k > 1 else ""
    return Fact(end.split, f"pass@{k}", "share", before, after, moved, 1, meaning)


def _mean(end: Ends, measure: str, unit: str, meaning: str, value: Callable[[Evaluated], float]) -> Fact:
    import numpy as np

    before, after = (np.array([value(row) for row in rows], dtype=float) for rows in (end.before, end.after))
    known = [float(x.mean()) if len(x) and not np.isnan(x).any() else None for x in (before, after)]
    moved = None
    if _paired(end) and None not in known:
        first = {row.problem: value(row) for row in end.before}
        table = np.array([[value(row) - first[row.problem]] for row in end.after], dtype=float)
        low, high = interval(table)
        moved = (float(table.mean()), float(low[0]), float(high[0]))
    return Fact(end.split, measure, unit, known[0], known[1], moved, 0, meaning)


def _paired(end: Ends) -> bool:
    return bool(end.before) and {row.problem for row in end.before} == {row.problem for row in end.after}


def _first(moved: Curve) -> tuple[float, float, float]:
    return float(moved.mean[0]), float(moved.low[0]), float(moved.high[0])


def _forgetting(store: Store, ends: Sequence[Ends]) -> list[Fact]:
    """What the run lost on the splits that it did not train, all their problems together."""
    elsewhere = told(store.about, "elsewhere", ())
    others = [end for end in ends if end.split in elsewhere and _paired(end)]
    if not others:
        return []
    before, after = [r for end in others for r in end.before], [r for end in others for r in end.after]
    value, low, high = _first(change(before, after, [1]))
    names = ", ".join(end.split for end in others)
    meaning = f"pass@1 lost on what was not trained: {names}"
    never = "of the problems there that were solved at least once before, those never solved now, in as many tries"
    return [
        Fact("", "forgetting", "share", 0.0, -value, (-value, -high, -low), -1, meaning),
        Fact("", "lost problems", "share", 0.0, lost(before, after), None, -1, never),
    ]


def _of_policy(store: Store) -> list[Fact]:
    kl = last(store.metrics("kl").get("kl"))
    if kl is None:
        return []
    meaning = "per token, from the starting model"
    return [Fact("", "KL to the start", "nats", 0.0, kl, meaning=meaning)]


def last(curve: "tuple[np.ndarray, np.ndarray] | None") -> float | None:
    """The last known value of a metric, given its steps and values; None where there is none."""
    known = [] if curve is None else curve[1][curve[1] == curve[1]]
    return float(known[-1]) if len(known) else None


def steps_of(ends: Sequence[Ends]) -> tuple[str, str]:
    """How the two evaluations are called: before (step 0), after (step 200)."""
    first = next((end.before_step for end in ends if end.before_step is not None), None)
    last = next((end.after_step for end in ends if end.after_step is not None), None)
    before = "" if first is None else "before" if first == 0 else f"first evaluation (step {first})"
    return before, "" if last is None else f"after {last} steps"


def missing(store: Store, ends: Sequence[Ends]) -> list[str]:
    """One sentence for each thing a whole run has and this one does not."""
    metrics, said = store.metrics(), []
    longest = max((len(steps) for steps, _ in metrics.values()), default=0)
    if not metrics:
        said.append("No step has been logged yet, so there are no learning curves.")
    elif longest < 2:
        said.append("Only one step has been logged: a curve needs two.")
    if not ends:
        said.append("Nothing has been evaluated, so there is no before and after, and no pass@k.")
    elif not any(end.after for end in ends):
        said.append("There is no evaluation after training, only the one before.")
    elif not any(end.before for end in ends):
        said.append("There is no evaluation before training, so no change can be shown.")
    if reasons := told(store.about, "unknown", {}):
        named = by_reason(reasons, most=20)
        said.append(f"{sum(reasons.values())} responses could not be judged, and count nowhere: {named}.")
    if not store.rollout_steps():
        said.append("No responses were kept, so there are none to look at.")
    return said


def by_reason(reasons: Mapping[str, int], most: int = 5) -> str:
    """How many responses could not be judged for which reason, the most frequent first.

    >>> by_reason({"judge raised KeyError": 2, "judge took over 5 s": 7})
    'judge took over 5 s (7), judge raised KeyError (2)'
    """
    rows = sorted(reasons.items(), key=lambda row: (-row[1], row[0]))
    more = f", and {len(rows) - most} other reasons" if len(rows) > most else ""
    return ", ".join(f"{reason} ({count})" for reason, count in rows[:most]) + more


def seconds(store: Store) -> float | None:
    """The wall time of all steps, in seconds; None when it was not logged."""
    found = store.metrics("seconds").get("seconds")
    return float(found[1].sum()) if found is not None and len(found[1]) else None


def number(value: float | None, unit: str = "", signed: bool = False) -> str:
    """A number as a reader wants it: shares in percent, others with three digits that count.

    >>> number(0.1234, "share"), number(-0.5, "nats", signed=True), number(None), number(1234.5)
    ('12.3 %', '−0.500', '–', '1234')
    """
    if value is None or value != value:
        return "–"
    if value == 0:
        return "0" if unit != "share" else "0 pp" if signed else "0 %"
    sign = "+" if signed else ""
    if unit == "share":
        text = f"{100 * value:{sign}.1f} {'pp' if signed else '%'}"  # a change of a share is in points
    else:
        digits = sum(abs(value) < bound for bound in (1, 10, 100))
        text = f"{value:{sign}.{digits}f}"
    return text.replace("-", "−")


def bounds(fact: Fact) -> str:
    """The 95 % interval of a change, its unit said once; empty where there is none."""
    if fact.change is None:
        return ""
    low, high = (number(x, fact.unit, signed=True) for x in fact.change[1:])
    return f"{low.removesuffix(' pp')} … {high}"


def duration(value: float | None) -> str:
    """Seconds as a person says them.

    >>> duration(118.2), duration(9.44), duration(7325), duration(None)
    ('1 min 58 s', '9.4 s', '2 h 02 min', 'unknown time')
    """
    if value is None:
        return "unknown time"
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, left = divmod(round(value), 60)
    return f"{minutes} min {left:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def headline(store: Store, ends: Sequence[Ends]) -> str:
    """One sentence: what came of it."""
    first = ends[0] if ends else None
    line = _passing(first, 1) if first else None
    took = f"{store.steps} step{'' if store.steps == 1 else 's'} and {duration(seconds(store))}"
    if first is None or line is None or line.after is None:
        return f"{took[0].upper()}{took[1:]} of training so far." if store.steps else "Nothing has been trained yet."
    if line.before is None:
        return f"{number(line.after, 'share')} right at the first try on {first.split} after {took}."
    return (
        f"From {number(line.before, 'share')} to {number(line.after, 'share')} right at the first try "
        f"on {first.split}, in {took}."
    )
