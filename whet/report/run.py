"""The page of a run: one HTML file that opens anywhere, without a network and without whet."""

import json
from pathlib import Path
from string import Template
from typing import Any

from whet.report import charts, page, responses
from whet.report.bundle import script
from whet.report.facts import Ends, facts, last, missing, number, splits, steps_of, told
from whet.runs.files import write_aside
from whet.runs.store import Store

HERE = Path(__file__).parent
FIRST = ("reward", "correct", "entropy", "kl", "length", "clip_fraction", "silent_groups", "grad_norm")

Specs = dict[str, dict[str, Any]]
Section = tuple[str, str, str]  # name, title, HTML


def write(store: Store, path: str | Path | None = None) -> Path:
    """Make the page; it goes to `report.html` in the run's folder unless another path is given."""
    path = Path(path) if path is not None else store.folder / "report.html"
    ends, specs = splits(store), Specs()
    rows = responses.chosen(store)
    with charts.trusted():
        drawn = [_learning(store, ends, specs), _passing(ends, specs), _shape(store, specs)]
    sections = [_result(store, ends), *drawn, _responses(rows), _recipe(store), _settings(store)]
    there = [one for one in sections if one is not None]
    html = Template(_own("run.html")).substitute(
        title=page.e(page.title(store)),
        css=_own("run.css"),
        header=page.header(store, ends),
        nav="".join(f'<a href="#{name}">{page.e(title)}</a>' for name, title, _ in there),
        sections=page.missing(missing(store, ends)) + "".join(body for _, _, body in there),
        footer=page.footer(store.about),
        charts=_island(specs),
        responses=_island(rows),
        bundle=script() if specs else "",
        charts_js=_own("charts.js"),
        responses_js=_own("responses.js"),
    )
    write_aside(path, html.encode())
    return path


