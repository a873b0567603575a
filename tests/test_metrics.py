"""Metrics are what their formula says, on batches small enough to count by hand and on a real micro model."""

from dataclasses import fields

import pytest
import torch

from whet import closely, metrics
from whet.batch import Batch
from whet.draw import Draw, generator
from whet.engines.local import LocalEngine
from whet.models import tiny
from whet.papers import grpo
from whet.settings import with_settings
from whet.step import State, step
from whet.tasks import Problem
from whet.tasks.digits import Digits


def by_hand():
    """Two problems with two responses each; the last response has four tokens."""
    problems = tuple(Problem(name, name, "1", 1) for name in ("a", "a", "b", "b"))
    length = torch.tensor([1, 2, 2, 4])
    mask = torch.arange(4) < length[:, None]
    made = {
        "group": torch.tensor([0, 0, 1, 1]), "length": length, "mask": mask,
        "sampled_entropy": torch.tensor([[1.0, 0, 0, 0], [2, 4, 0, 0], [3, 5, 0, 0], [4, 9, 9, 8]]) * mask,
        "advantage": torch.ones(4, 4) * mask, "reward": torch.tensor([1.0, 0, 1, 1]),
        "correct": torch.tensor([True, False, True, True]), "finished": torch.ones(4).bool(),
        "demonstration": torch.zeros(4).bool(),
    }  # fmt: skip
    return Batch(problems, ((),) * 4, ("x=1", "y=1", "z=1", "z=1"), made, drawn=4)


def test_entropy_is_told_where_responses_begin_and_where_they_end():
    told = metrics.of_batch(by_hand())
    assert told["entropy_early"] == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert told["entropy_late"] == pytest.approx((1 + 4 + 5 + 8) / 4)


def test_diversity_counts_texts_final_answers_and_right_texts_problem_by_problem():
    told = metrics.of_batch(by_hand())
    assert told["distinct"] == 3 / 4  # x, y to the first problem; z twice to the second
    assert told["distinct_answers"] == 2 / 4  # they all say 1 in the end, once for each problem
    assert told["distinct_right"] == 2 / 3  # x; z twice


def test_every_metric_that_a_step_tells_has_a_unit_a_denominator_and_a_formula(stepped):
    _, _, batch = stepped
    for name in (*batch.told, "half_agreement", "step_kl", "peak_memory", "entropy_moved", "entropy_told"):
        assert all(getattr(metrics.METRICS[name], field.name) != "" for field in fields(metrics.Metric)), name


@pytest.fixture(scope="module")
def stepped():
    engine = LocalEngine(*tiny.micro(0), lr=1e-2)
    state, batch = step(engine, Digits(), Digits().train(), State(grpo.recipe), seed=0)
    return engine, state, batch


def test_what_was_drawn_is_counted_in_tokens(stepped):
    engine, _, batch = stepped
    assert batch.told["drawn_tokens"] == float(batch["length"].sum())
    draw = Draw(engine, Digits(), generator(0))
    drawn = draw(Digits().train()[:2], 3)
    assert draw.tokens == [int(drawn["length"].sum())]


def test_the_kl_of_a_step_is_zero_without_a_step_and_grows_with_it(stepped):
    engine, _, batch = stepped
    assert closely.step_kl(engine, batch) > 1e-4
    still = LocalEngine(*tiny.micro(0), lr=1e-2)
    recipe = with_settings(grpo.recipe, {"update.lr": 0.0})
    _, same = step(still, Digits(), Digits().train(), State(recipe), seed=0)
    assert closely.step_kl(still, same) == pytest.approx(0, abs=1e-8)


def test_halves_that_are_alike_agree_and_opposite_ones_do_not(stepped):
    engine, _, batch = stepped
    loud = next(g for g in range(16) if batch["advantage"][batch["group"] == g].abs().sum() > 0)
    one = batch.where(batch["group"] == loud)
    other = tuple(Problem("twin", p.prompt, p.answer, p.level) for p in one.problems)

    def both(sign):
        fields = {name: torch.cat([x, sign * x if name == "advantage" else x]) for name, x in one.fields.items()}
        fields["group"] = torch.tensor([0] * len(one) + [1] * len(one))
        return Batch(one.problems + other, one.prompts * 2, one.texts * 2, fields)

    plain = State(with_settings(grpo.recipe, {"penalties.k3.beta": 0.0}))
    assert closely.halves_agree(engine, plain, both(1)) == pytest.approx(1, abs=1e-4)
    assert closely.halves_agree(engine, plain, both(-1)) == pytest.approx(-1, abs=1e-4)
