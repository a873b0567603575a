"""The report of a comparison: one HTML file that opens without a network, and the same in Markdown."""

from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from whet.report import charts, comparison_charts, page
from whet.report import comparison_tables as tables
from whet.report.bundle import script
from whet.report.comparison_charts import near_base
from whet.report.facts import duration, number
from whet.report.run import _island, _own
from whet.runs.files import write_aside

if TYPE_CHECKING:
    from whet.compare.result import Result

NOTE = (
    "The dot is the mean over seeds, the line its 95 % interval (Student's t), each tick one seed; {base}. "
    "Neighbours whose lines overlap may well be in another order with other seeds: the verdicts below decide."
)


def write(results: Sequence["Result"], path: Path, title: str = "") -> Path:
    """The page, and beside it the same as Markdown; returns the page's path."""
    from whet.compare.result import across

    specs: dict[str, dict[str, Any]] = {}
    both = across(results)
    many = len(results[0].recipes)
    title = title or f"{many} recipe{'s' * (many > 1)} on {', '.join(r.task for r in results)}"
    with charts.trusted():
        sections = [
            section for i, result in enumerate(results) for section in _sections(result, i, specs, len(results))
        ]
    if both:
        sections.insert(
            0,
            (
                "across",
                "Across tasks",
                page.section("across", "Across tasks", tables.lead_across(both), tables.across(both)),
            ),
        )
    html = Template(_own("run.html")).substitute(
        title=page.e(title),
        css=_own("run.css"),
        header=_header(results, title),
        nav="".join(f'<a href="#{name}">{page.e(said)}</a>' for name, said, _ in sections),
        sections=page.missing(_missing(results)) + "".join(body for _, _, body in sections),
        footer="Made by whet. This page needs no network.",
        charts=_island(specs),
        responses="[]",
        bundle=script(),
        charts_js=_own("charts.js"),
        responses_js="",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, html.encode())
    write_aside(path.with_suffix(".md"), markdown(results, title).encode())
    return path


def _header(results: Sequence["Result"], title: str) -> str:
    first = results[0]
    seeds = f"{len(first.seeds)} ({', '.join(map(str, first.seeds[:8]))}{', …' if len(first.seeds) > 8 else ''})"
    entries = {
        "base model": first.base,
        "budget of every run": first.budget,
        "seeds": seeds,
        "evaluation": f"{first.samples} responses to each held-out problem",
        "measure": first.measure,
    }
    known = "".join(f"<div><dt>{page.e(n)}</dt><dd>{page.e(v)}</dd></div>" for n, v in entries.items())
    lead = " ".join(headline(result) for result in results)
    return (
        f'<div class="title"><div class="eyebrow"><span class="badge finished">comparison</span></div>'
        f'<h1>{page.e(title)}</h1><p class="headline">{page.e(lead)}</p><dl class="key">{known}</dl></div>'
    )


def headline(result: "Result") -> str:
    """One sentence: how many pairs differ, and what leads, only where that is beyond the noise."""
    pairs = result.pairs[result.measure]
    if len(result.seeds) < 2:
        return f"On {result.task}: one seed, so there are no intervals and nothing can be said about other seeds."
    counts = {v: sum(p["verdict"] == v for p in pairs) for v in ("better", "worse", "tie", "open")}
    ties = "is a tie" if counts["tie"] == 1 else "are ties"
    rest = f"{counts['tie']} {ties}, and {counts['open']} cannot be told yet."
    if result.against:
        lead = f"On {result.task}, {counts['better']} of {len(pairs)} recipes are better than {result.against}"
        return f"{lead}, {counts['worse']} worse, {rest}"
    lead = f"On {result.task}, {counts['better'] + counts['worse']} of {len(pairs)} pairs differ, {rest}"
    best = result.labels[0]
    beats = {p["b"] for p in pairs if p["a"] == best and p["verdict"] == "better"}
    if beats and len(beats) == len(result.labels) - 1:
        lead += f" {best} is ahead of every other."
    return lead


