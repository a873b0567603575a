"""The page of a study, from a real one: two recipes on `digits`, two rates, two seeds, and their findings."""

import pytest
from typer.testing import CliRunner

from whet.cli import app
from whet.report import study


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    runs, out = ["--runs", str(folder / "runs")], ["--out", str(folder / "results")]
    words = ["study", "grpo", "opo", "--task", "digits", "--seeds", "2", "--budget", "steps=3", "--rates", "5e-3,2e-2"]
    words += ["--sweep-seeds", "1", "--samples", "4", "--against", "grpo", "--update.minibatches=2", *runs, *out]
    for line in (words, ["verify", "--study", str(folder / "results/study/sweep.json"), *runs, *out]):
        done = CliRunner().invoke(app, line)
        assert done.exception is None, done.output
    return folder / "results"


def test_the_page_has_what_was_run_ranking_rates_findings_and_limits(results, tmp_path):
    said = study.page(results, tmp_path / "none.md")
    for part in (
        "## What was run",
        "## On digits",
        "## Learning rates",
        "## What the papers say will happen",
        "## Limits",
    ):
        assert part in said
    assert "| runs | 4, and 0 failed |" in said
    assert "the 1 comparison with grpo" in said
    assert "all 1 comparison between 2 recipes" in said
    assert "| learning rates | 0.005, 0.02 for every recipe, on 1 other seed |" in said
    assert "| set for every recipe | `update.minibatches=2` |" in said
    assert "`update.minibatches=2` is the same for all, and every other setting is the recipe's own" in said
    assert said.count(" * |") == 2  # a rate is taken for each recipe
    assert "3 findings: " in said
    assert "kl lower than grpo" in said
    assert "entropy higher than grpo" in said


def test_what_people_wrote_is_kept_word_for_word(results, tmp_path):
    notes = tmp_path / "study-notes.md"
    notes.write_text("## What was found\n\nNothing | beats grpo.\n")
    said = study.page(results, notes)
    assert "## What was found\n\nNothing | beats grpo.\n\n## What was run" in said


def test_without_a_study_there_is_no_page(tmp_path, monkeypatch, capsys):
    assert study.page(tmp_path, tmp_path / "none.md") == ""
    monkeypatch.setattr(study, "ROOT", tmp_path)
    monkeypatch.setattr(study, "PAGE", tmp_path / "study.md")
    assert study.main(["--check"]) == 0
    (tmp_path / "study.md").write_text("old")
    assert study.main(["--check"]) == 1
    assert "make docs" in capsys.readouterr().err
    assert study.main([]) == 0
    assert not (tmp_path / "study.md").exists()
