"""The table before → after: the right problems, the right differences, and words where something is missing."""

import pytest

from tests.report.conftest import synthetic
from whet.report.facts import bounds, facts, headline, last, missing, number, seconds, splits
from whet.runs.store import Evaluated, Store


def row(split, problem, tries, right, distinct=2.0):
    return Evaluated(split, problem, 0, tries, right, 10.0, 1.0, distinct)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "run", {"focus": "test", "elsewhere": ["old"]})


def named(store, split, measure):
    return next(fact for fact in facts(store) if (fact.split, fact.measure) == (split, measure))


def test_before_and_after_are_the_first_and_the_last_evaluation(store):
    for step, right in ((0, 0), (5, 3), (9, 2)):
        store.evaluated(step, [row("test", "a", 4, right), row("test", "b", 4, right)])
    fact = named(store, "test", "pass@1")
    assert (fact.before, fact.after) == (0.0, 0.5)
    assert fact.change == (0.5, 0.5, 0.5)
    assert fact.sure
    assert named(store, "test", "pass@4").after == 1.0


def test_only_problems_of_both_evaluations_are_compared(store):
    store.evaluated(0, [row("test", "a", 4, 4), row("test", "b", 4, 0)])
    store.evaluated(9, [row("test", "b", 4, 2)])
    fact = named(store, "test", "pass@1")
    assert (fact.before, fact.after) == (0.0, 0.5)


def test_k_is_bounded_by_the_evaluation_with_fewer_tries(store):
    store.evaluated(0, [row("test", "a", 64, 4)])
    store.evaluated(9, [row("test", "a", 8, 2)])
    assert [fact.measure for fact in facts(store)][:2] == ["pass@1", "pass@8"]


def test_how_many_responses_differ_is_not_compared_between_numbers_of_tries(store):
    store.evaluated(0, [row("test", "a", 64, 4)])
    store.evaluated(9, [row("test", "a", 8, 2)])
    assert "different responses" not in [fact.measure for fact in facts(store)]


def test_forgetting_is_what_was_lost_elsewhere_and_counts_as_bad(store):
    store.evaluated(0, [row("test", "a", 4, 0), row("old", "a", 4, 4), row("old", "b", 4, 2)])
    store.evaluated(9, [row("test", "a", 4, 4), row("old", "a", 4, 2), row("old", "b", 4, 2)])
    fact = named(store, "", "forgetting")
    assert fact.change[0] == fact.after == pytest.approx(0.25)
    assert fact.change[1] <= fact.change[0] <= fact.change[2]
    assert fact.better == -1


def test_lost_problems_could_be_solved_before_and_are_never_solved_now(store):
    could = {"a": 4, "b": 1, "c": 0, "d": 2}
    store.evaluated(0, [row("test", "a", 4, 1), *(row("old", name, 4, right) for name, right in could.items())])
    store.evaluated(9, [row("test", "a", 4, 0), *(row("old", name, 4, name in "ac") for name in could)])
    assert named(store, "", "lost problems").after == pytest.approx(2 / 3)


def test_the_split_of_the_run_comes_first_and_untrained_ones_last(store):
    store.evaluated(0, [row(split, "a", 1, 0) for split in ("old", "another", "test")])
    assert [end.split for end in splits(store)] == ["test", "another", "old"]


def test_a_run_that_has_everything_misses_nothing(run):
    assert missing(run, splits(run)) == []
    assert headline(run, splits(run)).startswith("From 1")


def test_what_is_missing_is_said(store):
    assert missing(store, []) == [
        "No step has been logged yet, so there are no learning curves.",
        "Nothing has been evaluated, so there is no before and after, and no pass@k.",
        "No responses were kept, so there are none to look at.",
    ]
    assert headline(store, []) == "Nothing has been trained yet."
    assert facts(store) == []
    store.log(1, {"loss": 1.0})
    assert missing(store, [])[0] == "Only one step has been logged: a curve needs two."


def test_an_evaluation_on_one_side_only_is_said(tmp_path):
    early = synthetic(tmp_path / "early", steps=3, evaluations=1, kept=0)
    assert "There is no evaluation after training, only the one before." in missing(early, splits(early))
    late = Store.create(tmp_path / "late", {})
    late.evaluated(4, [row("test", "a", 4, 1)])
    assert "There is no evaluation before training, so no change can be shown." in missing(late, splits(late))
    assert headline(late, splits(late)).startswith("25.0 % right at the first try on test")


def test_time_is_the_sum_over_steps_and_the_last_value_the_last_known_one(store):
    store.log(1, {"seconds": 1.5, "kl": 0.5})
    store.log(2, {"seconds": 2.0, "kl": float("nan")})
    assert seconds(store) == 3.5
    assert last(store.metrics()["kl"]) == 0.5
    assert last(None) is None


def test_a_change_of_a_share_is_in_percentage_points(run):
    fact = named(run, "test", "pass@1")
    assert number(fact.change[0], fact.unit, signed=True).endswith(" pp")
    assert bounds(fact).count("pp") == 1
