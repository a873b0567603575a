"""What a method becomes at the ends of its settings: without a clip, without a coefficient, with one try."""

import pytest
import torch

from tests.laws.harness import case, gradient, loss_and_gradient, weighed
from tests.laws.test_laws import RECIPES, SEEDS, close
from whet import groups
from whet.metrics import pass_at_k
from whet.papers import grpo, pacevolve_pp, passk_training, pkpo, ppo
from whet.recipe import SEVERAL, data_of, name_of, settings_of
from whet.settings import with_settings

WIDE = 30.0  # wider than any ratio of a case, in nats too
BOUNDS = {"low", "high", "bound", "cap", "delta", "upper"}
STRENGTHS = {"beta", "coef", "factor", "mu", "alpha", "gamma", "seeing", "blind", "scale"}


def clipped() -> list[str]:
    return sorted(name for name, recipe in RECIPES.items() if {"low", "high"} <= set(settings_of(recipe.loss)))


def unclipped(name):
    recipe = RECIPES[name].with_(penalties=())
    return with_settings(recipe, {f"loss.{bound}": WIDE for bound in BOUNDS & set(settings_of(recipe.loss))})


def test_most_recipes_have_a_clip_to_widen():
    assert len(clipped()) > 40


@pytest.mark.parametrize("name", clipped())
def test_without_a_clip_the_gradient_is_proportional_to_the_advantage(name):
    """A clip takes the worse of two, so that blame and praise are not mirror images; without it they are."""
    for seed in SEEDS:
        given = weighed(unclipped(name), case(seed))
        mirrored = given.having(advantage=-given.batch["advantage"])
        _, praise = loss_and_gradient(unclipped(name), given)
        _, blame = loss_and_gradient(unclipped(name), mirrored)
        close(praise, {n: -x for n, x in blame.items()})


@pytest.mark.parametrize("name", clipped())
def test_a_narrow_clip_changes_the_gradient_off_policy(name):
    recipe = RECIPES[name].with_(penalties=())
    narrow = with_settings(recipe, {"loss.low": 1e-3, "loss.high": 1e-3})
    assert any(
        _differ(*(loss_and_gradient(r, weighed(r, case(seed)))[1] for r in (narrow, unclipped(name)))) for seed in SEEDS
    )


def test_ppo_without_a_clip_is_the_importance_weighted_policy_gradient():
    for seed in SEEDS:
        given = weighed(unclipped("token_mean"), case(seed))
        ratio = ppo.ratio(given.forward["logp"], given.batch["old_logp"])
        _, found = loss_and_gradient(unclipped("token_mean"), given)
        expected = -given.batch["weight"] * given.batch["advantage"] * ratio * given.batch["mask"]
        torch.testing.assert_close(found["logp"], expected)


def with_a_coefficient() -> list[tuple[str, str, str]]:
    """Recipe, stage and part, for every part that is added with a strength of its own."""
    found = []
    for name, recipe in RECIPES.items():
        for stage, part in recipe.parts("reward", "credit", "penalties"):
            alone = stage == "reward" and len(recipe.reward) == 1
            if STRENGTHS & set(settings_of(part)) and "new_value" not in data_of(part) and not alone:
                found.append((name, stage, name_of(part)))
    return sorted(found)


def test_many_parts_have_a_coefficient():
    assert len(with_a_coefficient()) > 40


@pytest.mark.parametrize(("name", "stage", "part"), with_a_coefficient())
def test_a_coefficient_of_zero_is_the_recipe_without_the_part(name, stage, part):
    recipe = RECIPES[name]
    assert stage in SEVERAL
    mine = next(p for p in getattr(recipe, stage) if name_of(p) == part)
    strengths = STRENGTHS & set(settings_of(mine))
    none, some = (with_settings(recipe, {f"{stage}.{part}.{s}": x for s in strengths}) for x in (0.0, 0.5))
    without = recipe.with_(**{stage: tuple(p for p in getattr(recipe, stage) if p is not mine)})
    for seed in SEEDS:
        close(gradient(none, case(seed)), gradient(without, case(seed)))
    assert any(_differ(gradient(some, case(seed)), gradient(without, case(seed))) for seed in range(8))


def _differ(one, other) -> bool:
    return any(not torch.allclose(one[name], other[name], atol=1e-9) for name in one)


# --- one try ---------------------------------------------------------------------------------------------


def by_population(reward, group):
    """The z-score with the population's standard deviation."""
    size = groups.size(group)
    return grpo.z_score(reward, group, epsilon=0.0) * (size / (size - 1).clamp(min=1)).sqrt()


def binary(seed):
    """Rewards of 0 and 1 in two groups of five, both with right and wrong answers."""
    reward = torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0, 0, 1])
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed))
    return reward[order], torch.arange(2).repeat_interleave(5)[order]


@pytest.mark.parametrize("seed", SEEDS)
def test_pass_at_1_training_is_the_z_score(seed):
    reward, group = binary(seed)
    found = passk_training.pass_at_k(reward > 0, group, k=1)
    torch.testing.assert_close(found, by_population(reward, group))


@pytest.mark.parametrize("seed", SEEDS)
def test_best_of_1_weights_are_the_rewards(seed):
    reward, group = binary(seed)
    torch.testing.assert_close(pkpo.unbiased_weight(reward, group, k=1), reward / groups.size(group))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_whole_group_as_one_try_leaves_what_only_one_can_add(seed):
    """k = n: there is one subset, and a response adds to its best only where it alone is right."""
    reward, group = binary(seed)
    alone = (reward > 0) & (groups.total(reward, group) == 1)
    torch.testing.assert_close(pkpo.marginal(reward, group, k=5), alone.float())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_early_phase_is_the_z_score_and_the_late_one_that_of_the_best_of_k(seed):
    reward, group = binary(seed)
    early = pacevolve_pp.phase_adaptive(reward, group, progress=0.0, k=2)
    late = pacevolve_pp.phase_adaptive(reward, group, progress=1.0, k=2)
    torch.testing.assert_close(early, by_population(reward, group), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(late, by_population(pkpo.marginal(reward, group, k=2), group), atol=1e-6, rtol=1e-6)


def test_pass_at_1_is_the_share_of_right_answers():
    assert [pass_at_k(8, right, 1) for right in (0, 3, 8)] == [0, 3 / 8, 1]
