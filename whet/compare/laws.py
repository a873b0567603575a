"""Laws that papers state, fitted to runs or computed exactly on a small example.

entropy-performance   R = -a e^H + b                     Cui et al. 2025 (2505.22617), section 3
covariance identity   dH = -Cov(log π, dz) + O(dz²)      the same, section 4
alignment limit       E_π r - E_ref r = β (KL(π|ref) + KL(ref|π)) for π ∝ ref e^{r/β}     2605.07105
best of N             KL(π_N | π) ≤ log N - (N-1)/N
capability boundary   problems never solved in k tries, before and after                           2508.07534
crossing of pass@k    the k from which the base solves more than the trained model        2504.13837
"""

import math
from collections.abc import Sequence
from typing import Any

from whet.runs.store import Store


def exchange(stores: Sequence[Store], most: int = 40) -> dict[str, Any]:
    """Entropy against reward over the runs of a recipe, and the law's a and b where two entropies differ.

    `points` are [H in nats, R as pass@1 on the training problems]; `ceiling` is b - a, the reward at H = 0.
    """
    from whet.report.smooth import smoothed, thinned

    points: list[list[float]] = []
    for store in stores:
        found = store.metrics("entropy", "correct")
        if len(found) == 2:
            lines = [smoothed(thinned(*found[name], most)[1]) for name in ("entropy", "correct")]
            points += [[float(f"{x:.5g}") for x in row] for row in zip(*lines, strict=False)]
    return {"points": points, **(fit(points) or {})}


def fit(points: Sequence[Sequence[float]]) -> dict[str, float] | None:
    """Least squares of R on e^H; None where fewer than three points or no two entropies differ.

    >>> law = fit([[0.0, 0.6], [0.5, 0.567564], [1.0, 0.514086], [1.5, 0.425916]])
    >>> {name: round(law[name], 5) for name in ("a", "b", "ceiling")}
    {'a': 0.05, 'b': 0.65, 'ceiling': 0.6}
    """
    from scipy import stats

    xs = [math.exp(h) for h, _ in points]
    if len(points) < 3 or max(xs) - min(xs) < 1e-6:
        return None
    line = stats.linregress(xs, [r for _, r in points])
    return {
        "a": -float(line.slope), "b": float(line.intercept), "ceiling": float(line.intercept + line.slope),
        "r2": float(line.rvalue**2), "low": min(h for h, _ in points), "high": max(h for h, _ in points),
    }  # fmt: skip


def straight(points: Sequence[Sequence[float]]) -> float:
    """R² of a straight line of R on H: what e^H has to beat.

    >>> round(straight([[0.0, 0.6], [0.5, 0.567564], [1.0, 0.514086], [1.5, 0.425916]]), 3)
    0.955
    """
    from scipy import stats

    return float(stats.linregress([h for h, _ in points], [r for _, r in points]).rvalue ** 2)


def identity(rows: Sequence[tuple[float, float]]) -> tuple[float, int]:
    """Entropy as it moved and as the covariance told, update by update: the share they differ by, and signs right.

    >>> identity([(-0.01, -0.012), (0.02, -0.01)])
    (1.0666666666666667, 1)
    """
    off = sum(abs(moved - told) for moved, told in rows) / max(sum(abs(moved) for moved, _ in rows), 1e-12)
    return off, sum((moved > 0) == (told > 0) for moved, told in rows)


def entropy_change(logits: Sequence[float], moved: Sequence[float]) -> tuple[float, float]:
    """The change of a softmax policy's entropy when its logits move: exactly, and by the covariance identity.

    >>> z, pi = [1.0, 0.0, -1.0], [0.665241, 0.244728, 0.090031]
    >>> exact, told = entropy_change(z, [1e-4 * p * a for p, a in zip(pi, [0.439117, -1.060883, -0.360883])])
    >>> f"{exact:.5e} {told:.5e}"
    '-1.23707e-05 -1.23705e-05'
    """
    import numpy as np
    from scipy.special import log_softmax

    z, dz = np.asarray(logits, dtype=float), np.asarray(moved, dtype=float)
    before, after = log_softmax(z), log_softmax(z + dz)
    pi = np.exp(before)
    exact = -(np.exp(after) * after).sum() + (pi * before).sum()
    cov = (pi * before * dz).sum() - (pi * before).sum() * (pi * dz).sum()
    return float(exact), float(-cov)


