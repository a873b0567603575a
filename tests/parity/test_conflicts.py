"""Where the libraries disagree: the paper's rule is the default, the other rule is there by its own name.

The numbers count the conflicts between verl, TRL, OpenRLHF, AReaL, slime and Liger.
"""

import pytest
import torch
from torch import tensor

from whet import groups, shelf
from whet.papers import (
    cispo,
    dapo,
    decoupled_ppo,
    dr_grpo,
    gae,
    gpg,
    grpo,
    ipo,
    loss_agg,
    ppo,
    reinforce_pp,
    rloo,
    topr,
)
from whet.recipe import function_of, settings_of

LONE = (tensor([0.5]), torch.zeros(1, dtype=torch.long))
MASK = torch.arange(4) < tensor([[4], [2]])
OLD = tensor([[-1.0, -0.5, -2.0, -0.1], [-0.7, -1.6, 0.0, 0.0]])
NEW = tensor([[-0.9, -0.8, -1.55, -0.1], [-1.2, -0.3, 0.0, 0.0]])
SIGN = tensor([[1.0], [-1.0]]).expand(2, 4)


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=1e-5, atol=1.1e-6)


@pytest.mark.parametrize(
    ("recipe", "stage", "part"),
    [
        ("grpo", "advantage", grpo.z_score),
        ("rloo", "advantage", rloo.leave_one_out),
        ("dr_grpo", "normalise", dr_grpo.over_constant_length),
        ("cispo", "loss", cispo.clipped_weight),
        ("gpg", "advantage", gpg.scaled_by_mixed),
        ("topr", "loss", topr.tapered),
        ("ipo", "select", ipo.regressed),
        ("decoupled_ppo", "loss", decoupled_ppo.decoupled_clip),
    ],
)
def test_the_default_is_the_papers_rule(recipe, stage, part):
    assert function_of(getattr(shelf.load(recipe), stage)) is part


def test_1_epsilon_is_a_setting_and_every_spread_is_the_samples():
    reward, group = tensor([1.0, 0, 0, 0]), torch.zeros(4, dtype=torch.long)
    assert settings_of(grpo.z_score)["epsilon"] == 1e-6
    for epsilon, first in ((1e-6, 1.499997), (1e-4, 1.499700), (1e-9, 1.5)):  # verl, TRL, OpenRLHF
        close(grpo.z_score(reward, group, epsilon)[0], first)


def test_2_a_lone_response_gets_nothing_or_keeps_its_reward():
    assert float(grpo.z_score(*LONE)) == float(rloo.leave_one_out(*LONE)) == 0
    close(grpo.z_score_or_itself(*LONE), [0.5 / (1 + 1e-6)])
    close(rloo.leave_one_out_or_itself(*LONE), [0.5])
    reward, group = torch.rand(6, generator=torch.Generator().manual_seed(0)), tensor([0, 1, 0, 1, 0, 1])
    close(grpo.z_score_or_itself(reward, group), grpo.z_score(reward, group))
    close(rloo.leave_one_out_or_itself(reward, group), rloo.leave_one_out(reward, group))


def test_3_the_constant_length_with_and_without_the_number_of_responses():
    new, old = dr_grpo.over_constant_length(MASK, 8), loss_agg.over_length_only(MASK, 8)
    close(old, MASK / 8)
    close(new, old / 2)


def test_4_the_bound_of_cispo_is_one_plus_high_or_high_itself():
    ratio = ppo.ratio(NEW, OLD)
    close(cispo.clipped_weight(NEW, OLD, SIGN, high=0.28), -ratio.clamp(max=1.28) * SIGN * NEW)
    close(cispo.clipped_weight_at_high(NEW, OLD, SIGN, high=1.28), -ratio.clamp(max=1.28) * SIGN * NEW)
    assert settings_of(cispo.clipped_weight_at_high)["high"] == 5.0


def test_5_gpg_counts_mixed_groups_or_rewards_that_are_not_zero():
    reward = tensor([1.0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0])
    group = torch.arange(4).repeat_interleave(4)
    close(gpg.scaled_by_mixed(reward, group)[0], 1.5)
    close(gpg.scaled_by_nonzero(reward, group)[0], 1.714286)


def test_6_the_ratio_of_topr_is_a_product_or_its_mean_per_token():
    old, bad = torch.full((1, 4), -1.0), -torch.ones(1, 4)
    on = bad < 0
    weights = [part(old - 0.5, old, bad, on) / (old - 0.5) for part in (topr.tapered, topr.tapered_by_length)]
    close(weights[0][0, 0], 0.135335)
    close(weights[1][0, 0], 0.606531)


def test_7_the_penalty_for_length_has_a_floor_or_none():
    length = tensor([80, 90, 100, 110])
    close(dapo.soft_overlong(length, 100), [0.0, -0.5, -1.0, -1.0])
    close(dapo.soft_overlong_without_floor(length, 100), [0.0, -0.5, -1.0, -1.5])


def test_8_log_ratios_of_ipo_are_summed_or_averaged_over_tokens():
    mask = torch.arange(8) < tensor([[5], [8]])
    logp, ref = tensor([[-2.0], [-1.5]]) * mask, tensor([[-2.2], [-1.4375]]) * mask
    policy = tensor([[1.0], [-0.5]])  # the log-ratios of the whole answers: D = 1.5 summed, 0.2625 averaged
    close(((logp - ref) * mask).sum(1, keepdim=True), policy)
    given = (logp, ref, tensor([1.0, 0.0]), tensor([0, 0]), mask)
    for rule, ahead, share in (
        (ipo.regressed, 1.5, mask),
        (ipo.regressed_by_length, 0.2625, mask / tensor([[5], [8]])),
    ):
        ratios = policy[:, 0] / (1 if rule is ipo.regressed else tensor([5, 8]))
        h = ratios.clone().requires_grad_()
        loss = (h[0] - h[1] - 1 / (2 * 0.1)) ** 2
        close(loss.detach(), (ahead - 5) ** 2)  # the card: 12.25 and 22.443906
        loss.backward()
        close(rule(*given), h.grad[:, None] * share)


def test_9_whitening_by_the_samples_variance_or_the_populations():
    advantage = groups.spread(tensor([1.0, 0.0]), MASK)
    sample, population = gae.whitened(advantage, MASK), reinforce_pp.whitened_by_population(advantage, MASK)
    n = int(MASK.sum())
    close(groups.spread(population, MASK), groups.spread(sample, MASK) * (n / (n - 1)) ** 0.5)
    equal = torch.ones(2, 4)
    close(groups.spread(gae.whitened(equal, MASK), MASK), torch.zeros(2, 4))


def test_10_the_behaviour_weight_is_there_bounded_or_absent():
    drawn = OLD - tensor([[0.0, 0.5, 2.0, 0.0], [0.1, 0.0, 0.0, 0.0]])
    weight = torch.exp(OLD - drawn)
    plain_clip = ppo.clip(NEW, OLD, SIGN)
    close(decoupled_ppo.decoupled_clip(NEW, OLD, drawn, SIGN), weight * plain_clip)
    close(decoupled_ppo.decoupled_clip_within(NEW, OLD, drawn, SIGN), weight * plain_clip * (weight <= 5))
