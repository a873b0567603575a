"""A picture of several runs for a README: metrics against steps, one line for each recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whet.refusal import Refused
from whet.report.charts import ROWS
from whet.report.facts import told
from whet.report.smooth import smoothed, thinned
from whet.runs.files import write_aside
from whet.runs.store import Store

# Okabe and Ito's colours, which people with colour-blindness can tell apart; black is left to the axes.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
INK, MUTED, GRID = "#191d23", "#626c79", "#eceef1"


def picture(stores: Sequence[Store], path: str | Path, names: Sequence[str] = ("correct", "entropy")) -> Path:
    """Compare runs by recipe, as a .png or .svg: mean over seeds, in a band of one standard deviation."""
    import vl_convert

    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise Refused(f"A picture is a .png or an .svg, so it cannot be {path.name}.")
    chart = specification(stores, names)
    if path.suffix == ".svg":
        data = vl_convert.vegalite_to_svg(chart).encode()
    else:
        data = vl_convert.vegalite_to_png(chart, scale=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, data)
    return path


def specification(stores: Sequence[Store], names: Sequence[str]) -> dict[str, Any]:
    """The picture as Vega-Lite, with its data."""
    import altair as alt

    if not stores:
        raise Refused("A picture needs at least one run.")
    recipes = list(dict.fromkeys(str(told(store.about, "recipe", store.name)) for store in stores))
    if len(recipes) > len(COLORS):
        raise Refused(f"A picture can tell {len(COLORS)} recipes apart, not {len(recipes)}: leave some out.")
    rows = {name: _rows(stores, name) for name in names}
    panels = alt.hconcat(*(_panel(name, recipes) for name in names), spacing=44, bounds="flush")
    spec: dict[str, Any] = panels.configure(**_config()).to_dict(validate=False)
    return {**spec, "title": _title(stores), "datasets": {f"{ROWS}-{name}": rows[name] for name in names}}


def _rows(stores: Sequence[Store], name: str) -> list[dict[str, Any]]:
    """Mean and standard deviation over the runs of each recipe, at the steps that any of them has."""
    import numpy as np

    curves: dict[str, list[Any]] = {}
    for store in stores:
        metrics = store.metrics()
        if name not in metrics:
            raise Refused(f"{store.name} has no metric {name!r}; it has {', '.join(metrics) or 'none'}.")
        steps, values = thinned(*metrics[name])
        curves.setdefault(str(told(store.about, "recipe", store.name)), []).append((steps, smoothed(values)))
    rows = []
    for recipe, found in curves.items():
        for step in np.unique(np.concatenate([steps for steps, _ in found])):
            there = [np.interp(step, s, v) for s, v in found if s[0] <= step <= s[-1]]
            mean, spread = float(np.mean(there)), float(np.std(there, ddof=1)) if len(there) > 1 else 0.0
            row = {"value": mean, "low": mean - spread, "high": mean + spread}
            rows.append({"step": int(step), "recipe": recipe, **{k: float(f"{v:.5g}") for k, v in row.items()}})
    return rows


def _panel(name: str, recipes: Sequence[str]) -> Any:
    """One metric; the panels share one legend, below them."""
    import altair as alt

    from whet.metrics import METRICS

    unit = METRICS[name].unit if name in METRICS else ""
    said = name.replace("_", " ") + (f" ({unit})" if unit not in ("", "1", "share", name) else "")
    legend = alt.Legend(
        orient="bottom", title=None, symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1, offset=12
    )  # fmt: skip
    shades = alt.Scale(domain=list(recipes), range=list(COLORS[: len(recipes)]))
    color = alt.Color("recipe:N", sort=list(recipes), scale=shades, legend=legend)
    axis = alt.Axis(format=".0%" if unit == "share" else "~g", tickCount=5, title=None)
    scale = alt.Scale(zero=False, nice=False, padding=9)  # no label at the very top, so that titles line up
    x = alt.X("step:Q", title="step", scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=6, grid=False))
    base = alt.Chart(alt.NamedData(f"{ROWS}-{name}")).encode(x=x, color=color)
    return alt.layer(
        base.mark_area(opacity=0.16).encode(y=alt.Y("low:Q", axis=axis, scale=scale), y2="high:Q"),
        base.mark_line(strokeWidth=2.4).encode(y=alt.Y("value:Q", axis=axis, scale=scale)),
    ).properties(width=360, height=230, title=said)


def _title(stores: Sequence[Store]) -> dict[str, Any]:
    tasks = sorted({str(told(store.about, "task", "a task")) for store in stores})
    counts: dict[str, int] = {}
    for store in stores:
        recipe = str(told(store.about, "recipe", store.name))
        counts[recipe] = counts.get(recipe, 0) + 1
    seeds = sorted(set(counts.values()))
    many = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    band = "; bands: one standard deviation between seeds" if seeds[-1] > 1 else ""
    said = f"mean over {many} seed{'' if seeds == [1] else 's'}{band}"
    return {"text": " and ".join(tasks), "subtitle": said, "anchor": "start", "offset": 14}


def _config() -> dict[str, Any]:
    font = "Inter, Helvetica Neue, Arial, sans-serif"
    return {
        "background": "#ffffff", "padding": 18, "font": font, "view": {"stroke": None},
        "axis": {"labelColor": MUTED, "titleColor": MUTED, "gridColor": GRID, "domain": False, "ticks": False,
                 "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 400, "labelPadding": 6},
        "axisX": {"domain": True, "domainColor": "#c9ced6"},
        "legend": {"labelColor": INK, "labelFontSize": 13, "fillColor": "#ffffffcc", "padding": 4},
        "title": {"color": INK, "fontSize": 14, "fontWeight": 600, "anchor": "start", "subtitleColor": MUTED,
                  "subtitleFontSize": 12},
    }  # fmt: skip
