"""The charts of a run's page as Vega-Lite specifications. Colours are CSS variables, which the page fills in."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from whet.report.facts import Ends
from whet.report.smooth import points
from whet.runs.curve import curve

if TYPE_CHECKING:
    import numpy as np

Spec = dict[str, Any]

BEFORE, AFTER = "before", "after"
SERIES = ("var(--after)", "var(--series-2)", "var(--series-3)", "var(--series-4)", "var(--series-5)")


def _spec(chart: Any, height: int) -> Spec:
    spec = chart.properties(width="container", height=height).to_dict()
    spec.pop("config", None)  # the page has its own, for light and for dark
    spec.pop("$schema", None)
    return spec


def _data(rows: Sequence[Mapping[str, Any]]) -> Any:
    import altair as alt

    return alt.Data(values=list(rows))


def _axis(unit: str, **more: Any) -> Any:
    import altair as alt

    return alt.Axis(format=".0%" if unit == "share" else "~s", tickCount=4, title=None, **more)


def _form(unit: str) -> str:
    return ".1%" if unit == "share" else ".4~g"


def _when() -> Any:
    """Grey for before, the accent for after; the page has the legend."""
    import altair as alt

    scale = alt.Scale(domain=[BEFORE, AFTER], range=["var(--before)", "var(--after)"])
    return alt.Color("when:N", scale=scale, legend=None)


def _shown(value: float) -> float:
    return float(f"{value:.5g}")


# --- curves over steps ---------------------------------------------------------------------------------------


def learning(name: str, unit: str, steps: "np.ndarray", values: "np.ndarray") -> Spec:
    """One metric over steps: points as logged, faint; a smooth line; a band that holds 80 % of the points near."""
    import altair as alt

    rows = points(steps, values)
    axis = alt.X("step:Q", title="step", scale=alt.Scale(nice=False, padding=4), axis=alt.Axis(tickMinStep=1))
    scale = alt.Scale(zero=False, nice=True)
    y = alt.Y("smooth:Q", axis=_axis(unit), scale=scale)
    base = alt.Chart(_data(rows)).encode(x=axis)
    tooltip = [
        alt.Tooltip("step:Q"),
        alt.Tooltip("value:Q", title=name, format=_form(unit)),
        alt.Tooltip("smooth:Q", title="smooth", format=_form(unit)),
    ]
    near = alt.selection_point(nearest=True, on="pointerover", clear="pointerout", fields=["step"], empty=False)
    layers = [
        base.mark_circle(size=9, opacity=0.35, color="var(--after)").encode(y=alt.Y("value:Q", axis=_axis(unit))),
        base.mark_line(strokeWidth=2.2, color="var(--after)", interpolate="monotone").encode(y=y),
        base.mark_rule(color="var(--muted)").encode(
            opacity=alt.condition(near, alt.value(0.7), alt.value(0)), tooltip=tooltip
        ).add_params(near),
    ]  # fmt: skip
    if len(rows) >= 6:
        shade = base.mark_area(opacity=0.16, color="var(--after)", interpolate="monotone")
        layers.insert(0, shade.encode(y=alt.Y("low:Q", axis=_axis(unit), scale=scale), y2="high:Q"))
    if len(rows) == 1:
        layers[1] = base.mark_circle(size=60, color="var(--after)").encode(y=y)
    return _spec(alt.layer(*layers), 150)


def held_out(ends: Sequence[Ends]) -> Spec:
    """pass@1 at every evaluation, one line for each split, with 95 % intervals over problems."""
    import altair as alt

    rows = []
    for end in ends:
        for step, results in sorted(end.every.items()):
            one = curve(results, [1])
            low, mean, high = (_shown(float(x[0])) for x in (one.low, one.mean, one.high))
            rows.append({"step": step, "split": end.split, "value": mean, "low": low, "high": high})
    splits = [end.split for end in ends]
    color = alt.Color(
        "split:N", sort=splits, title=None,
        scale=alt.Scale(domain=splits, range=[SERIES[i % len(SERIES)] for i in range(len(splits))]),
        legend=alt.Legend(orient="top", direction="horizontal", symbolType="stroke", symbolStrokeWidth=3, offset=4),
    )  # fmt: skip
    base = alt.Chart(_data(rows)).encode(x=_step(), color=color)
    y = alt.Y("value:Q", axis=_axis("share"), scale=alt.Scale(zero=True, nice=True))
    tooltip = [
        alt.Tooltip("split:N"), alt.Tooltip("step:Q"), alt.Tooltip("value:Q", title="pass@1", format=".1%"),
        alt.Tooltip("low:Q", title="from", format=".1%"), alt.Tooltip("high:Q", title="to", format=".1%"),
    ]  # fmt: skip
    layers = (
        base.mark_area(opacity=0.14).encode(y=alt.Y("low:Q", axis=_axis("share")), y2="high:Q"),
        base.mark_line(strokeWidth=2.2).encode(y=y),
        base.mark_circle(size=46, opacity=1).encode(y=y, tooltip=tooltip),
    )
    return _spec(alt.layer(*layers), 240)


def _step() -> Any:
    import altair as alt

    return alt.X("step:Q", title="step", scale=alt.Scale(nice=False, padding=8), axis=alt.Axis(tickMinStep=1))


# --- before and after ----------------------------------------------------------------------------------------


def _both(end: Ends) -> list[tuple[str, Any]]:
    return [(when, rows) for when, rows in ((BEFORE, end.before), (AFTER, end.after)) if rows]


def passing(end: Ends) -> Spec:
    """pass@k over k on a log2 axis, before and after, with 95 % intervals over problems."""
    import altair as alt

    rows = []
    for when, results in _both(end):
        one = curve(results, end.ks)
        for i, k in enumerate(one.ks):
            low, mean, high = (_shown(float(x[i])) for x in (one.low, one.mean, one.high))
            rows.append({"k": k, "when": when, "value": mean, "low": low, "high": high})
    ks = list(end.ks)
    x = alt.X(
        "k:Q", title="k responses to each problem", axis=alt.Axis(values=ks, format="d", grid=False),
        scale=alt.Scale(type="log", base=2, nice=False, domain=[1, max(ks[-1], 2)], padding=6),
    )  # fmt: skip
    base = alt.Chart(_data(rows)).encode(x=x, color=_when())
    y = alt.Y("value:Q", axis=_axis("share"), scale=alt.Scale(zero=True, nice=True))
    tooltip = [
        alt.Tooltip("when:N"), alt.Tooltip("k:Q"), alt.Tooltip("value:Q", title="pass@k", format=".1%"),
        alt.Tooltip("low:Q", title="from", format=".1%"), alt.Tooltip("high:Q", title="to", format=".1%"),
    ]  # fmt: skip
    layers = (
        base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", axis=_axis("share")), y2="high:Q"),
        base.mark_line(strokeWidth=2.2).encode(y=y),
        base.mark_circle(size=42, opacity=1).encode(y=y, tooltip=tooltip),
    )
    return _spec(alt.layer(*layers), 210)


def by_level(end: Ends) -> Spec | None:
    """pass@1 by difficulty, before and after, with 95 % intervals; None where all problems have one level."""
    import altair as alt

    levels = sorted({row.level for row in (*end.before, *end.after)})
    if len(levels) < 2:
        return None
    rows = []
    for when, results in _both(end):
        for level in levels:
            some = [row for row in results if row.level == level]
            if some:
                one = curve(some, [1])
                low, mean, high = (_shown(float(x[0])) for x in (one.low, one.mean, one.high))
                rows.append({"level": level, "when": when, "value": mean, "low": low, "high": high, "n": len(some)})
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("level:O", title="level", axis=alt.Axis(labelAngle=0, grid=False)),
        xOffset=alt.XOffset("when:N", sort=[BEFORE, AFTER]),
    )
    y = alt.Y("value:Q", axis=_axis("share"), scale=alt.Scale(zero=True, nice=True))
    tooltip = [
        alt.Tooltip("when:N"), alt.Tooltip("level:O"), alt.Tooltip("n:Q", title="problems"),
        alt.Tooltip("value:Q", title="pass@1", format=".1%"),
        alt.Tooltip("low:Q", title="from", format=".1%"), alt.Tooltip("high:Q", title="to", format=".1%"),
    ]  # fmt: skip
    layers = (
        base.mark_bar(cornerRadiusTopLeft=2, cornerRadiusTopRight=2).encode(y=y, color=_when(), tooltip=tooltip),
        base.mark_rule(color="var(--ink)", strokeWidth=1.2).encode(y=alt.Y("low:Q", axis=_axis("share")), y2="high:Q"),
    )
    return _spec(alt.layer(*layers), 210)


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
            if len(found)
        ]
    chart = alt.Chart(_data(rows)).mark_bar(opacity=0.55, binSpacing=1).encode(
        x=alt.X("from:Q", bin="binned", title="tokens in a response", axis=alt.Axis(tickMinStep=1, grid=False)),
        x2="to:Q",
        y=alt.Y("share:Q", stack=None, axis=_axis("share")),
        color=_when(),
        tooltip=[
            alt.Tooltip("when:N"), alt.Tooltip("from:Q", title="from"), alt.Tooltip("to:Q", title="to"),
            alt.Tooltip("share:Q", title="responses", format=".1%"),
        ],
    )  # fmt: skip
    return _spec(chart, 170)


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
    chart = alt.Chart(_data(rows)).mark_line(strokeWidth=2.2).encode(
        x=alt.X("nats:Q", title="entropy of a token, nats", scale=alt.Scale(nice=False)),
        y=alt.Y("share:Q", axis=_axis("share"), scale=alt.Scale(zero=True)),
        color=_when(),
        tooltip=[
            alt.Tooltip("when:N"), alt.Tooltip("nats:Q", title="more than", format=".3f"),
            alt.Tooltip("share:Q", title="of the tokens", format=".1%"),
        ],
    )  # fmt: skip
    return _spec(chart, 170)


def entropy_by_position(early: Iterable[Sequence[float]], late: Iterable[Sequence[float]]) -> Spec:
    """Mean entropy at each position of the responses that reach it (at least five of them)."""
    import altair as alt

    rows = []
    for when, found in ((BEFORE, early), (AFTER, late)):
        columns: dict[int, list[float]] = {}
        for one in found:
            for position, value in enumerate(one, start=1):
                columns.setdefault(position, []).append(value)
        for position, values in columns.items():
            if len(values) >= 5:
                rows.append({"position": position, "when": when, "nats": _shown(sum(values) / len(values))})
    rows = _at_most(rows, 400)
    chart = alt.Chart(_data(rows)).mark_line(strokeWidth=2.2).encode(
        x=alt.X("position:Q", title="position in the response", axis=alt.Axis(tickMinStep=1),
                scale=alt.Scale(nice=False, padding=4)),
        y=alt.Y("nats:Q", axis=_axis("nats"), scale=alt.Scale(zero=True)),
        color=_when(),
        tooltip=[alt.Tooltip("when:N"), alt.Tooltip("position:Q"), alt.Tooltip("nats:Q", format=".3f")],
    )  # fmt: skip
    return _spec(chart, 170)


def _at_most(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Every so many positions, where there are too many to be seen."""
    every = -(-len(rows) // most)
    return [row for row in rows if (row["position"] - 1) % every == 0] if every > 1 else rows
