"""Which responses the page shows: blind to how they went, the same problems at every step, within a budget."""

import json

from tests.report.conftest import synthetic
from whet.report.responses import SIBLINGS, chosen, compact, spread


def test_responses_are_spread_over_steps_and_splits(run):
    rows = chosen(run)
    assert {row["split"] for row in rows} == {"train", "test"}
    assert {row["step"] for row in rows} >= {0, 1, 24, 48, 72, 96, 120}
    assert len(rows) <= 240


def test_the_same_problems_are_shown_at_every_step(run):
    rows = chosen(run)
    by_step = {}
    for row in rows:
        if row["split"] == "train":
            by_step.setdefault(row["step"], set()).add(row["problem"])
    assert len(set(map(frozenset, by_step.values()))) == 1


def test_a_budget_is_kept_by_taking_fewer_problems_of_every_step(run):
    rows = chosen(run, budget=40_000)
    assert 0 < len(json.dumps(rows, ensure_ascii=False)) <= 41_000
    assert len({row["step"] for row in rows}) >= 6


def test_of_many_steps_the_first_and_the_last_are_kept():
    files = [(step, "train") for step in range(1, 101)] + [(0, "test"), (100, "test")]
    kept = spread(files)
    assert len(kept) <= 12
    assert {(1, "train"), (100, "train"), (0, "test"), (100, "test")} <= set(kept)
    assert spread([]) == []


def test_numbers_are_short_and_one_number_stands_for_many_alike():
    row = dict.fromkeys(("advantage", "weight", "mask", "sampled_logp", "sampled_entropy", "log_ratio", "push"))
    row |= {"step": 1, "split": "train", "problem": "p", "level": 0, "prompt": "?", "answer": "!", "score": 1.0}
    row |= {"reward": 0.123456, "correct": True, "finished": True, "length": 2, "pieces": ["a", "b"]}
    small = compact({**row, "advantage": [0.33333, 0.33333], "push": [1e-7, float("nan")], "mask": [True, False]})
    assert small["advantage"] == 0.333
    assert small["push"] == [1e-07, None]
    assert small["mask"] == [1, 0]
    assert small["reward"] == 0.123
    assert small["score"] == 1
    assert "weight" not in small


def test_a_run_without_responses_has_none_to_show(tmp_path):
    assert chosen(synthetic(tmp_path / "run", steps=2, kept=0)) == []
    assert SIBLINGS == 8
