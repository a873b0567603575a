"""The tables of a comparison: every pair in a row while they are few, a matrix with a number for each when not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from whet.report import page
from whet.report.facts import number

if TYPE_CHECKING:
    from whet.compare.result import Result

FEW = 6  # recipes that a table can have as columns
TONES = {"better": "good", "worse": "bad"}
SIGNS = {"better": "▲", "worse": "▼", "tie": "=", "open": "?"}
OTHER = {"better": "worse", "worse": "better"}  # a verdict seen from the other side
HEAD = ("recipe", "against", "verdict", "p (t)", "q", "p (flips)", "bootstrap, 95 %", "seeds")


def family(result: "Result") -> str:
    """Which comparisons are corrected together, and how."""
    count, many = len(result.pairs[result.measure]), len(result.labels)
    pairs = f"{count} comparison{'s' * (count != 1)}"
    if result.against:
        which = f"the {pairs} with {result.against}"
    else:
        which = f"all {pairs} between {many} recipes"
    said = (
        f"Corrected together: {which}, for {result.measure} on {result.task}; other measures and tasks are families of "
        "their own. Differences are taken seed by seed. The interval is Student's t on them, widened for the number of "
        "comparisons (false discovery rate 5 %); q is the corrected p; the sign-flip test needs six seeds to go below "
        "5 %."
    )
    if not result.against and many > FEW:
        said += f" Held against one recipe (--against NAME) there are {many - 1}, and each interval is narrower."
    return said


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = (), style: str = "") -> str:
    """A table whose cells are HTML and whose head is text; `numbers` are the columns to be set flush right."""
    mark = [" class='n'" if i in numbers else "" for i in range(len(head))]
    top = "".join(f"<th{m}>{page.e(name)}</th>" for name, m in zip(head, mark, strict=True))
    body = "".join(f"<tr>{''.join(f'<td{m}>{c}</td>' for c, m in zip(row, mark, strict=True))}</tr>" for row in rows)
    named = f' class="{style}"' if style else ""
    return f'<div class="scroll"><table{named}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


# --- verdicts --------------------------------------------------------------------------------------------


def verdicts(result: "Result", unit: str) -> str:
    """Each pair in words; of many recipes first a matrix, with the words below it to unfold."""
    words = _in_words(result, unit)
    if result.against or len(result.labels) <= FEW:
        return words
    pairs = result.pairs[result.measure]
    key = (
        "Row minus column, "
        + ("in points" if unit == "share" else f"in {unit}")
        + ". ▲ the row is better, ▼ worse, = a tie, ? cannot tell yet."
    )
    folded = f"<details><summary>All {len(pairs)} pairs in words</summary>{words}</details>"
    return f"<p class='note'>{page.e(key)}</p>{_matrix(result, unit)}{folded}"


def _in_words(result: "Result", unit: str) -> str:
    rows = []
    for pair in _sorted(result):
        tone = TONES.get(pair["verdict"], "interval")
        rows.append(
            [
                page.e(pair["a"]),
                page.e(pair["b"]),
                f"<span class='{tone}'>{page.e(pair['words'])}</span>",
                *(p_said(pair[name]) for name in ("p", "q", "p_flip")),
                _ends(pair["bootstrap"], unit),
                str(pair["n"]),
            ]
        )
    return table(HEAD, rows, (3, 4, 5, 6, 7), "sticky")


def _sorted(result: "Result") -> list[dict[str, Any]]:
    """Pairs in the order of the ranking."""
    place = {label: i for i, label in enumerate(result.labels)}
    pairs = result.pairs[result.measure]
    return sorted(pairs, key=lambda pair: (place.get(pair["a"], 0), place.get(pair["b"], 0)))


def both_ways(result: "Result") -> dict[tuple[str, str], dict[str, Any]]:
    """Every pair from both sides: verdict and difference of (row, column)."""
    found = {}
    for pair in result.pairs[result.measure]:
        found[pair["a"], pair["b"]] = {**pair, "sign": SIGNS[pair["verdict"]]}
        turned = OTHER.get(pair["verdict"], pair["verdict"])
        found[pair["b"], pair["a"]] = {
            **pair, "verdict": turned, "difference": -pair["difference"], "sign": SIGNS[turned],
        }  # fmt: skip
    return found


def cell(pair: Mapping[str, Any], unit: str) -> str:
    """A difference and the sign of its verdict, short: shares in points.

    >>> cell({"difference": 0.031, "sign": "▲"}, "share"), cell({"difference": -0.254, "sign": "?"}, "share")
    ('+3.1 ▲', '-25 ?')
    """
    value = pair["difference"]
    if value != value:
        return f"– {pair['sign']}"
    points = 100 * value
    said = f"{value:+.2g}" if unit != "share" else f"{points:+.1f}" if abs(points) < 9.95 else f"{points:+.0f}"
    return f"{said} {pair['sign']}"


def _matrix(result: "Result", unit: str) -> str:
    pairs, labels = both_ways(result), result.labels

    def one(a: str, b: str) -> str:
        pair = pairs.get((a, b))
        if pair is None:
            return ""
        title = f"{pair['a']} against {pair['b']}: {pair['words']}"
        return (
            f"<span class='{TONES.get(pair['verdict'], 'interval')}' title='{page.e(title)}'>{cell(pair, unit)}</span>"
        )

    rows = [[numbered(i, a), *(one(a, b) for b in labels)] for i, a in enumerate(labels, 1)]
    return table(["recipe", *map(str, range(1, len(labels) + 1))], rows, range(1, 1 + len(labels)), "sticky matrix")


def numbered(i: int, label: str) -> str:
    """A row's name with its number, by which the columns call it."""
    return f"<span class='note'>{i}</span> {page.e(label)}"


