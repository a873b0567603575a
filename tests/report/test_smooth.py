"""Smoothing shows what is there: it keeps a level, a slope inside, and the number of points bounded."""

import numpy as np
import pytest

from whet.report.smooth import MOST_POINTS, band, points, smoothed, thinned


def test_a_constant_stays_what_it_is():
    assert smoothed(np.full(50, 3.0)) == pytest.approx(3.0)
    assert all(bound == pytest.approx(np.full(50, 3.0)) for bound in band(np.full(50, 3.0)))


def test_a_slope_stays_a_slope_away_from_the_ends():
    values = np.arange(100, dtype=float)
    assert smoothed(values)[20:80] == pytest.approx(values[20:80])


def test_few_points_are_left_alone():
    values = np.array([1.0, 5.0, 2.0])
    assert smoothed(values).tolist() == values.tolist()


def test_noise_is_smoothed_and_lies_in_the_band():
    values = np.random.default_rng(0).normal(size=400)
    low, high = band(values)
    assert smoothed(values).std() < 0.4
    assert 0.7 < ((low <= values) & (values <= high)).mean() < 0.9


def test_a_steep_curve_without_noise_has_a_narrow_band():
    low, high = band(np.arange(100, dtype=float))
    assert (high - low)[20:80].max() < 0.5


def test_a_long_run_is_thinned_to_means_and_unknown_steps_left_out():
    steps, values = np.arange(3001), np.arange(3001, dtype=float)
    values[::10] = np.nan
    few, means = thinned(steps, values)
    assert len(few) == MOST_POINTS
    assert few[-1] == 2999
    assert means.mean() == pytest.approx(np.nanmean(values), rel=1e-3)
    assert len(points(steps, values)) == MOST_POINTS


def test_no_points_are_no_rows():
    assert points(np.array([], dtype=int), np.array([])) == []
