"""The charts of a comparison as Vega-Lite specifications: a colour for each recipe, the same in every chart."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from whet.report import charts, page

if TYPE_CHECKING:
    from whet.compare.result import Result

BASE = "the base"
MOST = 8  # lines that can be told apart in one chart
COLORS = ("var(--after)", "var(--series-2)", "var(--series-3)", "var(--series-4)", "var(--series-5)",
          "#0ea5e9", "#84cc16", "#a16207")  # fmt: skip
Spec = charts.Spec


def shown(result: "Result") -> list[str]:
    """The recipes that charts of lines show: all, or of many the best ones, what they are held against, the last."""
    labels = result.labels
    if len(labels) <= MOST:
        return labels
    kept = dict.fromkeys([*labels[: MOST - 2], *([result.against] if result.against in labels else []), labels[-1]])
    return [label for label in labels if label in kept]


def _colors(labels: Sequence[str], base: bool) -> dict[str, str]:
    found = {label: COLORS[i % len(COLORS)] for i, label in enumerate(labels)}
    return {**found, BASE: "var(--before)"} if base else found


def keys(result: "Result") -> str:
    """Which colour is which recipe, once for all charts of lines."""
    colors = _colors(shown(result), bool(result.passing.get(BASE)))
    items = "".join(f'<li><i style="background:{color}"></i>{page.e(label)}</li>' for label, color in colors.items())
    return f'<ul class="keys">{items}</ul>'


def _color(result: "Result", base: bool = False) -> Any:
    """The same colour for a recipe in every chart; the page has the legend."""
    import altair as alt

    colors = _colors(shown(result), base)
    scale = alt.Scale(domain=[*colors], range=[*colors.values()])
    return alt.Color("recipe:N", sort=[*colors], scale=scale, legend=None)


def _axis(unit: str, values: Sequence[float], title: str) -> Any:
    import altair as alt

    most = max(map(abs, values), default=1.0)
    close = unit == "share" and most - min(values, default=0.0) < 0.06  # ticks of whole percent would repeat
    axis = charts._axis(unit, 0.0 if close else most)
    return alt.Axis(format=axis.format, tickCount=5, title=title)


def near_base(result: "Result") -> float | None:
    """The base's value, where it is so near that a line for it leaves the intervals room to be seen."""
    start, means = result.start.get(result.measure), result.means[result.measure].values()
    ends = [x for one in means for x in (one["value"], one["low"], one["high"]) if x is not None]
    least, most = min(ends), max(ends)
    near = start is not None and least - 2 * (most - least) <= start <= most + 2 * (most - least)
    return start if near else None


def ranking(result: "Result", unit: str) -> Spec:
    """The main measure of every recipe: the mean with its interval over seeds, each seed, and the base as a line."""
    import altair as alt

    means, values = result.means[result.measure], result.values[result.measure]
    rows: list[dict[str, Any]] = []
    for label in result.labels:
        one = means[label]
        ends = {"low": one["value"] if one["low"] is None else one["low"],
                "high": one["value"] if one["high"] is None else one["high"]}  # fmt: skip
        rows.append({"recipe": label, "kind": "mean", "value": one["value"], **ends, "n": one["n"]})
        rows += [{"recipe": label, "kind": "seed", "value": v, "seed": s} for s, v in values[label].items()]
    start = near_base(result)
    if start is not None:
        rows.append({"kind": "base", "value": start})
    every = [row[name] for row in rows for name in ("value", "low", "high") if name in row]
    x = alt.X("value:Q", axis=_axis(unit, every, result.measure), scale=alt.Scale(zero=False, nice=True))
    y = alt.Y("recipe:N", sort=result.labels, title=None, axis=alt.Axis(labelLimit=240, grid=False))
    form = charts._form(unit)
    tips = [alt.Tooltip("recipe:N"), *(alt.Tooltip(f"{n}:Q", format=form) for n in ("value", "low", "high")),
            alt.Tooltip("n:Q", title="seeds")]  # fmt: skip
    chart = charts._chart()
    layers = [
        chart.transform_filter("datum.kind == 'seed'").mark_tick(thickness=1.5, size=10, color="var(--before)")
        .encode(x=x, y=y, tooltip=[tips[0], alt.Tooltip("seed:Q"), tips[1]]),
        chart.transform_filter("datum.kind == 'mean'").mark_rule(strokeWidth=2.4, color="var(--after)")
        .encode(x=alt.X("low:Q"), x2="high:Q", y=y),
        chart.transform_filter("datum.kind == 'mean'").mark_circle(size=80, opacity=1, color="var(--after)")
        .encode(x=x, y=y, tooltip=tips),
    ]  # fmt: skip
    if start is not None:
        rule = chart.transform_filter("datum.kind == 'base'").mark_rule(strokeDash=[4, 4], color="var(--muted)")
        layers.insert(0, rule.encode(x=x, tooltip=[alt.Tooltip("value:Q", title="the base", format=form)]))
    return charts._spec(alt.layer(*layers), rows, 26 * len(result.labels) + 12)