def _own(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _island(value: Any) -> str:
    """JSON inside a script tag: nothing in it can end the tag."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


# --- sections ------------------------------------------------------------------------------------------------


def _result(store: Store, ends: list[Ends]) -> Section | None:
    lines = facts(store)
    if not lines:
        return None
    lead = (
        "Each split on the same problems before and after. Intervals are over problems (paired bootstrap, "
        "95 %): they say how the change would vary with other problems, not with another seed."
    )
    body = page.before_after(lines, ends, told(store.about, "elsewhere", ()))
    return "result", "Before and after", page.section("result", "Before and after", lead, body)


def _learning(store: Store, ends: list[Ends], specs: Specs) -> Section | None:
    import numpy as np

    from whet.metrics import METRICS

    metrics = store.metrics()
    if not metrics:
        return None
    body, flat, more = "", list[str](), list[str]()
    if any(len(end.every) > 2 for end in ends):
        specs["held-out"] = charts.held_out(ends)
        body += page.figure("held-out", "pass@1 on held-out problems", "95 % intervals over problems")
    first: list[str] = []
    for name in sorted(metrics, key=lambda one: (FIRST.index(one) if one in FIRST else len(FIRST), one)):
        steps, values = metrics[name]
        known = values[np.isfinite(values)]
        unit = METRICS[name].unit if name in METRICS else ""
        if len(known) < 2 or (known == known[0]).all():
            flat.append(f"{name} {number(last(metrics[name]), unit)}")
            continue
        specs[f"metric-{name}"] = charts.learning(name, unit, steps, values)
        card = page.figure(f"metric-{name}", name.replace("_", " "), _note(name), number(last(metrics[name]), unit))
        (first if name in FIRST else more).append(card)
    body += f'<div class="cards">{"".join(first)}</div>' if first else ""
    if flat:
        body += f'<p class="note flat">Logged once, or the same at every step: {page.e(", ".join(flat))}.</p>'
    if more:
        cards = f'<div class="cards">{"".join(more)}</div>'
        body += f"<details><summary>{len(more)} more metrics</summary>{cards}</details>"
    lead = (
        "Dots are steps as logged, the line is smoothed, and 80 % of the steps nearby lie in the band. "
        "The number at the right is the last one."
    )
    return "learning", "Learning", page.section("learning", "Learning", lead, body)


def _note(name: str) -> str:
    """What a metric is, in its own unit."""
    from whet.metrics import METRICS

    if name not in METRICS:
        return "not in the list of metrics"
    metric = METRICS[name]
    unit = f" ({metric.unit})" if metric.unit not in ("1", "share", name) else ""
    return metric.formula.replace("`", "") + unit


def _passing(ends: list[Ends], specs: Specs) -> Section | None:
    shown = [end for end in ends if end.ks]
    if not shown:
        return None
    curves, bars = list[str](), list[str]()
    for i, end in enumerate(shown):
        specs[f"passing-{i}"] = charts.passing(end)
        curves.append(page.figure(f"passing-{i}", end.split, "pass@k against k"))
        levels = charts.by_level(end)
        if levels is not None:
            specs[f"levels-{i}"] = levels
            bars.append(page.figure(f"levels-{i}", end.split, "pass@1 by level"))
    lead = (
        "The chance that at least one of k responses is right. A gain at k = 1 that is gone at large k means: "
        "the policy now says more often what it could say before. Bands and whiskers: 95 %, over problems."
    )
    rows = [curves, bars] if len(shown) > 1 else [curves + bars]
    grids = "".join(f'<div class="cards wide">{"".join(row)}</div>' for row in rows if row)
    body = page.keys(*steps_of(shown)) + grids
    return "passing", "pass@k", page.section("passing", "pass@k and levels", lead, body)


def _shape(store: Store, specs: Specs) -> Section | None:
    """Length and entropy of the responses at the first and last training step that were kept."""
    import numpy as np

    kept = store.rollout_steps()
    files = [one for one in kept if one[1] == "train"] or kept
    ends = list(dict.fromkeys([files[0], files[-1]])) if files else []
    found = [store.samples(step, split, columns=("length", "sampled_entropy")) for step, split in ends]
    if not any(found):
        return None
    early, late = found if len(found) == 2 else ([], found[0])
    sizes = [[row["length"] for row in rows] for rows in (early, late)]
    tokens = [[row["sampled_entropy"] or [] for row in rows] for rows in (early, late)]
    flat = [np.array([x for one in rows for x in one], dtype=float) for rows in tokens]
    specs["lengths"] = charts.lengths(*sizes)
    cards = page.figure("lengths", "length", "share of responses by length, end token included")
    if any(len(x) for x in flat):
        specs["entropy-tail"] = charts.entropy_tail(*flat)
        specs["entropy-position"] = charts.entropy_by_position(*tokens)
        cards += page.figure("entropy-tail", "entropy of tokens", "share of tokens with more than x nats")
        cards += page.figure("entropy-position", "entropy by position", "mean over the responses that get there")
    names = [f"step {step} ({split}, {len(rows)} responses)" for (step, split), rows in zip(ends, found, strict=True)]
    body = page.keys(*(names if len(names) == 2 else ["", *names])) + f'<div class="cards wide">{cards}</div>'
    return "shape", "Length and entropy", page.section("shape", "Length and entropy", "", body)


def _responses(rows: list[dict[str, Any]]) -> Section | None:
    if not rows:
        return None
    lead = (
        f"{len(rows)} responses, drawn blindly: problems by a hash of their name, the first "
        f"{responses.SIBLINGS} responses to each. Each box is a token; point at one for its numbers."
    )
    return "responses", "Responses", page.section("responses", "Responses", lead, _own("responses.html"))


def _recipe(store: Store) -> Section | None:
    body = page.recipe(store.about)
    return ("recipe", "Recipe", page.section("recipe", "Recipe", "", body)) if body else None


def _settings(store: Store) -> Section | None:
    rows = told(store.about, "settings", ())
    if not rows:
        return None
    lead = "Every setting of every part. Changed ones are coloured."
    return "settings", "Settings", page.section("settings", "Settings", lead, page.settings(rows))
