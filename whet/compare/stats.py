"""How sure a difference is: intervals over seeds, pairs, many comparisons at once, and a verdict in words.

A difference between two recipes is the mean over seeds of the differences at the same seed. Its interval is
Student's t on those differences: with five seeds a bootstrap interval is too narrow (`tests/compare` measures it),
and a sign-flip permutation test cannot go below p = 2 / 2^5 = 1/16, so neither can decide alone. Both are shown
beside it. Of m comparisons at once, R are called at the false discovery rate (Benjamini and Hochberg 1995), and
every interval is widened to the level 1 - max(R, 1) α / m (Benjamini and Yekutieli 2005): an interval then leaves
out 0 exactly where the procedure calls a difference.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEVEL = 0.95
RESAMPLES = 4000  # ours
FAR = 500  # more seeds than that are not worth a number


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval, which is None with one seed."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Pair:
    """Recipe `a` minus recipe `b` over the seeds that both have.

    `low`, `high`: t interval at the level `level`, which counts how many comparisons are made. `bootstrap`: the
    percentile interval at 95 %, alone. `p`: paired t test; `q`: the same, corrected; `p_flip`: sign-flip permutation
    test. `verdict`: better, worse, tie or open, and `words` says it.
    """

    a: str
    b: str
    n: int
    difference: float
    low: float | None
    high: float | None
    level: float
    bootstrap: tuple[float, float] | None
    p: float | None
    q: float | None
    p_flip: float | None
    verdict: str
    words: str


def estimate(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """The mean of some seeds with Student's t interval; no interval for one seed.

    >>> one = estimate([1.0, 2.0, 3.0])
    >>> one.value, round(one.low, 4), round(one.high, 4)
    (2.0, -0.4841, 4.4841)
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Estimate(mean, None, None, n)
    half = _half(_sd(values), n, level)
    return Estimate(mean, mean - half, mean + half, n)


def pairs(
    table: dict[str, dict[int, float]], couples: Sequence[tuple[str, str]], delta: float, better: int = 1,
    level: float = LEVEL, unit: str = "share",
) -> list[Pair]:  # fmt: skip
    """Every couple (a, b) of recipes, whose values are given by seed; `delta` is the largest difference of a tie."""
    found = [[table[a][s] - table[b][s] for s in sorted(table[a].keys() & table[b].keys())] for a, b in couples]
    ps = [p_value(values) for values in found]
    known = [p for p in ps if p is not None]
    corrected = iter(_corrected(known))
    qs = [None if p is None else next(corrected) for p in ps]
    called = sum(q <= 1 - level for q in qs if q is not None)
    wide = 1 - max(called, 1) * (1 - level) / max(len(known), 1)
    return [
        _pair(a, b, values, p, q, wide, delta, better, unit)
        for (a, b), values, p, q in zip(couples, found, ps, qs, strict=True)
    ]


def _pair(
    a: str, b: str, values: list[float], p: float | None, q: float | None, level: float, delta: float, better: int,
    unit: str,
) -> Pair:  # fmt: skip
    n = len(values)
    if n == 0:
        return Pair(a, b, 0, math.nan, None, None, level, None, None, None, None, "open", "no seed has both")
    mean = math.fsum(values) / n
    if n == 1:
        words = f"one seed, so no interval: {said(mean, unit, sign=True)}, which says nothing about other seeds"
        return Pair(a, b, 1, mean, None, None, level, None, None, None, None, "open", words)
    half = _half(_sd(values), n, level)
    low, high = (mean - half, mean + half) if half else (min(mean, 0.0), max(mean, 0.0))
    verdict, words = _verdict(mean, low, high, _sd(values), n, level, delta, better, unit)
    return Pair(a, b, n, mean, low, high, level, bootstrap(values), p, q, flip(values), verdict, words)


def _verdict(
    mean: float, low: float, high: float, sd: float, n: int, level: float, delta: float, better: int, unit: str
) -> tuple[str, str]:
    bounds = f"[{said(low, unit, sign=True)}, {said(high, unit, sign=True)}]"
    if low > 0 or high < 0:
        up = mean > 0
        good = up if better >= 0 else not up
        word = ("better" if good else "worse") if better else ("higher" if up else "lower")
        return ("better" if good else "worse"), f"{word} by {said(abs(mean), unit)} {bounds}"
    if -delta <= low and high <= delta:
        return "tie", f"tie (the interval {bounds} is inside ±{said(delta, unit)})"
    more = seeds_needed(mean, sd, n, level, delta)
    would = f"about {more} more seed{'s' if more > 1 else ''} would" if more else f"not even {FAR} seeds would"
    return "open", f"cannot tell yet: {said(mean, unit, sign=True)} {bounds}; {would}"


