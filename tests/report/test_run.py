"""The page of a run as a file: whole, alone, small, and safe whatever a model has said."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch

from tests.report.conftest import batch, metrics, pieces_of, synthetic
from whet.batch import Batch
from whet.report import bundle
from whet.report.run import write
from whet.runs.store import Store
from whet.tasks import Problem

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


class Page(HTMLParser):
    """Tags, ids, addresses and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.addresses, self.text, self.islands = [], set(), [], "", {}
        self.inside = None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        said = dict(attributes)
        self.tags.append(tag)
        self.ids.add(said.get("id"))
        self.addresses += [said[name] for name in ("src", "href") if said.get(name)]
        self.inside = (tag, said.get("id"))

    def handle_data(self, data):
        if self.inside and self.inside[0] == "script":
            self.islands[self.inside[1]] = self.islands.get(self.inside[1], "") + data
        elif not (self.inside and self.inside[0] == "style"):
            self.text += data

    def handle_endtag(self, tag):
        self.inside = None


@pytest.fixture(scope="module")
def html(run):
    return write(run).read_text()


def test_the_page_says_what_was_trained_and_what_came_of_it(html):
    text = Page(html).text
    for said in ("grpo+clip_higher", "compose", "whet/base-1m", "1 min 5", "finished", "pass@64", "forgetting", "DAPO"):
        assert said in text, said
    assert re.search(r"From \d+\.\d % to \d+\.\d % right at the first try on test, in 120 steps", text)


def test_every_section_is_there_and_in_the_navigation(html):
    page = Page(html)
    for name in ("result", "learning", "passing", "shape", "responses", "recipe", "settings"):
        assert name in page.ids
        assert f"#{name}" in page.addresses


def test_every_chart_has_its_place_and_every_place_its_chart(html):
    page = Page(html)
    specs = json.loads(page.islands["chart-specs"])
    places = re.findall(r'data-chart="([^"]+)"', html)
    assert sorted(places) == sorted(specs)
    for name in ("reward", "correct", "entropy", "kl", "length", "clip_fraction", "silent_groups", "grad_norm"):
        assert f"metric-{name}" in specs


def test_settings_are_there_with_their_sources_and_changed_ones_marked(html):
    assert "<td>loss.high</td><td>0.28</td><td>0.2</td><td>DAPO, section 4.1</td>" in html
    assert html.count("<tr class='changed'>") == 3


def test_the_page_asks_the_network_for_nothing(html):
    page = Page(html)
    assert not set(page.tags) & {"link rel=stylesheet", "iframe", "object", "img"}
    outside = [address for address in page.addresses if not address.startswith(("#", "data:"))]
    assert outside == ["https://arxiv.org/abs/2503.14476"]  # a link to follow, nothing to load
    assert "default-src 'none'" in html


def test_the_page_of_a_demo_run_is_small(run):
    assert write(run).stat().st_size < 2_000_000


def test_long_responses_do_not_make_the_page_large(tmp_path):
    store = Store.create(tmp_path / "long", {"recipe": "grpo", "task": "mathematics"})
    rng = torch.Generator().manual_seed(0)
    n, t = 64, 600
    problems = tuple(Problem(f"p{i // 8}", "How many? " * 30, "7") for i in range(n))
    pieces = [[f" word{i * j % 97}" for j in range(t)] for i in range(n)]
    mask = torch.ones(n, t, dtype=torch.bool)
    fields = {"mask": mask, "length": mask.sum(1), "finished": mask[:, 0], "score": torch.rand(n, generator=rng),
              "correct": mask[:, 0], "reward": torch.rand(n, generator=rng)}  # fmt: skip
    fields |= {name: torch.randn(n, t, generator=rng) for name in ("advantage", "sampled_logp", "sampled_entropy")}
    texts = tuple("".join(words) for words in pieces)
    for step in (1, 10, 20, 30):
        store.rollouts(step, Batch(problems, ((),) * n, texts, fields), pieces, {"push": fields["advantage"]})
    assert write(store).stat().st_size < 4_000_000


def test_nothing_a_model_or_a_user_says_becomes_part_of_the_page(tmp_path):
    said = dict.fromkeys(("recipe", "task", "base", "new", "equation", "command"), HOSTILE)
    settings = [{"address": HOSTILE, "value": HOSTILE, "default": 1, "source": HOSTILE}]
    papers = [{"title": HOSTILE, "link": "javascript:alert(1)"}]
    store = Store.create(tmp_path / "hostile", {**said, "settings": settings, "papers": papers, "departs": [HOSTILE]})
    store.log(1, {HOSTILE: 1.0})
    store.log(2, {HOSTILE: 2.0})
    one = batch(0.5, torch.Generator().manual_seed(0), problems=1, each=2)
    one = Batch(tuple(Problem(HOSTILE, HOSTILE, HOSTILE) for _ in one.problems), one.prompts, one.texts, one.fields)
    pieces = [[HOSTILE] * len(pieces_of(text)) for text in one.texts]
    store.rollouts(1, one, pieces)
    store.status("failed", HOSTILE)
    page = Page(write(store).read_text())
    assert page.tags.count("script") == 5
    assert "img" not in page.tags
    assert not [address for address in page.addresses if address.startswith("javascript")]
    assert json.loads(page.islands["response-rows"])[0]["pieces"][0] == HOSTILE


def test_a_run_with_nothing_in_it_still_has_a_page(tmp_path):
    text = Page(write(Store.create(tmp_path / "run", {})).read_text()).text
    assert "No step has been logged yet" in text
    assert "Nothing has been trained yet." in text


def test_one_step_is_told_in_words_instead_of_curves(tmp_path):
    store = Store.create(tmp_path / "run", {"recipe": "grpo", "task": "digits", "steps": 9})
    store.log(1, metrics(0.0, torch.Generator().manual_seed(0)))
    page = Page(write(store).read_text())
    assert json.loads(page.islands["chart-specs"]) == {}
    assert "Only one step has been logged" in page.text
    assert "Logged once, or the same at every step: reward" in page.text
    assert "1 of 9" in page.text


def test_metrics_that_are_unknown_at_every_step_break_nothing(tmp_path):
    store = Store.create(tmp_path / "run", {})
    for step in (1, 2, 3):
        store.log(step, {"kl": float("nan"), "ratio_max": float("inf"), "loss": step * 1.0})
    assert "kl –" in write(store).read_text()


def test_a_run_without_a_last_evaluation_shows_the_first(tmp_path):
    text = Page(write(synthetic(tmp_path / "run", steps=4, evaluations=1, kept=2)).read_text()).text
    assert "There is no evaluation after training" in text
    assert "48 problems × 64 responses" in text


def test_the_page_can_be_written_elsewhere(run, tmp_path):
    assert write(run, tmp_path / "page.html") == tmp_path / "page.html"


def test_the_bundle_is_put_together_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = bundle.script()
    (kept,) = (tmp_path / "whet").iterdir()
    assert kept.read_text() == made
    kept.write_text("window.vegaEmbed = null")
    assert bundle.script() == "window.vegaEmbed = null"
