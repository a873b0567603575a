"""The gap between the two engines: measured in every step, and repaired where it was made on purpose."""

from string import ascii_lowercase, digits

import pytest
import torch

from tests.vllm.models import pytestmark  # noqa: F401
from tests.vllm.test_handing_over import CLOSE
from whet import shelf
from whet.draw import Draw, generator
from whet.engines.local import LocalEngine
from whet.engines.sampler import Own
from whet.engines.vllm import VLLM
from whet.models.tiny import characters, llama
from whet.papers import dr_grpo, rollout_is
from whet.recipe import scored
from whet.step import State, objective, step, wanted, weigh
from whet.tasks.digits import Digits

TASK = Digits()


def small(seed: int = 0) -> LocalEngine:
    """The model of `digits`, with one head of 32 numbers."""
    pair = llama(characters(digits + ascii_lowercase), hidden=32, layers=1, heads=1, inner=64, seed=seed)
    return LocalEngine(*pair, lr=1e-2)


def steps(of: LocalEngine, count: int, state: State):
    for _ in range(count):
        state, batch = step(of, TASK, TASK.train(), state, 0)
    return state, batch


def gradient(of: LocalEngine, recipe, each: int, seed: int):
    """The gradient of a recipe on `each` responses to every problem, and what the learner tells."""
    batch = Draw(of, TASK, generator(seed))(TASK.train(), each)
    batch = batch.having(**of.score(batch, scored(recipe)))
    batch = weigh(recipe, batch, {"max_tokens": TASK.max_tokens}, {})
    learner = of.learner(objective(recipe), wanted(recipe))
    told = learner.gradient(batch)
    return torch.cat([x.flatten() for x in learner.gradients()]), told


def test_a_step_tells_the_gap_and_what_the_responses_are_worth():
    mine = small()
    mine.sampler = VLLM(mine)
    _, batch = steps(mine, 2, State(shelf.load("grpo")))
    assert batch.told["sampler_gap_mean"] <= batch.told["sampler_gap"] < CLOSE
    assert batch.told["sampler_ess"] == pytest.approx(1, abs=1e-6)


def test_other_numbers_in_vllm_are_seen_as_a_gap():
    mine = small()
    state, _ = steps(mine, 20, State(shelf.load("grpo")))
    mine.sampler = VLLM(mine, dtype="bfloat16")
    assert mine.model.dtype == torch.float32
    _, batch = steps(mine, 1, state)
    assert 1e-4 < batch.told["sampler_gap_mean"] < 0.1
    assert 0.9 < batch.told["sampler_ess"] < 1 - 1e-7


def test_a_stale_policy_bends_the_gradient_and_importance_weights_straighten_it():
    plain = dr_grpo.recipe
    mine = small()
    state, _ = steps(mine, 12, State(shelf.load("grpo")))
    old = VLLM(mine, publish_every=1000)
    steps(mine, 8, state)  # the policy that vLLM has does not move with these
    right, _ = gradient(mine, plain, 256, seed=1)

    def how_straight(recipe, seed=3):
        found, told = gradient(mine, recipe, 64, seed)
        return float(torch.cosine_similarity(right, found, 0)), told

    best, told = how_straight(plain, seed=2)
    assert told["sampler_gap"] < 1e-5
    assert isinstance(mine.sampler, Own)
    mine.sampler = old
    bent, told = how_straight(plain)
    assert told["sampler_gap_mean"] > 0.3
    assert told["sampler_ess"] < 0.7
    assert bent < best - 0.1
    for part in (rollout_is.truncated, rollout_is.icepop):
        straightened, _ = how_straight(plain.with_(weights=(part,)))
        assert bent + 0.5 * (best - bent) < straightened, part.__name__
