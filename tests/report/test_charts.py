"""Every specification is valid Vega-Lite: a page is written without Altair's checks, here they are made."""

import numpy as np
import pytest

from whet.report import charts
from whet.report.facts import splits

STEPS, VALUES = np.arange(1, 41), np.linspace(0.1, 0.9, 40)


def specifications(run):
    ends = splits(run)
    yield "learning", charts.learning("correct", "share", STEPS, VALUES)
    yield "learning, tiny", charts.learning("kl", "nats", STEPS, VALUES * 1e-3)
    yield "learning, large", charts.learning("tokens", "tokens", STEPS, VALUES * 1e5)
    yield "held_out", charts.held_out(ends)
    for end in ends:
        yield "passing", charts.passing(end)
        yield "by_level", charts.by_level(end)
    yield "lengths", charts.lengths([3, 4, 4], [2, 9])
    yield "entropy_tail", charts.entropy_tail(np.array([0.1, 0.5]), np.array([]))
    yield "entropy_by_position", charts.entropy_by_position([[0.1, 0.2]] * 6, [[0.1] * 150] * 6)


def test_every_chart_is_valid_vega_lite_with_rows(run):
    import altair as alt

    for name, spec in specifications(run):
        alt.Chart.from_dict({**spec, "data": {"name": "rows"}}).to_dict()
        assert spec["datasets"]["rows"], name
        assert spec["width"] == "container"


def test_a_chart_names_no_colour_of_its_own(run):
    for name, spec in specifications(run):
        assert "#" not in str(spec), name


def test_intervals_are_in_the_rows_of_pass_at_k(run):
    rows = charts.passing(splits(run)[0])["datasets"]["rows"]
    assert [row["k"] for row in rows] == [1, 2, 4, 8, 16, 32, 64] * 2
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)


def test_problems_of_one_level_have_no_chart_by_level(run):
    from dataclasses import replace

    end = splits(run)[0]
    flat = replace(end, before=[replace(row, level=1) for row in end.before], after=[])
    assert charts.by_level(flat) is None


def test_lengths_are_shares_of_responses():
    rows = charts.lengths([3, 4, 4, 4], [1])["datasets"]["rows"]
    assert [(row["when"], row["from"], row["share"]) for row in rows] == [
        ("before", 2.5, 0.25), ("before", 3.5, 0.75), ("after", 0.5, 1.0),
    ]  # fmt: skip


def test_the_tail_of_entropy_is_a_share_of_tokens():
    rows = charts.entropy_tail(np.array([0.0, 0.5, 1.0, 1.0]), np.array([]))["datasets"]["rows"]
    assert rows[0]["share"] == 0.75
    assert rows[-1]["share"] == 0.0


@pytest.mark.parametrize("longest", [1, 59, 60, 61, 1000])
def test_entropy_by_position_has_at_most_sixty_stretches(longest):
    rows = charts.entropy_by_position([], [[0.5] * longest] * 5)["datasets"]["rows"]
    assert len(rows) <= 60
    assert {row["nats"] for row in rows} == {0.5}
    assert rows[-1]["position"] <= longest + 10
