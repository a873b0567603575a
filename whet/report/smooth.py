"""Noisy curves made readable: few enough points, a smooth line, and the band in which most points lie."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

MOST_POINTS = 300  # ours: more cannot be told apart at the width of a chart


def thinned(steps: "np.ndarray", values: "np.ndarray", most: int = MOST_POINTS) -> "tuple[np.ndarray, np.ndarray]":
    """At most `most` points [m]: neighbours are averaged, unknown values left out."""
    import numpy as np

    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    if len(steps) <= most:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), most)
    return np.array([steps[part[-1]] for part in parts]), np.array([values[part].mean() for part in parts])


def reach(count: int) -> int:
    """The width of the bell a point is smoothed with, in neighbours: a twentieth of the curve, none of a short one."""
    return 0 if count < 6 else max(1, round(count / 20))


def smoothed(values: "np.ndarray") -> "np.ndarray":
    """A centred mean with weights that fall off like a bell; [m] to [m]."""
    import numpy as np

    width = reach(len(values))
    if width == 0 or len(values) == 0:
        return values
    away = np.arange(-2 * width, 2 * width + 1)
    bell = np.exp(-0.5 * (away / width) ** 2)
    weight = np.convolve(np.ones_like(values), bell, mode="full")[2 * width : -2 * width]
    return np.convolve(values, bell, mode="full")[2 * width : -2 * width] / weight


def band(values: "np.ndarray", share: float = 0.8) -> "tuple[np.ndarray, np.ndarray]":
    """The bounds between which `share` of the neighbouring points lie, as they lie about the smooth line: [m] each."""
    import numpy as np

    smooth, width = smoothed(values), 2 * reach(len(values))
    away = values - smooth  # the distances and not the points, or a steep curve would look noisy
    near = [away[max(0, i - width) : i + width + 1] for i in range(len(values))]
    tails = [(1 - share) / 2, (1 + share) / 2]
    bounds = np.array([np.quantile(part, tails) for part in near]).reshape(-1, 2)
    low, high = (smooth + smoothed(bound) for bound in bounds.T)
    return np.maximum(low, values.min(initial=np.inf)), np.minimum(high, values.max(initial=-np.inf))


def points(steps: "np.ndarray", values: "np.ndarray") -> list[dict[str, Any]]:
    """Rows for a chart: step, value as logged, smooth, low and high; three digits more than a chart can show."""
    steps, values = thinned(steps, values)
    low, high = band(values)
    columns = {"value": values, "smooth": smoothed(values), "low": low, "high": high}
    rounded = {name: [float(f"{x:.5g}") for x in column] for name, column in columns.items()}
    return [{"step": int(step), **{n: c[i] for n, c in rounded.items()}} for i, step in enumerate(steps)]