def lines(result: "Result", curves: Mapping[str, Sequence[Sequence[float]]], unit: str, title: str) -> Spec:
    """Curves over what was spent, with bands over seeds."""
    labels = [label for label in shown(result) if label in curves]
    rows: list[dict[str, Any]] = [
        {"recipe": a, "x": x, "value": v, "low": lo, "high": hi} for a in labels for x, v, lo, hi in curves[a]
    ]
    if unit == "share":  # a t interval does not know that shares end at 0 and 1
        rows = [{**row, "low": max(row["low"], 0.0), "high": min(row["high"], 1.0)} for row in rows]
    return _bands(rows, _color(result), unit, title, log=False)


def passing(result: "Result") -> Spec:
    """pass@k of every recipe and of the base on one axis."""
    labels = [label for label in shown(result) if result.passing.get(label)]
    rows = [
        {"recipe": a, "x": k, "value": v, "low": max(lo, 0.0), "high": min(hi, 1.0)}
        for a in [*labels, BASE]
        for k, v, lo, hi in result.passing.get(a, [])
    ]
    color = _color(result, bool(result.passing.get(BASE)))
    return _bands(rows, color, "share", "k responses to each problem", log=True)


def _bands(rows: list[dict[str, Any]], color: Any, unit: str, title: str, log: bool) -> Spec:
    import altair as alt

    if log:
        ks = sorted({row["x"] for row in rows})
        scale = alt.Scale(type="log", base=2, nice=False, domain=[1, max(ks[-1], 2)], padding=6)
        x = alt.X("x:Q", title=title, scale=scale, axis=alt.Axis(values=ks, format="d", grid=False))
    else:
        x = alt.X("x:Q", title=title, scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=5, format="~s"))
    y = {
        "axis": _axis(unit, [row[end] for row in rows for end in ("low", "high")], ""),
        "scale": alt.Scale(zero=False, nice=True),
    }
    chart = charts._chart().encode(x=x, color=color)
    tips = [alt.Tooltip("recipe:N"), alt.Tooltip("x:Q", title=title, format="~s"),
            *(alt.Tooltip(f"{n}:Q", format=charts._form(unit)) for n in ("value", "low", "high"))]  # fmt: skip
    layers = [
        chart.mark_area(opacity=0.12).encode(y=alt.Y("low:Q", **y), y2="high:Q"),
        chart.mark_line(strokeWidth=2.2).encode(y=alt.Y("value:Q", **y)),
        chart.mark_circle(size=34 if log else 10, opacity=1 if log else 0.01).encode(
            y=alt.Y("value:Q", **y), tooltip=tips
        ),
    ]
    return charts._spec(alt.layer(*layers), rows, 240)


def plane(result: "Result") -> Spec:
    """Entropy against reward: every stretch of training as a dot, and the fitted law R = b - a e^H as a line."""
    import altair as alt

    labels = [label for label in shown(result) if result.law.get(label, {}).get("points")]
    rows: list[dict[str, Any]] = []
    for label in labels:
        law = result.law[label]
        rows += [{"recipe": label, "kind": "seen", "h": h, "r": r} for h, r in law["points"]]
        if "a" in law:
            hs = [law["low"] + (law["high"] - law["low"]) * i / 30 for i in range(31)]
            rows += [{"recipe": label, "kind": "law", "h": h, "r": law["b"] - law["a"] * math.exp(h)} for h in hs]
    x = alt.X("h:Q", title="entropy, nats per token", scale=alt.Scale(zero=False, nice=True))
    y = alt.Y("r:Q", title="pass@1 while training", axis=alt.Axis(format=".0%"), scale=alt.Scale(zero=False))
    chart = charts._chart().encode(x=x, color=_color(result))
    tips = [alt.Tooltip("recipe:N"), alt.Tooltip("h:Q", format=".3f"), alt.Tooltip("r:Q", format=".1%")]
    layers = [
        chart.transform_filter("datum.kind == 'seen'").mark_circle(size=16, opacity=0.4).encode(y=y, tooltip=tips),
        chart.transform_filter("datum.kind == 'law'").mark_line(strokeWidth=2.2).encode(y=y, order="h:Q"),
    ]
    return charts._spec(alt.layer(*layers), rows, 260)


def forgetting(result: "Result") -> Spec | None:
    """What is lost on untrained splits against the way from the base; None where the task has no such split."""
    import altair as alt

    lost, moved = result.values.get("forgetting", {}), result.values.get("kl", {})
    labels = [label for label in shown(result) if label in lost and label in moved]
    rows = [{"recipe": label, "seed": seed, "kl": moved[label][seed], "lost": value}
            for label in labels for seed, value in lost[label].items() if seed in moved[label]]  # fmt: skip
    if not rows:
        return None
    tips = [alt.Tooltip("recipe:N"), alt.Tooltip("seed:Q"), alt.Tooltip("kl:Q", format=".4f"),
            alt.Tooltip("lost:Q", title="forgotten", format=".1%")]  # fmt: skip
    chart = charts._chart().mark_circle(size=70, opacity=0.85).encode(
        x=alt.X("kl:Q", title="KL to the base, nats per token", scale=alt.Scale(zero=True)),
        y=alt.Y("lost:Q", title="pass@1 lost on what is not trained", axis=alt.Axis(format=".1~%")),
        color=_color(result), tooltip=tips,
    )  # fmt: skip
    return charts._spec(chart, rows, 260)