def _missing(results: Sequence["Result"]) -> list[str]:
    said = []
    for result in results:
        if len(result.seeds) < 2:
            said.append(f"{result.task}: one seed, so there is no interval. Five are a good beginning: --seeds 5.")
        for recipe in result.recipes:
            said += [f"{recipe['label']} on {result.task}, seed {s}: {why}" for s, why in recipe["failed"]]
        said += [f"{one['recipe']} on {result.task} is left out: it {one['why']}" for one in result.left_out]
    return said


def _sections(result: "Result", i: int, specs: dict[str, Any], tasks: int) -> list[tuple[str, str, str]]:
    """Ranking, verdicts, curves, pass@k, planes and settings of one task."""
    from whet.compare.measure import meaning

    unit, where = meaning(result.measure).unit, f" on {result.task}" if tasks > 1 else ""
    currency = {"tokens": "sampled tokens", "steps": "updates", "seconds": "seconds of training"}[result.currency]
    specs[f"ranking-{i}"] = comparison_charts.ranking(result, unit)
    body = (
        f'<div class="cards whole">{page.figure(f"ranking-{i}", result.measure, meaning(result.measure).formula)}</div>'
    )
    start = result.start.get(result.measure)
    base = f"the base, at {number(start, unit)}, is {'the dashed line' if near_base(result) else 'off the chart'}"
    found = [("ranking", f"Ranking{where}", page.e(NOTE.format(base=base)), body)]
    found.append(("verdicts", f"Verdicts{where}", page.e(tables.family(result)), tables.verdicts(result, unit)))
    cards = ""
    for name, curves in result.curves.items():
        specs[f"curve-{name}-{i}"] = comparison_charts.lines(result, curves, meaning(name).unit, currency)
        cards += page.figure(f"curve-{name}-{i}", name.replace("_", " "), meaning(name).unit)
    if cards:
        lead = "Bands: 95 % over seeds." + _some(result)
        found.append(
            (
                "curves",
                f"Curves{where}",
                lead,
                comparison_charts.keys(result) + f'<div class="cards wide">{cards}</div>',
            )
        )
    found += _planes(result, i, specs, where)
    found.append(
        ("measures", f"All measures{where}", "Mean over seeds with its 95 % interval.", tables.measures(result))
    )
    found.append(("settings", f"Settings that differ{where}", "Everything else is the same.", tables.settings(result)))
    return [(f"{name}-{i}", said, page.section(f"{name}-{i}", said, lead, body)) for name, said, lead, body in found]


def _planes(result: "Result", i: int, specs: dict[str, Any], where: str) -> list[tuple[str, str, str, str]]:
    cards = ""
    if any(result.passing.values()):
        specs[f"passing-{i}"] = comparison_charts.passing(result)
        cards += page.figure(f"passing-{i}", "pass@k", "against k, on the split that the runs are about")
    if any(law.get("points") for law in result.law.values()):
        specs[f"plane-{i}"] = comparison_charts.plane(result)
        cards += page.figure(
            f"plane-{i}", "entropy against reward", "dots: training; lines: R = b − a·e^H (2505.22617)"
        )
    lost = comparison_charts.forgetting(result)
    if lost is not None:
        specs[f"forgetting-{i}"] = lost
        cards += page.figure(f"forgetting-{i}", "forgetting against KL", "one dot for each seed (2509.04259)")
    body = f'{comparison_charts.keys(result)}<div class="cards wide">{cards}</div>'
    fits = [(label, law) for label, law in result.law.items() if "a" in law]
    if fits:
        rows = [[page.e(label), *(f"{law[name]:.3g}" for name in ("a", "b", "ceiling", "r2"))] for label, law in fits]
        table = tables.table(["recipe", "a", "b", "R at H = 0", "R²"], rows, (1, 2, 3, 4))
        body += f"<details><summary>The fitted laws R = b − a·e^H</summary>{table}</details>"
    return [("planes", f"pass@k, entropy, forgetting{where}", _some(result).strip(), body)] if cards else []


