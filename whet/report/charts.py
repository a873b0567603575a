"""The charts of a run's page as Vega-Lite specifications. Colours are CSS variables, which the page fills in."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from whet.report.facts import Ends
from whet.report.smooth import points
from whet.runs.curve import Curve, curve

if TYPE_CHECKING:
    import numpy as np

Spec = dict[str, Any]

BEFORE, AFTER = "before", "after"
ROWS = "rows"
SERIES = ("var(--after)", "var(--series-2)", "var(--series-3)", "var(--series-4)", "var(--series-5)")


def trusted() -> AbstractContextManager[None]:
    """While a page is written Altair does not check its own output, which takes seconds; the tests do."""
    from altair.utils.schemapi import debug_mode

    return debug_mode(False)


def _spec(chart: Any, rows: Sequence[Mapping[str, Any]], height: int) -> Spec:
    """The specification of a chart that was made on `ROWS`: without configuration, since the page has its own."""
    spec: Spec = chart.properties(width="container", height=height).to_dict(validate=False)
    kept = {name: value for name, value in spec.items() if name not in ("config", "$schema")}
    return {**kept, "datasets": {ROWS: list(rows)}}


def _chart() -> Any:
    """A chart whose data is named and not copied from layer to layer."""
    import altair as alt

    return alt.Chart(alt.NamedData(ROWS))


def _estimated(one: Curve, i: int, **labels: Any) -> dict[str, Any]:
    """A row for a chart: an estimate with the bounds of its interval."""
    return {**labels, "value": _shown(one.mean[i]), "low": _shown(one.low[i]), "high": _shown(one.high[i])}


def _between(title: str) -> list[Any]:
    """The tooltips of an estimate."""
    import altair as alt

    named = {"value": title, "low": "from", "high": "to"}
    return [alt.Tooltip(f"{name}:Q", title=said, format=".1%") for name, said in named.items()]


def _share(zero: bool = True) -> dict[str, Any]:
    """`value` as height, in percent."""
    import altair as alt

    return {"y": alt.Y("value:Q", axis=_axis("share"), scale=alt.Scale(zero=zero, nice=True))}


def _bounds() -> dict[str, Any]:
    """From `low` to `high`."""
    import altair as alt

    return {"y": alt.Y("low:Q", axis=_axis("share")), "y2": alt.Y2("high:Q")}


def _axis(unit: str, most: float = 1.0) -> Any:
    """An axis without a title; `most` is the largest value on it."""
    import altair as alt

    form = (".1~%" if most < 0.05 else ".0%") if unit == "share" else "~g" if most < 10_000 else "~s"
    return alt.Axis(format=form, tickCount=4, title=None)


def _step() -> Any:
    import altair as alt

    axis = alt.Axis(tickMinStep=1, tickCount=alt.ExprRef("width / 60"))
    return alt.X("step:Q", title="step", scale=alt.Scale(nice=False, padding=6), axis=axis)


def _form(unit: str) -> str:
    return ".1%" if unit == "share" else ".4~g"


def _when(channel: str = "Color") -> Any:
    """Grey for before, the accent for after; the page has the legend."""
    import altair as alt

    scale = alt.Scale(domain=[BEFORE, AFTER], range=["var(--before)", "var(--after)"])
    return getattr(alt, channel)("when:N", scale=scale, legend=None)


def _shown(value: float) -> float:
    return float(f"{value:.5g}")


# --- curves over steps ---------------------------------------------------------------------------------------


def learning(name: str, unit: str, steps: "np.ndarray", values: "np.ndarray") -> Spec:
    """One metric over steps: points as logged, faint; a smooth line; a band that holds 80 % of the points near."""
    import altair as alt

    rows = points(steps, values)
    axis = _axis(unit, max((abs(row["value"]) for row in rows), default=0))
    scale = alt.Scale(zero=False, nice=True)
    y = alt.Y("smooth:Q", axis=axis, scale=scale)
    base = _chart().encode(x=_step())
    tooltip = [
        alt.Tooltip("step:Q"),
        alt.Tooltip("value:Q", title=name, format=_form(unit)),
        alt.Tooltip("smooth:Q", title="smooth", format=_form(unit)),
    ]
    near = alt.selection_point(nearest=True, on="pointerover", clear="pointerout", fields=["step"], empty=False)
    layers = [
        base.mark_circle(size=9, opacity=0.35, color="var(--after)").encode(y=alt.Y("value:Q", axis=axis)),
        base.mark_line(strokeWidth=2.2, color="var(--after)", interpolate="monotone").encode(y=y),
        base.mark_rule(color="var(--muted)").encode(
            opacity=alt.condition(near, alt.value(0.7), alt.value(0)), tooltip=tooltip
        ).add_params(near),
    ]  # fmt: skip
    if len(rows) >= 6:
        shade = base.mark_area(opacity=0.16, color="var(--after)", interpolate="monotone")
        layers.insert(0, shade.encode(y=alt.Y("low:Q", axis=axis, scale=scale), y2="high:Q"))
    return _spec(alt.layer(*layers), rows, 150)


def held_out(ends: Sequence[Ends]) -> Spec:
    """pass@1 at every evaluation, one line for each split, with 95 % intervals over problems."""
    import altair as alt

    rows = [
        _estimated(curve(results, [1]), 0, step=step, split=end.split)
        for end in ends
        for step, results in sorted(end.every.items())
    ]
    splits = [end.split for end in ends]
    colors = [SERIES[i % len(SERIES)] for i in range(len(splits))]
    legend = alt.Legend(
        orient="top", direction="horizontal", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1
    )  # fmt: skip
    color = alt.Color("split:N", sort=splits, title=None, scale=alt.Scale(domain=splits, range=colors), legend=legend)
    base = _chart().encode(x=_step(), color=color)
    tooltip = [alt.Tooltip("split:N"), alt.Tooltip("step:Q"), *_between("pass@1")]
    layers = (
        base.mark_area(opacity=0.14).encode(**_bounds()),
        base.mark_line(strokeWidth=2.2).encode(**_share()),
        base.mark_circle(size=46, opacity=1).encode(**_share(), tooltip=tooltip),
    )
    return _spec(alt.layer(*layers), rows, 240)


# --- before and after ----------------------------------------------------------------------------------------


def _both(end: Ends) -> list[tuple[str, Any]]:
    return [(when, rows) for when, rows in ((BEFORE, end.before), (AFTER, end.after)) if rows]


def passing(end: Ends) -> Spec:
    """pass@k over k on a log2 axis, before and after, with 95 % intervals over problems."""
    import altair as alt

    curves = [(when, curve(results, end.ks)) for when, results in _both(end)]
    rows = [_estimated(one, i, k=k, when=when) for when, one in curves for i, k in enumerate(end.ks)]
    axis = alt.Axis(values=list(end.ks), format="d", grid=False)
    scale = alt.Scale(type="log", base=2, nice=False, domain=[1, max(end.ks[-1], 2)], padding=6)
    x = alt.X("k:Q", title="k responses to each problem", axis=axis, scale=scale)
    base = _chart().encode(x=x, color=_when())
    tooltip = [alt.Tooltip("when:N"), alt.Tooltip("k:Q"), *_between("pass@k")]
    layers = (
        base.mark_area(opacity=0.18).encode(**_bounds()),
        base.mark_line(strokeWidth=2.2).encode(**_share()),
        base.mark_circle(size=42, opacity=1).encode(**_share(), tooltip=tooltip),
    )
    return _spec(alt.layer(*layers), rows, 210)


def by_level(end: Ends) -> Spec | None:
    """pass@1 by difficulty, before and after, with 95 % intervals; None where all problems have one level."""
    import altair as alt

    levels = sorted({row.level for row in (*end.before, *end.after)})
    if len(levels) < 2:
        return None
    found = [
        (when, level, some)
        for when, results in _both(end)
        for level in levels
        if (some := [row for row in results if row.level == level])
    ]
    rows = [_estimated(curve(some, [1]), 0, level=level, when=when, n=len(some)) for when, level, some in found]
    base = _chart().encode(
        x=alt.X("level:O", title="level", axis=alt.Axis(labelAngle=0, grid=False)),
        xOffset=alt.XOffset("when:N", sort=[BEFORE, AFTER]),
    )
    tooltip = [alt.Tooltip("when:N"), alt.Tooltip("level:O"), alt.Tooltip("n:Q", title="problems"), *_between("pass@1")]
    layers = (
        base.mark_bar(cornerRadiusEnd=2).encode(**_share(), color=_when(), tooltip=tooltip),
        base.mark_rule(color="var(--ink)", strokeWidth=1.2).encode(**_bounds()),
    )
    return _spec(alt.layer(*layers), rows, 210)


# --- what the responses are like -----------------------------------------------------------------------------


def lengths(early: Sequence[int], late: Sequence[int]) -> Spec:
    """How long the responses are: share of them by tokens, at the first and at the last step that was kept."""
    import altair as alt
    import numpy as np

    most = max([*early, *late])
    width = max(1, -(-most // 24))
    edges = np.arange(0, most + width + 1, width) + 0.5 * (width == 1)
    rows = []
    for when, found in ((BEFORE, early), (AFTER, late)):
        counts, _ = np.histogram(found, edges)
        shares = counts / max(len(found), 1)
        rows += [
            {"from": float(a), "to": float(b), "when": when, "share": _shown(float(s))}
            for a, b, s in zip(edges, edges[1:], shares, strict=False)
            if s > 0
        ]
    chart = _chart().mark_bar(fillOpacity=0.4, strokeWidth=1.5, binSpacing=2).encode(
        x=alt.X("from:Q", bin="binned", title="tokens in a response", axis=alt.Axis(tickMinStep=1, grid=False)),
        x2="to:Q",
        y=alt.Y("share:Q", stack=None, axis=_axis("share")),
        color=_when(),
        stroke=_when("Stroke"),
        tooltip=[
            alt.Tooltip("when:N"), alt.Tooltip("from:Q", title="from"), alt.Tooltip("to:Q", title="to"),
            alt.Tooltip("share:Q", title="responses", format=".1%"),
        ],
    )  # fmt: skip
    return _spec(chart, rows, 170)


def entropy_tail(early: "np.ndarray", late: "np.ndarray") -> Spec:
    """How many tokens were open choices: share of tokens whose entropy exceeds x nats."""
    import altair as alt
    import numpy as np

    most = float(max([*(x.max() for x in (early, late) if len(x)), 1e-3]))
    levels = np.linspace(0, most, 61)
    rows = [
        {"nats": _shown(float(x)), "when": when, "share": _shown(float((found > x).mean()))}
        for when, found in ((BEFORE, early), (AFTER, late))
        if len(found)
        for x in levels
    ]
    chart = _chart().mark_line(strokeWidth=2.2).encode(
        x=alt.X("nats:Q", title="entropy of a token, nats", scale=alt.Scale(nice=False)),
        y=alt.Y("share:Q", axis=_axis("share"), scale=alt.Scale(zero=True)),
        color=_when(),
        tooltip=[
            alt.Tooltip("when:N"), alt.Tooltip("nats:Q", title="more than", format=".3f"),
            alt.Tooltip("share:Q", title="of the tokens", format=".1%"),
        ],
    )  # fmt: skip
    return _spec(chart, rows, 170)


def entropy_by_position(early: Sequence[Sequence[float]], late: Sequence[Sequence[float]]) -> Spec:
    """Mean entropy along the responses, in at most 60 stretches that five tokens or more lie in."""
    import altair as alt

    width = -(-max((len(one) for one in (*early, *late)), default=1) // 60)
    rows: list[dict[str, Any]] = []
    for when, found in ((BEFORE, early), (AFTER, late)):
        stretches: dict[int, list[float]] = {}
        for one in found:
            for position, value in enumerate(one):
                stretches.setdefault(position // width, []).append(value)
        for stretch, values in sorted(stretches.items()):
            if len(values) >= 5:
                middle = 1 + width * stretch + (width - 1) / 2
                rows.append({"position": middle, "when": when, "nats": _shown(sum(values) / len(values))})
    most = max((row["position"] for row in rows), default=1)
    axis = alt.Axis(values=list(range(1, int(most) + 1))) if most <= 12 else alt.Axis()
    x = alt.X("position:Q", title="position in the response", axis=axis, scale=alt.Scale(nice=False, padding=4))
    chart = _chart().mark_line(strokeWidth=2.2).encode(
        x=x,
        y=alt.Y("nats:Q", axis=_axis("nats"), scale=alt.Scale(zero=True)),
        color=_when(),
        tooltip=[alt.Tooltip("when:N"), alt.Tooltip("position:Q"), alt.Tooltip("nats:Q", format=".3f")],
    )  # fmt: skip
    return _spec(chart, rows, 170)
