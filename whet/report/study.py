"""docs/study.md: what a study found, written from results/study/ and from the findings that were verified on it.

`python -m whet.report.study` writes it; with `--check` it only says whether it is stale. What people have to say about
the numbers stands in docs/study-notes.md, which is taken over as it is. Without a study there is no page.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from whet.compare.result import Result
from whet.compare.study import cell, named_in
from whet.report import comparison_tables as tables
from whet.report.comparison import _grid, _md, _pairs, headline
from whet.report.facts import number

ROOT = Path(__file__).parents[2]
PAGE, NOTES = ROOT / "docs" / "study.md", ROOT / "docs" / "study-notes.md"
BASELINE = "grpo"  # what the field compares with; a study may name another with --against
NO_SWEEP = "No learning rates were swept: every recipe has the model's own."


def page(results: Path, notes: Path) -> str:
    """The page, from comparison.json, sweep.json and the findings; empty where there is no study."""
    folder = results / "study"
    if not (folder / "comparison.json").is_file():
        return ""
    told = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    done = [Result(**task) for task in told["tasks"]]
    sweep = _read(folder / "sweep.json")
    found = _findings(results, done, sweep)
    said = [notes.read_text(encoding="utf-8").strip(), ""] if notes.is_file() else []
    lines = [
        "# Study: the same budget for every recipe",
        "",
        "Written from `results/study/` by `make docs`; what is said about the numbers stands in `docs/study-notes.md`.",
        "",
        *said,
        "## What was run",
        "",
        *_what(done, sweep),
        *_across(told.get("across") or {}),
    ]
    for result in done:
        lines += _ranking(result, sweep)
    lines += ["", "## Learning rates", "", *_rates(done, sweep), "", "## What the papers say will happen", "", *found]
    return "\n".join([*lines, "", "## Limits", "", *_limits(done, sweep)]).rstrip() + "\n"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _what(done: Sequence[Result], sweep: dict[str, Any]) -> list[str]:
    first, runs = done[0], [recipe for result in done for recipe in result.recipes]
    failed = sum(len(recipe["failed"]) for recipe in runs)
    facts = {
        "recipes": len(first.recipes),
        "tasks": ", ".join(result.task for result in done),
        "base": first.base,
        "budget of every run": first.budget,
        "seeds": ", ".join(map(str, first.seeds)),
        "evaluation": f"{first.samples} responses to each held-out problem; {first.measure} decides",
        "runs": f"{sum(len(recipe['runs']) for recipe in runs)}, and {failed} failed",
    }
    if sweep:
        rates = sorted({row["rate"] for row in sweep["tried"]})
        seeds = max(len(row["values"]) + row["failed"] for row in sweep["tried"])
        facts["learning rates"] = (
            f"{', '.join(f'{r:g}' for r in rates)} for every recipe, on {seeds} other seed{'s' * (seeds > 1)}"
        )
    if common := _common(sweep):
        facts["set for every recipe"] = common
    lines = _grid(["what", ""], [[name, str(value)] for name, value in facts.items()])
    return [*lines, "", " ".join(headline(result) for result in done)]


def _common(sweep: dict[str, Any]) -> str:
    """The settings that the study gave to every recipe, as they are typed."""
    return ", ".join(f"`{name}={value}`" for name, value in sweep.get("plan", {}).get("settings", {}).items())


def _across(both: dict[str, Any]) -> list[str]:
    if not both:
        return []
    rows = [[str(i), a, _md(middle, "share")] for i, (a, middle) in enumerate(both["middle"].items(), 1)]
    lead = (
        f"Interquartile mean of {both['measure']} over the runs on {', '.join(both['tasks'])}, with its bootstrap "
        "interval at 95 %."
    )
    return ["", "## Across tasks", "", lead, "", *_grid(["", "recipe", "interquartile mean"], rows)]


def _ranking(result: Result, sweep: dict[str, Any]) -> list[str]:
    """The recipes of a task with intervals, the rate each had, and the verdicts."""
    from whet.compare.measure import meaning

    unit, rates = meaning(result.measure).unit, _taken(sweep).get(result.task, {})
    start = number(result.start.get(result.measure), unit)
    rows = [
        [str(i), label, _md(result.means[result.measure][label], unit), rates.get(label, "the model's")]
        for i, label in enumerate(result.labels, 1)
    ]
    lead = (
        f"{result.measure} on held-out problems: mean over seeds with its interval at 95 % (Student's t), each recipe "
        f"by itself. At the start: {start}."
    )
    lines = ["", f"## On {result.task}", "", lead, "", *_grid(["", "recipe", result.measure, "learning rate"], rows)]
    for against in dict.fromkeys((result.against or BASELINE, "")):
        if not against or against in result.labels:
            held = _held(result, against)
            lines += ["", tables.family(held), "", *_pairs(held, unit)]
    return lines


def _held(result: Result, against: str) -> Result:
    """The same runs judged as another family: all against one, or every pair."""
    from whet.compare import stats
    from whet.compare.measure import meaning

    what, labels = meaning(result.measure), result.labels
    couples = [(a, against) for a in labels if a != against] if against else list(combinations(labels, 2))
    pairs = stats.pairs(result.values[result.measure], couples, result.delta, what.better, result.level, what.unit)
    return replace(result, against=against, pairs={result.measure: [asdict(one) for one in pairs]})


def _taken(sweep: dict[str, Any]) -> dict[str, dict[str, str]]:
    """By task the rate that each recipe had in the comparison."""
    return {
        task: {named_in(arm): arm.rpartition("update.lr=")[2].partition(",")[0] for arm in arms}
        for task, arms in sweep.get("taken", {}).items()
    }


def _rates(done: Sequence[Result], sweep: dict[str, Any]) -> list[str]:
    """Every rate that was tried, and how much it matters beside the choice of a recipe."""
    if not sweep:
        return [NO_SWEEP]
    lines = ["Mean over the sweep's seeds [smallest, largest, of several]; a star marks the rate that was taken.", ""]
    for result in done:
        rows = [row for row in sweep["tried"] if row["task"] == result.task]
        if not rows:
            continue
        rates, taken = sorted({row["rate"] for row in rows}), _taken(sweep)[result.task]
        by = {(row["recipe"], row["rate"]): row for row in rows}
        names = list(dict.fromkeys(row["recipe"] for row in rows))
        cells = [[name, *(cell(by.get((name, r)), f"{r:g}" == taken.get(name)) for r in rates)] for name in names]
        head = ["recipe", *(f"{rate:g}" for rate in rates)]
        lines += [f"### {result.task}", "", *_grid(head, cells), "", _matters(by, names, rates, taken, result), ""]
    return lines[:-1]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _matters(by: dict[Any, Any], names: Sequence[str], rates: Sequence[float], taken: Any, result: Result) -> str:
    """The spread over rates beside the spread over recipes, and how many recipes took a rate at the edge."""
    spreads = []
    for name in names:
        means = [_mean(by[name, r]["values"]) for r in rates if (name, r) in by and by[name, r]["values"]]
        spreads += [max(means) - min(means)] if means else []
    main = [one["value"] for one in result.means[result.measure].values()]
    low, high = (sum(taken.get(name) == f"{rate:g}" for name in names) for rate in (rates[0], rates[-1]))
    middle = sorted(spreads)[len(spreads) // 2]
    return (
        f"Between its best and its worst rate the middle recipe differs by {middle:.3f}; between the best and the "
        f"worst recipe, each at its own rate, there are {max(main) - min(main):.3f}. {low} of {len(main)} recipes "
        f"took the smallest rate and {high} the largest: for them a rate beyond it may be better still."
    )


# --- findings --------------------------------------------------------------------------------------------


def _findings(results: Path, done: Sequence[Result], sweep: dict[str, Any]) -> list[str]:
    """What `whet verify --study` answered, finding by finding."""
    tasks, recipes = {result.task for result in done}, {r["label"] for result in done for r in result.recipes}
    every = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("finding-*.json"))]
    found = [one for one in every if one["task"] in tasks and one["recipe"] in recipes and _at_study_rates(one)]
    if not found:
        return ["Not verified yet: `whet verify --study results/study/sweep.json`."]
    counts = Counter(one["verdict"] for one in found)
    said = ", ".join(
        f"{counts[verdict]} {verdict}" for verdict in ("holds", "opposite", "no difference", "cannot tell")
    )
    lead = (
        f"{len(found)} findings: {said}. Each is judged alone at 95 %: of twenty where nothing happens, one is called "
        "by chance. They speak of this base on these tasks, not of the models of the papers. Where the two learning "
        "rates differ, a difference in entropy, KL or length may come from them."
    )
    way = {"up": "higher", "down": "lower", "same": "the same"}
    rows = [
        [one["recipe"], f"{one['measure']} {way[one['direction']]} than "
         f"{'at its start' if one['versus'] == 'start' else one['versus']}", one["task"], f"**{one['verdict']}**",
         one["words"].removeprefix("cannot tell yet: "), _rates_of(one), f"{one['figure']} ({one['where']})"]
        for one in found
    ]  # fmt: skip
    return [lead, "", *_grid(["recipe", "finding", "task", "here", "difference", "rates", "the paper"], rows)]


def _rates_of(one: dict[str, Any]) -> str:
    """The learning rates of a finding: of the recipe, and of its rival where that is another."""
    rates = [
        ("the model's" if row["rate"] is None else f"{float(row['rate']):g}") + ", by hand" * ("hand" in row["from"])
        for row in one["rates"].values()
    ]
    return " and ".join(dict.fromkeys(rates))


def _at_study_rates(one: dict[str, Any]) -> bool:
    return any("the study" in row["from"] for row in one.get("rates", {}).values())


def _limits(done: Sequence[Result], sweep: dict[str, Any]) -> list[str]:
    first, common = done[0], _common(sweep)
    said = [
        f"One base ({first.base}) and {len(done)} task{'s' * (len(done) > 1)}: what is a tie here need not be one for "
        "a large model on long answers, and the other way round.",
        f"{len(first.seeds)} seeds: differences below the width of the intervals cannot be seen.",
        f"Only the learning rate was tuned; {f'{common} is the same for all, and ' if common else ''}every other "
        "setting is the recipe's own, as its file says and why.",
        "Recipes that draw more responses, or longer ones, make fewer updates from the same tokens: that is the "
        "budget, and it is against them where updates are what a task needs.",
    ]
    if sweep:
        said.append(
            "The rate was chosen on few seeds, so that some recipes are compared at a rate that is not their best; the "
            "table of learning rates shows by how much that can matter."
        )
    failed = [f"{r['label']} on {t.task}, seed {s}" for t in done for r in t.recipes for s, _ in r["failed"]]
    if failed:
        said.append(f"Failed, and left out: {'; '.join(failed)}.")
    said += [f"{one['recipe']} is not compared on {t.task}: it {one['why']}" for t in done for one in t.left_out]
    return [f"- {one}" for one in said]


def main(words: list[str]) -> int:
    """Write the page, or with `--check` say whether it is stale."""
    made, there = page(ROOT / "results", NOTES), PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    if "--check" in words:
        if there != made:
            print("docs/study.md is stale: run `make docs`.", file=sys.stderr)
        return int(there != made)
    if made:
        PAGE.write_text(made, encoding="utf-8")
    else:
        PAGE.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