def tilted(scores: Sequence[float], beta: float) -> dict[str, float]:
    """What the best policy at a KL price β could gain over samples of the base: gain, and the samples it is worth.

    For π ∝ base · e^{r/β}: gain = Cov(r, e^{r/β}) / E e^{r/β} = β · Jeffreys divergence; `kl` is KL(π | base).

    >>> {name: round(value, 4) for name, value in tilted([0.0] * 5 + [1.0] * 3 + [2.0] * 2, 1.0).items()}
    {'gain': 0.6501, 'kl': 0.3228, 'effective': 0.5722}
    """
    import numpy as np

    r = np.asarray(scores, dtype=float)
    e = np.exp((r - r.max()) / beta)
    w = e / e.sum()
    gain = float((w * r).sum() - r.mean())
    kl = float((w * np.log(np.maximum(w * len(r), 1e-300))).sum())
    return {"gain": gain, "kl": kl, "effective": float(1 / (w**2).sum() / len(r))}


def at_budget(problems: Sequence[Sequence[float]], kl: float) -> dict[str, float]:
    """The most that samples of the base allow for a KL budget in nats a response: gain, and the price β that spends it.

    One β for all problems, so that the budget goes where it buys most. With more KL than the samples can use the
    gain is the largest there is, and β is its lower end.

    >>> one = at_budget([[0.0] * 5 + [1.0] * 3 + [2.0] * 2], 0.322834)
    >>> round(one["gain"], 3), round(one["beta"], 2)
    (0.65, 1.0)
    """

    def at(beta: float) -> dict[str, float]:
        found = [tilted(scores, beta) for scores in problems]
        return {name: sum(one[name] for one in found) / len(found) for name in ("gain", "kl")}

    low, high = 1e-2, 1e3
    for _ in range(50):
        beta = math.sqrt(low * high)
        low, high = (beta, high) if at(beta)["kl"] > kl else (low, beta)
    return {**at(high), "beta": high}


def boundary(before: Sequence[tuple[str, int]], after: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Of problems with their right answers, in as many tries before and after: solved, lost and won (2508.07534).

    >>> boundary([("a", 3), ("b", 1), ("c", 0)], [("a", 9), ("b", 0), ("c", 2)])
    {'problems': 3, 'before': 2, 'after': 2, 'lost': 1, 'won': 1}
    """
    was, now = ({name for name, right in rows if right} for rows in (before, after))
    return {
        "problems": len(before), "before": len(was), "after": len(now), "lost": len(was - now), "won": len(now - was),
    }  # fmt: skip


def best_of(scores: Sequence[float], n: int) -> dict[str, float]:
    """Best of n responses drawn from these: expected score and the bound on its KL to the base, in nats.

    >>> {name: round(value, 4) for name, value in best_of([0.0] * 5 + [1.0] * 3 + [2.0] * 2, 4).items()}
    {'score': 1.5279, 'kl': 0.6363}
    """
    import numpy as np

    r = np.sort(np.asarray(scores, dtype=float))
    share = (np.arange(len(r) + 1) / len(r)) ** n
    return {"score": float((np.diff(share) * r).sum()), "kl": math.log(n) - (n - 1) / n}


def crossing(base: Sequence[Sequence[float]], trained: Sequence[Sequence[float]]) -> int | None:
    """The smallest k of rows [k, pass@k, …] from which the base is ahead although it began behind; None if never.

    >>> crossing([[1, .2], [2, .36], [4, .59]], [[1, .3], [2, .45], [4, .5625]])
    4
    """
    ahead = {int(row[0]): row[1] for row in base}
    rows = [(int(row[0]), row[1]) for row in trained if int(row[0]) in ahead]
    if not rows or ahead[rows[0][0]] >= rows[0][1]:
        return None
    behind = [k for k, value in rows if value >= ahead[k]]
    later = [k for k, _ in rows if k > max(behind)]
    return later[0] if later else None
