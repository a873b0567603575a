"""pass@k over problems, with intervals: the problems are what chance has drawn, so they are drawn anew."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from whet.runs.store import Evaluated

RESAMPLES = 2000  # ours: the bounds then move by less than a thousandth from seed to seed


@dataclass(frozen=True, eq=False)
class Curve:
    """Means over problems at each k, and the bounds of their intervals: all of shape [k], in shares."""

    ks: tuple[int, ...]
    mean: "np.ndarray"
    low: "np.ndarray"
    high: "np.ndarray"


def powers(rows: "Iterable[Evaluated]") -> tuple[int, ...]:
    """1, 2, 4, … as far as every problem has that many tries."""
    most = min((row.tries for row in rows), default=0)
    return tuple(2**i for i in range(most.bit_length()))


def curve(rows: "Sequence[Evaluated]", ks: Sequence[int] | None = None, level: float = 0.95, seed: int = 0) -> Curve:
    """pass@k, averaged over problems, with the percentile bootstrap over problems.

    >>> from whet.runs.store import Evaluated
    >>> rows = [Evaluated("test", name, 0, 2, right, 5.0, 1.0, 2) for name, right in [("a", 0), ("b", 1)]]
    >>> curve(rows).ks, curve(rows).mean.tolist()
    ((1, 2), [0.25, 0.5])
    """
    ks = powers(rows) if ks is None else tuple(ks)
    table = _table(rows, ks)
    return Curve(ks, table.mean(0), *interval(table, level, seed))


def change(
    before: "Sequence[Evaluated]",
    after: "Sequence[Evaluated]",
    ks: Sequence[int],
    level: float = 0.95,
    seed: int = 0,
) -> Curve:
    """pass@k after minus before over the problems that both have; problems are drawn in pairs."""
    first = {(row.split, row.problem): row for row in before}
    pairs = [(first[key], row) for row in after if (key := (row.split, row.problem)) in first]
    table = _table([b for _, b in pairs], ks) - _table([a for a, _ in pairs], ks)
    return Curve(tuple(ks), table.mean(0), *interval(table, level, seed))


def lost(before: "Iterable[Evaluated]", after: "Iterable[Evaluated]") -> float:
    """The share of the problems solved at least once before that are never solved now, in as many tries.

    >>> from whet.runs.store import Evaluated
    >>> could = [Evaluated("test", name, 0, 8, right, 5.0, 1.0, 2) for name, right in [("a", 3), ("b", 1), ("c", 0)]]
    >>> lost(could, [Evaluated("test", name, 0, 8, 0, 5.0, 1.0, 2) for name in "ac"])
    1.0
    """
    now = {(row.split, row.problem): row.right for row in after}
    could = [(row.split, row.problem) for row in before if row.right and (row.split, row.problem) in now]
    return sum(now[key] == 0 for key in could) / max(len(could), 1)


def interval(table: "np.ndarray", level: float = 0.95, seed: int = 0) -> "tuple[np.ndarray, np.ndarray]":
    """Bounds [k] of the mean over the rows of [problems k], by drawing the rows anew `RESAMPLES` times."""
    import numpy as np

    rows = len(table)
    if rows == 0:
        raise ValueError("An interval needs at least one problem.")
    low, high = np.quantile(_draws(rows, seed) @ table / rows, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


@lru_cache(maxsize=16)
def _draws(rows: int, seed: int) -> "np.ndarray":
    """How often each row is drawn in each resample, [resamples rows]: as good as a copy of the rows, and smaller."""
    import numpy as np

    return np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES).astype(np.float64)


def _table(rows: "Sequence[Evaluated]", ks: Sequence[int]) -> "np.ndarray":
    """pass@k of each problem: [problems k]."""
    import numpy as np

    from whet.metrics import pass_at_k

    if not rows:
        raise ValueError("pass@k needs at least one problem.")
    return np.array([[pass_at_k(row.tries, row.right, k) for k in ks] for row in rows], dtype=np.float64)
