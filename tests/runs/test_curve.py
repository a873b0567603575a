"""pass@k against numbers that were worked out by hand, and intervals against what they promise."""

import numpy as np
import pytest

from whet.runs.curve import change, curve, interval, powers
from whet.runs.store import Evaluated


def row(problem, tries, right, split="test"):
    return Evaluated(split, problem, 0, tries, right, 1.0, 0.0, 1)


def test_pass_at_k_is_the_mean_over_problems():
    """n = 4: c = 1 gives 1/4, 1 - 3/6 = 1/2, 1; c = 2 gives 1/2, 1 - 1/6 = 5/6, 1; c = 0 gives 0."""
    found = curve([row("a", 4, 1), row("b", 4, 2), row("c", 4, 0)])
    assert found.ks == (1, 2, 4)
    assert found.mean == pytest.approx([(1 / 4 + 1 / 2) / 3, (1 / 2 + 5 / 6) / 3, 2 / 3])


def test_k_goes_as_far_as_the_problem_with_the_fewest_tries():
    assert powers([row("a", 64, 1), row("b", 9, 1)]) == (1, 2, 4, 8)
    assert powers([row("a", 1, 1)]) == (1,)
    assert powers([]) == ()


def test_a_k_beyond_the_tries_is_refused():
    with pytest.raises(ValueError, match="needs at least 8 responses"):
        curve([row("a", 4, 1)], [8])


def test_no_problem_is_no_curve():
    with pytest.raises(ValueError, match="at least one problem"):
        curve([], [1])


def test_where_all_problems_are_alike_the_interval_is_a_point():
    found = curve([row(str(i), 8, 2) for i in range(20)], [1])
    assert found.low == found.mean == found.high == pytest.approx([0.25])


def test_the_same_seed_gives_the_same_interval():
    rows = [row(str(i), 8, i % 9) for i in range(30)]
    assert curve(rows).low.tolist() == curve(rows).low.tolist()


def test_the_interval_is_as_wide_as_that_of_the_normal_approximation():
    values = np.random.default_rng(1).uniform(size=(400, 1))
    low, high = interval(values)
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert (high - low)[0] == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_the_interval_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(2).binomial(1, 0.3, size=(60, 1)).astype(float)
    theirs = stats.bootstrap((values[:, 0],), np.mean, n_resamples=5000, method="percentile", rng=0)
    low, high = interval(values)
    assert (low[0], high[0]) == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        low, high = interval(rng.uniform(size=(50, 1)))
        inside += bool(low[0] <= 0.5 <= high[0])
    assert 0.90 <= inside / 200 <= 0.98


def test_a_change_is_taken_in_pairs():
    """Every problem gains 1/4, whatever its level: in pairs there is no doubt about it."""
    before = [row(str(i), 8, i % 5) for i in range(20)]
    after = [row(str(i), 8, i % 5 + 2) for i in reversed(range(20))]
    found = change(before, after, [1])
    assert found.mean == found.low == found.high == pytest.approx([0.25])


def test_problems_that_only_one_side_has_do_not_count():
    found = change([row("a", 4, 0), row("x", 4, 4)], [row("a", 4, 2), row("y", 4, 0)], [1])
    assert found.mean == pytest.approx([0.5])
