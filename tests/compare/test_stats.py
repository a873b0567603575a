"""Statistics: stated levels are kept, verdicts follow from intervals, and few seeds say little."""

import numpy as np
import pytest

from whet.compare import stats


def judged(differences, delta=0.02, **more):
    table = {"a": dict(enumerate(differences)), "b": dict.fromkeys(range(len(differences)), 0.0)}
    return stats.pairs(table, [("a", "b")], delta, **more)[0]


def share(rng, effect, spread, seeds, times, verdict, delta=0.02):
    draws = effect + spread * rng.standard_normal((times, seeds))
    return np.mean([_quick(row, delta) in verdict for row in draws])


def _quick(row, delta):
    """The verdict alone: the bootstrap and the permutation test beside it take no part in it."""
    mean, half = float(np.mean(row)), stats._half(stats._sd(row.tolist()), len(row), 0.95)
    return stats._verdict(mean, mean - half, mean + half, 0.0, len(row), 0.95, delta, 1, "share")[0]


def test_the_quick_verdict_is_the_verdict():
    rng = np.random.default_rng(1)
    for effect in (0.0, 0.03):
        row = effect + 0.02 * rng.standard_normal(5)
        assert judged(row.tolist()).verdict == _quick(row, 0.02)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_false_alarms_come_at_the_stated_level(seeds):
    alarms = share(np.random.default_rng(seeds), 0.0, 0.05, seeds, 4000, ("better", "worse"))
    assert 0.04 < alarms < 0.06  # three standard errors about 5 %


def test_skewed_shares_raise_no_more_alarms_than_stated():
    """Differences of pass@1 near its ceiling: a binomial share each, which is not normal at all."""
    rng = np.random.default_rng(0)
    rates = rng.beta(20, 1, size=(2, 4000, 5))
    rows = rng.binomial(1280, rates[0]) / 1280 - rng.binomial(1280, rates[1]) / 1280
    assert np.mean([_quick(row, 0.02) in ("better", "worse") for row in rows]) < 0.06


def test_a_large_difference_is_found_and_a_small_one_is_called_open_or_a_tie():
    rng = np.random.default_rng(2)
    assert share(rng, 0.10, 0.03, 5, 1000, ("better",)) > 0.95
    assert share(rng, 0.0, 0.005, 5, 1000, ("tie",)) > 0.90
    assert share(rng, 0.05, 0.05, 5, 1000, ("tie", "worse")) < 0.01


def test_a_difference_beyond_delta_is_called_a_tie_at_most_at_the_stated_level():
    assert share(np.random.default_rng(3), 0.02, 0.01, 5, 4000, ("tie",)) < 0.05


def test_a_bootstrap_interval_of_five_seeds_is_too_narrow_and_the_t_interval_is_not():
    """Why the verdict does not rest on the bootstrap."""
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((600, 5))
    boot = np.mean([low <= 0 <= high for low, high in (stats.bootstrap(row.tolist()) for row in rows)])
    student = np.mean([e.low <= 0 <= e.high for e in (stats.estimate(row.tolist()) for row in rows)])
    assert boot < 0.90
    assert 0.92 < student < 0.98


def test_a_sign_flip_test_of_five_seeds_cannot_go_below_one_in_sixteen():
    assert stats.flip([5.0, 6.0, 7.0, 8.0, 9.0]) == pytest.approx(1 / 16)
    assert stats.flip([5.0, 6.0, 7.0, 8.0, 9.0, 7.0]) == pytest.approx(1 / 32)


def test_of_many_comparisons_without_a_difference_few_are_called():
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(60):
        table = {name: dict(enumerate(0.1 * rng.standard_normal(5))) for name in "abcdef"}
        couples = [(a, b) for a in table for b in table if a < b]
        wrong += any(p.verdict != "open" for p in stats.pairs(table, couples, 1e-6))
    assert wrong <= 9  # 5 % of 60 families is 3; each without correction would be about 35


def test_an_interval_leaves_out_zero_exactly_where_the_correction_calls_a_difference():
    rng = np.random.default_rng(6)
    table = {name: dict(enumerate(effect + 0.03 * rng.standard_normal(5)))
             for name, effect in zip("abcdefgh", (0.0, 0.0, 0.0, 0.05, 0.1, 0.2, 0.2, 0.4), strict=True)}  # fmt: skip
    found = stats.pairs(table, [(a, b) for a in table for b in table if a < b], 0.001)
    assert {p.verdict for p in found} >= {"worse", "open"}
    for pair in found:
        assert (pair.q <= 0.05) == (not pair.low <= 0 <= pair.high), pair


def test_one_seed_has_no_interval_and_says_so():
    pair = judged([0.3])
    assert (pair.low, pair.high, pair.p, pair.verdict) == (None, None, None, "open")
    assert "one seed, so no interval" in pair.words
    assert stats.estimate([0.3]).low is None


def test_verdicts_are_said_in_words():
    assert judged([0.10, 0.11, 0.12, 0.10, 0.12]).words == "better by 11.0 pp [+9.8 pp, +12.2 pp]"
    assert judged([-0.10, -0.11, -0.12, -0.10, -0.12]).words.startswith("worse by 11.0 pp [-12.2 pp")
    assert judged([-0.10, -0.11, -0.12], better=-1).words.startswith("better by")
    assert judged([0.10, 0.11, 0.12], better=0, unit="nats").words.startswith("higher by 0.11 nats")
    assert judged([0.001, -0.001, 0.002, 0.0, -0.002]).words.startswith("tie (the interval [")
    assert "more seeds would" in judged([0.1, -0.05, 0.08, 0.0, 0.02]).words


def test_as_many_more_seeds_as_are_said_do_decide():
    mean, sd, n = 0.03, 0.05, 5
    more = stats.seeds_needed(mean, sd, n, 0.95, 0.02)
    assert stats._half(sd, n + more, 0.95) < mean <= stats._half(sd, n + more - 1, 0.95)


def test_the_same_runs_twice_are_a_tie_and_not_a_division_by_zero():
    assert judged([0.0, 0.0, 0.0]).verdict == "tie"
    assert judged([0.5, 0.5, 0.5]).verdict == "open"  # no spread says nothing about the spread


def test_across_tasks_outliers_do_not_move_the_middle_and_chances_add_to_one():
    runs = [[0.1, 0.2, 0.3, 0.4], [0.2, 0.3, 0.4, 9.0]]
    middle = stats.middle_mean(runs)
    assert middle.low <= middle.value <= middle.high
    assert middle.value == pytest.approx(0.3)
    a, b = [[1.0, 2.0], [3.0, 3.0]], [[1.5, 0.0], [3.0, 2.0]]
    assert stats.improvement(a, b) + stats.improvement(b, a) == pytest.approx(1)
    assert stats.improvement([[2.0], [2.0]], [[1.0], [1.0]]) == 1