def p_said(value: float | None) -> str:
    """A p value in three digits."""
    return "–" if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _ends(bounds: Sequence[float] | None, unit: str) -> str:
    from whet.compare.stats import said

    return "–" if bounds is None else " … ".join(said(x, unit, sign=True) for x in bounds)


# --- measures and settings -------------------------------------------------------------------------------


def measures(result: "Result") -> str:
    """Every measure of every recipe; of many recipes each has a row, with the intervals under the pointer."""
    from whet.compare.measure import meaning

    names = [name for name, means in result.means.items() if means]
    if len(result.labels) > FEW:
        return _long(result, names)
    rows = []
    for name in names:
        what = meaning(name)
        cells = [mean(result.means[name].get(label), what.unit) for label in result.labels]
        start = number(result.start.get(name), what.unit)
        rows.append([f"<span title='{page.e(what.formula)}'>{page.e(name)}</span>", page.e(what.unit), start, *cells])
    return table(["measure", "unit", "start", *result.labels], rows, range(2, 3 + len(result.labels)), "sticky")


def _long(result: "Result", names: Sequence[str]) -> str:
    from whet.compare.measure import meaning

    def one(name: str, label: str) -> str:
        found, unit = result.means[name].get(label), meaning(name).unit
        if found is None:
            return "–"
        bounds = "one seed" if found["low"] is None else f"{number(found['low'], unit)} … {number(found['high'], unit)}"
        return f"<span title='{page.e(bounds)}'>{number(found['value'], unit)}</span>"

    heads = [name if meaning(name).unit in ("share", "1") else f"{name}, {meaning(name).unit}" for name in names]
    rows = [[page.e(label), *(one(name, label) for name in names)] for label in result.labels]
    rows.append(["<i>the base</i>", *(number(result.start.get(name), meaning(name).unit) for name in names)])
    return table(["recipe", *heads], rows, range(1, 1 + len(names)), "sticky")


def mean(one: Mapping[str, Any] | None, unit: str) -> str:
    """A mean with its interval, as HTML."""
    if one is None:
        return "–"
    low, high = number(one["low"], unit), number(one["high"], unit)
    bounds = f" <span class='note'>{low.removesuffix(' %')} … {high}</span>" if one["low"] is not None else ""
    return number(one["value"], unit) + bounds


def settings(result: "Result") -> str:
    """The settings in which the recipes differ; of many recipes each says where it differs from most."""
    labels = [recipe["label"] for recipe in result.recipes if recipe["runs"]]
    if not result.differs:
        return "<p class='note'>None.</p>"
    if len(labels) > FEW:
        rows = [[page.e(label), page.e(said)] for label, said in own_settings(result)]
        return table(["recipe", "differs from most in"], rows, style="sticky")
    rows = [
        [page.e(row["address"]), *(page.e(value(row.get(label, "–"))) for label in labels)] for row in result.differs
    ]
    return table(["setting", *labels], rows, style="sticky")


def own_settings(result: "Result") -> list[tuple[str, str]]:
    """For each recipe the settings whose value is not the one that most recipes have."""
    labels = [recipe["label"] for recipe in result.recipes if recipe["runs"]]
    found: dict[str, list[str]] = {label: [] for label in labels}
    for row in result.differs:
        said = {label: value(row[label]) if label in row else "–" for label in labels}
        common = Counter(said.values()).most_common(1)[0][0]
        for label in labels:
            if said[label] != common:
                found[label].append(f"{row['address']} = {said[label]}" if label in row else f"no {row['address']}")
    return [(label, ", ".join(some) or "nothing") for label, some in found.items()]


def value(setting: Any) -> str:
    """A setting's value in words."""
    return "the model's" if setting is None else str(setting)


# --- across tasks ----------------------------------------------------------------------------------------


def lead_across(both: Mapping[str, Any]) -> str:
    """What the table across tasks holds."""
    return (
        f"Interquartile mean of {page.e(both['measure'])} over runs on {page.e(', '.join(both['tasks']))}; seeds are "
        "drawn anew within each task. The chance is that of one run to beat one run of the other, each pair by itself "
        "(Agarwal et al. 2021)."
    )


def across(both: Mapping[str, Any]) -> str:
    """Interquartile means, and each recipe's chance to beat each other; of many the chances are a matrix to unfold."""
    labels = list(both["middle"])
    if len(labels) <= FEW:
        rows = [[page.e(a), mean(both["middle"][a], "share"), *chances(both, a)] for a in labels]
        heads = ["recipe", "interquartile mean", *(f"beats {b}" for b in labels)]
        return table(heads, rows, range(1, 2 + len(labels)), "sticky")
    first = [[numbered(i, a), mean(both["middle"][a], "share")] for i, a in enumerate(labels, 1)]
    rows = [[numbered(i, a), *chances(both, a)] for i, a in enumerate(labels, 1)]
    matrix = table(["recipe", *map(str, range(1, len(labels) + 1))], rows, range(1, 1 + len(labels)), "sticky matrix")
    told = "The chance that the recipe of a row beats that of a column"
    return table(["recipe", "interquartile mean"], first) + f"<details><summary>{told}</summary>{matrix}</details>"


def chances(both: Mapping[str, Any], a: str) -> list[str]:
    """The chance of `a` to beat each recipe, in the order of the rows."""
    return ["–" if a == b else f"{both['chance'][a][b]:.0%}" for b in both["middle"]]
