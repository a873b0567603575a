"""The report of a comparison: one HTML file that opens without a network, and the same in Markdown."""

from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from whet.report import charts, comparison_charts, page
from whet.report.bundle import script
from whet.report.facts import duration, number
from whet.report.run import _island, _own
from whet.runs.files import write_aside

if TYPE_CHECKING:
    from whet.compare.result import Result

NOTE = (
    "The dot is the mean over seeds, the line its 95 % interval (Student's t), each tick one seed; the dashed line is "
    "the base. Neighbours whose lines overlap may well be in another order with other seeds: the verdicts below decide."
)
CORRECTED = (
    "Differences are taken seed by seed. The interval is Student's t on them, widened for the number of comparisons "
    "(false discovery rate 5 %); q is the corrected p; the sign-flip test needs six seeds to go below 5 %."
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
            0, ("across", "Across tasks", page.section("across", "Across tasks", _lead(both), _across(both)))
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
    lead = f"On {result.task}, {counts['better'] + counts['worse']} of {len(pairs)} pairs differ"
    ties = "is a tie" if counts["tie"] == 1 else "are ties"
    lead += f", {counts['tie']} {ties}, and {counts['open']} cannot be told yet."
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
    found = [("ranking", f"Ranking{where}", NOTE, body)]
    found.append(("verdicts", f"Verdicts{where}", CORRECTED, _verdicts(result, unit)))
    cards = ""
    for name, curves in result.curves.items():
        specs[f"curve-{name}-{i}"] = comparison_charts.lines(result, curves, meaning(name).unit, currency)
        cards += page.figure(f"curve-{name}-{i}", name.replace("_", " "), meaning(name).unit)
    if cards:
        found.append(("curves", f"Curves{where}", "Bands: 95 % over seeds.", f'<div class="cards wide">{cards}</div>'))
    found += _planes(result, i, specs, where)
    found.append(("measures", f"All measures{where}", "Mean over seeds with its 95 % interval.", _measures(result)))
    found.append(("settings", f"Settings that differ{where}", "Everything else is the same.", _settings(result)))
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
    body = f'<div class="cards wide">{cards}</div>'
    fits = [(label, law) for label, law in result.law.items() if "a" in law]
    if fits:
        rows = [[page.e(label), *(f"{law[name]:.3g}" for name in ("a", "b", "ceiling", "r2"))] for label, law in fits]
        table = _table(["recipe", "a", "b", "R at H = 0", "R²"], rows, (1, 2, 3, 4))
        body += f"<details><summary>The fitted laws R = b − a·e^H</summary>{table}</details>"
    return [("planes", f"pass@k, entropy, forgetting{where}", "", body)] if cards else []


# --- tables ----------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    mark = [" class='n'" if i in numbers else "" for i in range(len(head))]
    top = "".join(f"<th{m}>{page.e(name)}</th>" for name, m in zip(head, mark, strict=True))
    body = "".join(f"<tr>{''.join(f'<td{m}>{c}</td>' for c, m in zip(row, mark, strict=True))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


TONES = {"better": "good", "worse": "bad"}


def _verdicts(result: "Result", unit: str) -> str:
    rows = []
    for pair in result.pairs[result.measure]:
        tone = TONES.get(pair["verdict"], "interval")
        rows.append(
            [
                page.e(pair["a"]),
                page.e(pair["b"]),
                f"<span class='{tone}'>{page.e(pair['words'])}</span>",
                _p(pair["p"]),
                _p(pair["q"]),
                _p(pair["p_flip"]),
                _ends(pair["bootstrap"], unit),
                str(pair["n"]),
            ]
        )
    head = ["recipe", "against", "verdict", "p (t)", "q", "p (flips)", "bootstrap, 95 %", "seeds"]
    return _table(head, rows, (3, 4, 5, 7))


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _ends(bounds: Sequence[float] | None, unit: str) -> str:
    from whet.compare.stats import said

    return "–" if bounds is None else " … ".join(said(x, unit, sign=True) for x in bounds)


def _measures(result: "Result") -> str:
    from whet.compare.measure import meaning

    labels = result.labels
    rows = []
    for name, means in result.means.items():
        if not means:
            continue
        what = meaning(name)
        cells = [_mean(means.get(label), what.unit) for label in labels]
        start = number(result.start.get(name), what.unit)
        rows.append([f"<span title='{page.e(what.formula)}'>{page.e(name)}</span>", page.e(what.unit), start, *cells])
    return _table(["measure", "unit", "start", *labels], rows, range(2, 3 + len(labels)))


def _mean(one: dict[str, Any] | None, unit: str) -> str:
    if one is None:
        return "–"
    low, high = number(one["low"], unit), number(one["high"], unit)
    bounds = f" <span class='note'>{low.removesuffix(' %')} … {high}</span>" if one["low"] is not None else ""
    return number(one["value"], unit) + bounds


def _settings(result: "Result") -> str:
    labels = [recipe["label"] for recipe in result.recipes if recipe["runs"]]
    rows = [
        [page.e(row["address"]), *(page.e(_value(row.get(label, "–"))) for label in labels)] for row in result.differs
    ]
    return _table(["setting", *labels], rows) if rows else "<p class='note'>None.</p>"


def _value(value: Any) -> str:
    return "the model's" if value is None else str(value)


def _lead(both: dict[str, Any]) -> str:
    return (
        f"Interquartile mean of {page.e(both['measure'])} over runs on {page.e(', '.join(both['tasks']))}; seeds are "
        "drawn anew within each task. The chance is that of one run to beat one run of the other (Agarwal et al. 2021)."
    )


def _across(both: dict[str, Any]) -> str:
    labels = list(both["middle"])
    rows = [
        [
            page.e(a),
            _mean(both["middle"][a], "share"),
            *_chances(both, a),
        ]
        for a in labels
    ]
    return _table(["recipe", "interquartile mean", *(f"beats {b}" for b in labels)], rows, range(1, 2 + len(labels)))


# --- Markdown --------------------------------------------------------------------------------------------


def markdown(results: Sequence["Result"], title: str) -> str:
    """The same in Markdown, without the charts."""
    from whet.compare.result import across

    lines = [f"# {title}", "", *[headline(result) for result in results], ""]
    lines += [f"- {one}" for one in _missing(results)]
    both = across(results)
    if both:
        head = ["recipe", "interquartile mean", *(f"beats {b}" for b in both["middle"])]
        rows = [[a, _md(middle, "share"), *_chances(both, a)] for a, middle in both["middle"].items()]
        lines += ["", "## Across tasks", "", *_grid(head, rows)]
    for result in results:
        lines += _of_task(result)
    return "\n".join(lines) + "\n"


def _chances(both: dict[str, Any], a: str) -> list[str]:
    return ["–" if a == b else f"{both['chance'][a][b]:.0%}" for b in both["middle"]]


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
    pairs = [
        [p["a"], p["b"], p["words"], *(_p(p[name]) for name in ("p", "q", "p_flip")), str(p["n"])]
        for p in result.pairs[main]
    ]
    lines = ["", f"## {result.task}: {main}", "", setting, ""]
    lines += _grid(["recipe", f"{main}, mean and 95 % interval", "updates", "tokens", "training"], rows)
    head = ["recipe", "against", "verdict", "p (t)", "q", "p (flips)", "seeds"]
    lines += ["", CORRECTED, "", *_grid(head, pairs)]
    labels = [recipe["label"] for recipe in result.recipes if recipe["runs"]]
    if result.differs:
        differ = [[row["address"], *(_value(row.get(a, "–")) for a in labels)] for row in result.differs]
        lines += ["", "Settings that differ:", "", *_grid(["setting", *labels], differ)]
    return lines


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    said = [" | ".join(str(cell).replace("|", "\\|") for cell in row) for row in (head, ["---"] * len(head), *rows)]
    return [f"| {line} |" for line in said]


def _md(one: dict[str, Any], unit: str) -> str:
    if one["low"] is None:
        return f"{number(one['value'], unit)} (one seed: no interval)"
    return f"{number(one['value'], unit)} [{number(one['low'], unit)}, {number(one['high'], unit)}]"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