def seeds_needed(mean: float, sd: float, n: int, level: float, delta: float) -> int | None:
    """How many more seeds decide it if mean and spread stay: 0 leaves the interval, or it lies inside ±delta."""
    target = max(abs(mean), delta - abs(mean))
    for more in range(1, FAR + 1):
        if _half(sd, n + more, level) < target:
            return more
    return None


def p_value(values: Sequence[float]) -> float | None:
    """Paired t test, two-sided; None with fewer than two seeds. Differences that are all alike have no spread."""
    from scipy import stats

    if len(values) < 2:
        return None
    if max(values) - min(values) <= 1e-12 * max(map(abs, values), default=0.0):
        return 1.0 if values[0] == 0 else flip(values)
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def flip(values: Sequence[float]) -> float:
    """Sign-flip permutation test of the mean of paired differences, two-sided; exact up to 12 seeds.

    >>> flip([0.1, 0.2, 0.1, 0.3, 0.2])
    0.0625
    """
    import numpy as np
    from scipy import stats

    if not any(values):
        return 1.0
    x = np.asarray(values, dtype=float)
    many = np.inf if len(x) <= 12 else RESAMPLES
    done = stats.permutation_test(
        (x, np.zeros_like(x)), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples",
        n_resamples=many, vectorized=True, rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(done.pvalue)


def bootstrap(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean over seeds; too narrow with few of them."""
    import numpy as np
    from scipy import stats

    x = np.asarray(values, dtype=float)
    done = stats.bootstrap(
        (x,), np.mean, confidence_level=level, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(done.low), float(done.high)


def _corrected(ps: Sequence[float]) -> list[float]:
    from scipy import stats

    return [float(q) for q in stats.false_discovery_control(ps, method="bh")] if ps else []


def _sd(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1))


def _half(sd: float, n: int, level: float) -> float:
    """Half the width of a t interval of a mean."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - (1 - level) / 2)) * sd / math.sqrt(n)


# --- across tasks ----------------------------------------------------------------------------------------


def middle_mean(runs: Sequence[Sequence[float]], level: float = LEVEL) -> Estimate:
    """Interquartile mean over all runs of a recipe, given by task; seeds are drawn anew within each task.

    Agarwal et al. 2021 (2108.13264): a quarter of the runs is left out at each end.
    """
    import numpy as np
    from scipy import stats

    arrays = [np.asarray(one, dtype=float) for one in runs]
    value = float(stats.trim_mean(np.concatenate(arrays), 0.25))
    if min(map(len, arrays)) < 2:
        return Estimate(value, None, None, sum(map(len, arrays)))

    def of(*samples: Any, axis: int = -1) -> Any:
        return stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        ends = stats.bootstrap(
            arrays, of, confidence_level=level, n_resamples=RESAMPLES, method="percentile", vectorized=True,
            rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    return Estimate(value, float(ends.low), float(ends.high), sum(map(len, arrays)))


def improvement(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """The chance that a run of `a` beats a run of `b` on the same task, mean over tasks; a draw counts half.

    >>> improvement([[1.0, 2.0]], [[0.0, 1.0]])
    0.875
    """
    from scipy import stats

    shares = [stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in zip(a, b, strict=True)]
    return float(math.fsum(shares) / len(shares))


# --- words -----------------------------------------------------------------------------------------------


def said(value: float, unit: str = "share", sign: bool = False) -> str:
    """A number in its unit: shares in points of a percent, others with three digits that count.

    >>> said(0.034), said(-0.5, "nats", sign=True), said(0.0)
    ('3.4 pp', '-0.5 nats', '0.0 pp')
    """
    plus = "+" if sign else ""
    if unit == "share":
        return f"{100 * value:{plus}.1f} pp"
    return f"{value:{plus}.3g}" + (f" {unit}" if unit not in ("", "1") else "")
