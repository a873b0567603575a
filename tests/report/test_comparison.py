"""The report of a comparison, in a browser and as Markdown: every chart is drawn, nobody wins inside the noise."""

import json
from dataclasses import replace

import pytest

from tests.report.conftest import synthetic
from tests.report.test_browser import ask, browser, complaints, find, look, pytestmark  # noqa: F401
from whet.compare.result import gathered
from whet.report.comparison import markdown, write

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
