"""The report of a comparison, in a browser and as Markdown: every chart is drawn, nobody wins inside the noise."""

import json
from dataclasses import replace

import pytest

from tests.report.conftest import synthetic
from tests.report.test_browser import ask, browser, complaints, find, look, pytestmark  # noqa: F401
from whet.compare.result import gathered
from whet.report.comparison import markdown, write
from whet.report.comparison_charts import near_base
from whet.report.comparison_tables import both_ways

RUN = {"options": {}, "eval_samples": 64, "steps": 12, "budget": None, "tokens": None}
NAMES = ("grpo", "rloo", "<b>x&y</b>")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    runs = {
        name: [synthetic(folder / f"{i}-{seed}", 12, 10 * i + seed, 2, 0, recipe=name, run=RUN) for seed in range(3)]
        for i, name in enumerate(NAMES)
    }
    for stores in runs.values():
        for seed, store in enumerate(stores):
            store.tell(seed=seed)
    return gathered(runs)


@pytest.fixture(scope="module")
def page(result, tmp_path_factory):
    return write([result, replace(result, task="again")], tmp_path_factory.mktemp("page") / "comparison.html")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """More recipes than a table can have as columns: all pairs, and the same held against one."""
    folder, runs = tmp_path_factory.mktemp("many"), {}
    for i in range(11):
        name = f"recipe_{i}"
        runs[name] = [synthetic(folder / f"{i}-{s}", 6, 10 * i + s, 2, 0, recipe=name, run=RUN) for s in range(2)]
        for seed, store in enumerate(runs[name]):
            store.tell(seed=seed)
            if i == 10:
                store.tell(settings=[{"address": "loss.high", "value": 0.3}])
    return [gathered(runs), gathered(runs, against="recipe_0")]


def test_many_recipes_have_a_matrix_of_verdicts_and_the_family_is_named(many, tmp_path):
    text = write(many, tmp_path / "comparison.html").read_text()
    assert "all 55 comparisons between 11 recipes" in text
    assert "the 10 comparisons with recipe_0" in text
    assert "All 55 pairs in words" in text
    assert "Shown: 7 of 11, the best and the last" in text
    assert "loss.high = 0.3" in text
    body = text[text.index('<section id="verdicts-0">') :]
    assert body[: body.index("</table>")].count(" against recipe_") == 11 * 10  # under the pointer, pair by pair
    assert (tmp_path / "comparison.html").stat().st_size < 3e6
    said = (tmp_path / "comparison.md").read_text()
    assert "Row minus column" in said
    assert said.count("cannot tell yet: ") + said.count("tie (") + said.count(" by ") < 20  # of 55 pairs none in words


def test_a_matrix_says_of_each_pair_the_same_from_both_sides(many):
    both = both_ways(many[0])
    assert len(both) == 110
    for (a, b), one in both.items():
        other = both[b, a]
        assert one["difference"] == -other["difference"]
        assert (one["sign"], other["sign"]) in {("▲", "▼"), ("▼", "▲"), ("=", "="), ("?", "?")}
    for pair in many[0].pairs["pass@1"]:
        assert both[pair["a"], pair["b"]]["verdict"] == pair["verdict"]


def test_of_many_recipes_only_the_main_measure_is_judged_pair_by_pair(many):
    assert {name for name, pairs in many[0].pairs.items() if pairs} == {"pass@1"}
    assert {len(pairs) for pairs in many[1].pairs.values()} <= {10, 0}
    assert sum(map(bool, many[1].pairs.values())) > 10


def test_a_base_far_from_all_recipes_does_not_squeeze_their_intervals(result):
    means = {name: {"value": 0.6 + i / 100, "low": 0.59, "high": 0.65, "n": 3} for i, name in enumerate(NAMES)}
    far, near = (replace(result, means={"pass@1": means}, start={"pass@1": value}) for value in (0.1, 0.55))
    assert near_base(far) is None
    assert near_base(near) == 0.55


def test_every_chart_is_drawn_without_complaint_and_without_a_network(browser, page):  # noqa: F811
    look(browser, page)
    assert complaints(browser) == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert not find(browser, ".chart-failed")
    marks = ask(
        browser,
        "[...document.querySelectorAll('[data-chart]')].map(x => [x.dataset.chart, "
        "x.querySelectorAll('.mark-line path, .mark-symbol path, .mark-rule line').length, x.clientHeight])",
    )
    names = {name.rpartition("-")[0] for name, _, _ in marks}
    assert names >= {"ranking", "curve-correct", "passing", "plane", "forgetting"}
    assert all(count > 0 and height < 500 for _, count, height in marks), marks


def test_it_fits_a_narrow_window_and_escapes_names(browser, page):  # noqa: F811
    look(browser, page, 500, dark=True)
    assert ask(browser, "document.documentElement.scrollWidth") <= 500
    assert not find(browser, "td b")
    assert "<b>x&y</b>" in ask(browser, "document.body.innerText")


def test_nobody_is_ahead_inside_the_noise(result, page):
    pairs = result.pairs["pass@1"]
    text = page.read_text()
    for pair in pairs:
        sure = pair["verdict"] in ("better", "worse")
        assert sure == (not pair["low"] <= 0 <= pair["high"])
    assert text.count("<span class='good'>") == 2 * sum(p["verdict"] == "better" for p in pairs)
    assert ("is ahead of every other" in text) == (
        sum(p["verdict"] == "better" and p["a"] == result.labels[0] for p in pairs) == 2
    )


def test_markdown_has_the_same_verdicts(result, page):
    said = page.with_suffix(".md").read_text()
    assert said == markdown([result, replace(result, task="again")], "3 recipes on compose, again")
    for pair in result.pairs["pass@1"]:
        assert pair["words"] in said
    assert "## Across tasks" in said
