"""Tables for the terminal."""

import io

import pytest
from rich.console import Console

from tests.report.conftest import synthetic
from whet.recipe import Refused
from whet.report.text import before_after, coloured, runs_table, samples_table
from whet.runs.store import Store


def printed(table) -> str:
    console = Console(width=160, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_before_and_after_are_printed_with_intervals(run):
    text = printed(before_after(run))
    assert "pass@64" in text
    assert "forgetting" in text
    assert "…" in text


def test_a_run_without_anything_says_what_is_missing(tmp_path):
    assert "Nothing has been evaluated" in printed(before_after(Store.create(tmp_path / "run", {})))


def test_the_last_step_is_shown_without_one(run):
    text = printed(samples_table(run, limit=5))
    assert "step 120 · train · advantage" in text
    assert "<end>" in text


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"quantity": "love"}, r"cannot be coloured by 'love', but by advantage, push"),
        ({"split": "nowhere"}, r"kept no responses of 'nowhere', but of test, train"),
        ({"step": 7}, r"kept no responses of step 7, but of 1, 24"),
        ({"split": "test"}, r"advantage was not recorded for these responses; there is sampled_entropy, sampled_logp"),
    ],
)
def test_what_was_not_kept_is_answered_with_what_was(run, asked, sentence):
    with pytest.raises(Refused, match=sentence):
        samples_table(run, **asked)


def test_a_run_without_responses_says_so(tmp_path):
    with pytest.raises(Refused, match="kept no responses"):
        samples_table(synthetic(tmp_path / "run", steps=2, kept=0))


def test_tokens_have_the_colour_of_their_sign_and_untrained_ones_are_struck():
    text = coloured(["a", "b", "c"], [1.0, -1.0, 0.5], [True, True, False], sign=1, most=1.0)
    up, down, struck = (str(span.style) for span in text.spans)
    assert "37,99,235" in up
    assert "217,83,9" in down
    assert "strike" in struck
    flipped = coloured(["a"], [-1.0], [True], sign=-1, most=1.0)
    assert "37,99,235" in str(flipped.spans[0].style)


def test_no_response_can_steer_the_terminal():
    text = coloured(["\x1b[2J", "\n", "a\tb", ""], [0.0] * 4, [True] * 4, sign=1, most=1.0)
    assert text.plain == "·[2J↵a⇥b∅"


def test_markup_in_a_response_is_text(tmp_path, run):
    assert coloured(["[bold]", "x[/]"], [0.0, 0.0], [True, True], sign=0, most=1.0).plain == "[bold]x[/]"


def test_all_runs_are_listed_with_what_came_of_them(run, tmp_path):
    empty = Store.create(tmp_path / "empty", {"task": "[red]digits"})
    text = printed(runs_table([run, empty]))
    assert run.name in text
    assert "finished" in text
    assert "running" in text
    assert "There are no runs yet." in printed(runs_table([]))