def _some(result: "Result") -> str:
    """Which recipes the charts of lines show where they do not show all."""
    shown = comparison_charts.shown(result)
    if len(shown) == len(result.labels):
        return ""
    return page.e(
        f" Shown: {len(shown)} of {len(result.labels)}, the best{f', {result.against}' * bool(result.against)} and the "
        "last; comparison.json has all."
    )


# --- Markdown --------------------------------------------------------------------------------------------


def markdown(results: Sequence["Result"], title: str) -> str:
    """The same in Markdown, without the charts."""
    from whet.compare.result import across

    lines = [f"# {title}", "", *[headline(result) for result in results], ""]
    lines += [f"- {one}" for one in _missing(results)]
    both = across(results)
    if both:
        head = ["recipe", "interquartile mean", *(f"beats {b}" for b in both["middle"])]
        rows = [[a, _md(middle, "share"), *tables.chances(both, a)] for a, middle in both["middle"].items()]
        lines += ["", "## Across tasks", "", *_grid(head, rows)]
    for result in results:
        lines += _of_task(result)
    return "\n".join(lines) + "\n"


def _of_task(result: "Result") -> list[str]:
    from whet.compare.measure import meaning

    main, unit = result.measure, meaning(result.measure).unit
    setting = (
        f"Base {result.base}, {result.budget} for every run, seeds {', '.join(map(str, result.seeds))}, "
        f"{result.samples} responses to each held-out problem. At the start: {number(result.start.get(main), unit)}."
    )
    spent = {recipe["label"]: recipe for recipe in result.recipes}
    rows = [
        [a, _md(result.means[main][a], unit), *(_count(spent[a][name]) for name in ("updates", "tokens")),
         duration(spent[a]["seconds"])]
        for a in result.labels
    ]  # fmt: skip
    lines = ["", f"## {result.task}: {main}", "", setting, ""]
    lines += _grid(["recipe", f"{main}, mean and 95 % interval", "updates", "tokens", "training"], rows)
    return [*lines, "", tables.family(result), "", *_pairs(result, unit), *_differing(result)]


def _pairs(result: "Result", unit: str) -> list[str]:
    """Every pair in words; a matrix where there are many recipes and no one to hold them against."""
    if result.against or len(result.labels) <= tables.FEW:
        rows = [
            [p["a"], p["b"], p["words"], *(tables.p_said(p[name]) for name in ("p", "q", "p_flip")), str(p["n"])]
            for p in result.pairs[result.measure]
        ]
        return _grid([head for head in tables.HEAD if "bootstrap" not in head], rows)
    pairs, labels = tables.both_ways(result), result.labels
    rows = [
        [f"{i} {a}", *("" if a == b or (a, b) not in pairs else tables.cell(pairs[a, b], unit) for b in labels)]
        for i, a in enumerate(labels, 1)
    ]
    key = "Row minus column, shares in points: ▲ better, ▼ worse, = a tie, ? cannot tell yet. Intervals: the JSON."
    return [key, "", *_grid(["recipe", *map(str, range(1, len(labels) + 1))], rows)]


def _differing(result: "Result") -> list[str]:
    labels = [recipe["label"] for recipe in result.recipes if recipe["runs"]]
    if not result.differs:
        return []
    if len(labels) > tables.FEW:
        return ["", *_grid(["recipe", "differs from most in"], tables.own_settings(result))]
    differ = [[row["address"], *(tables.value(row.get(a, "–")) for a in labels)] for row in result.differs]
    return ["", "Settings that differ:", "", *_grid(["setting", *labels], differ)]


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    said = [" | ".join(str(cell).replace("|", "\\|") for cell in row) for row in (head, ["---"] * len(head), *rows)]
    return [f"| {line} |" for line in said]


def _md(one: dict[str, Any], unit: str) -> str:
    if one["low"] is None:
        return f"{number(one['value'], unit)} (one seed: no interval)"
    return f"{number(one['value'], unit)} [{number(one['low'], unit)}, {number(one['high'], unit)}]"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
