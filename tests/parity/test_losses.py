"""Surrogates, weights and selections: our numbers are those of the reference implementations (golden/losses.json)."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import tensor

from whet import groups, plain
from whet.papers import (
    alpacafarm_ppo,
    apo_dads,
    clip_cov,
    ctpo,
    decoupled_ppo,
    disco,
    dppo_tv,
    dr_grpo,
    dro,
    dual_clip,
    gae,
    gmpo,
    grpo,
    gspo,
    kl_estimators,
    loss_agg,
    opsm,
    poets,
    ppo,
    ppo_br,
    rollout_is,
    sapo,
    sequence_is,
    topr,
    vespo,
)
from whet.recipe import call
from whet.settings import settings, with_settings

FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = json.loads((FOLDER / "losses.json").read_text())
F1 = {name: tensor(rows) for name, rows in json.loads((FOLDER / "surrogates.json").read_text())["F1"].items()}
MASK = F1["mask"].bool()
TOLERANCE = {"rtol": 1e-5, "atol": 1.1e-6}


def fields(**more):
    advantage = groups.spread(F1["advantage"], MASK)
    return {**F1, "mask": MASK, "advantage": advantage, "logp": F1["logp"].clone().requires_grad_(), **more}


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found).float(), tensor(expected).float(), **TOLERANCE)


def sampled_by_old():
    """The vectors anchor every ratio on old_logp; our parts that mean the behaviour policy read sampled_logp."""
    return fields(sampled_logp=F1["old_logp"])


def prox_half_way():
    """AReaL's vector: old_logp drew the data, and the proximal policy is half way to the current one."""
    return fields(sampled_logp=F1["old_logp"], old_logp=(F1["old_logp"] + F1["logp"]) / 2)


LOSSES = {
    "topr": (topr.tapered, grpo.over_responses, sampled_by_old),
    "topr_by_length": (topr.tapered_by_length, grpo.over_responses, sampled_by_old),
    "sapo": (sapo.soft_gate, grpo.over_responses, fields),
    "gspo_token": (partial(gspo.sequence_clip_by_token, low=0.2, high=0.28), grpo.over_responses, fields),
    "dppo_tv": (partial(dppo_tv.within_variation, low=0.2, high=0.28), plain.over_tokens, sampled_by_old),
    "dro": (partial(dro.quadratic, beta=0.1), plain.over_tokens, fields),
    "vespo": (vespo.gamma_weighted, plain.over_tokens, sampled_by_old),
    "ctpo": (ctpo.widening_clip, plain.over_tokens, fields),
    "decoupled_ppo": (decoupled_ppo.decoupled_clip, plain.over_tokens, prox_half_way),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient(name):
    loss, normalise, made = LOSSES[name]
    given = made()
    per_token = call(loss, given)
    close(groups.spread(per_token, MASK), GOLDEN[name]["per_token"])
    total = (normalise(MASK) * per_token).sum()
    close(total, GOLDEN[name]["loss"])
    close(torch.autograd.grad(total, given["logp"])[0], GOLDEN[name]["grad"])


def test_gmpo():
    golden, given = GOLDEN["gmpo"], fields()
    per_token = call(partial(gmpo.geometric_mean, width=golden["width"]), given)
    close(per_token[:, 0], golden["per_response"])
    total = (grpo.over_responses(MASK) * per_token).sum()
    close(total, golden["loss"])
    close(torch.autograd.grad(total, given["logp"])[0], golden["grad"])


def test_topr_ratio_of_a_response_and_of_its_mean_token():
    golden = GOLDEN["topr_example"]
    ones = torch.ones(1, golden["tokens"])
    given = {
        "logp": golden["log_ratio_per_token"] - ones,
        "sampled_logp": -ones,
        "advantage": -ones,
        "mask": ones.bool(),
    }
    for name, part in (("paper", topr.tapered), ("by_length", topr.tapered_by_length)):
        close(call(part, given) / given["logp"], [[golden[name]] * golden["tokens"]])
    weights = call(topr.tapered_by_length, sampled_by_old()) / (-fields()["advantage"] * F1["logp"])
    close(weights[:, 0], GOLDEN["topr_by_length"]["weights"])


def test_sapo_weight_and_areal_mean():
    golden = GOLDEN["sapo"]
    close((plain.over_tokens(MASK) * call(sapo.soft_gate, fields())).sum(), golden["token_mean"])
    for ratio, weight in golden["weight"].items():
        logp = tensor([[float(ratio)]]).log().requires_grad_()
        loss = sapo.soft_gate(logp, torch.zeros(1, 1), torch.ones(1, 1))
        close(-torch.autograd.grad(loss.sum(), logp)[0] / float(ratio), [[weight]])


def test_gspo_ratio_and_tokens():
    close(gspo.sequence_ratio(F1["logp"], F1["old_logp"], MASK), GOLDEN["gspo"]["s"])
    close(groups.spread(call(gspo.sequence_clip_by_token, fields()), MASK), GOLDEN["gspo"]["per_token"])


def test_gspo_token_differs_from_gspo_where_the_tokens_of_a_response_differ():
    found = []
    for part in (gspo.sequence_clip, gspo.sequence_clip_by_token):
        given = fields(advantage=torch.where(MASK, torch.arange(12.0).view(3, 4), 0.0))
        loss = (grpo.over_responses(MASK) * call(partial(part, low=0.9, high=9.0), given)).sum()
        found.append((loss, torch.autograd.grad(loss, given["logp"])[0]))
    (value, gradient), (same_value, other_gradient) = found
    close(same_value, value.item())
    assert (gradient - other_gradient).abs().max() > 0.1
    close(gradient.sum(1), other_gradient.sum(1).tolist())


def test_vespo_weight():
    given = sampled_by_old()
    weights = call(vespo.gamma_weighted, given) / (-given["advantage"] * F1["logp"])
    close(weights[:, 0], GOLDEN["vespo"]["phi"])


def test_dro_of_a_response_is_the_paper_up_to_a_constant():
    """½ (A - β x)² / β = A² / 2β - A x + β x² / 2, x the log-ratio of the response."""
    beta, given = 0.1, fields()
    x = groups.token_sum(given["logp"] - F1["old_logp"], MASK)
    paper = 0.5 * (F1["advantage"] - beta * x) ** 2 / beta - F1["advantage"] ** 2 / (2 * beta)
    close(call(dro.quadratic_of_response, given)[:, 0], paper.tolist())


def test_decoupled_weight_and_areal_without_it():
    golden, given = GOLDEN["decoupled_ppo"], prox_half_way()
    close(groups.spread(ppo.ratio(given["old_logp"], given["sampled_logp"]), MASK), golden["w"])
    close((plain.over_tokens(MASK) * call(decoupled_ppo.decoupled_clip_within, given)).sum(), golden["loss"])
    line = golden["loglinear"]
    share = (line["v_prox"] - line["v_behav"]) / (line["v_theta"] - line["v_behav"])
    close(decoupled_ppo.interpolated(tensor([[line["new"]]]), tensor([[line["old"]]]), share), [[line["prox"]]])
    close((plain.over_tokens(MASK) * call(ppo.clip, given)).sum(), golden["without_weight"])


def test_with_fresh_data_decoupled_ppo_is_ppo():
    given = sampled_by_old()
    close(call(decoupled_ppo.decoupled_clip, given), call(ppo.clip, given).tolist())


def test_rollout_weights():
    golden, given = GOLDEN["rollout_is"], fields()
    close(groups.spread(ppo.ratio(F1["old_logp"], F1["sampled_logp"]), MASK), golden["rho"])
    parts = {
        "truncated": rollout_is.truncated,
        "masked": rollout_is.masked,
        "icepop": partial(rollout_is.icepop, upper=2.0),
        "mean_one": rollout_is.mean_one,
    }
    for name, part in parts.items():
        close(groups.spread(call(part, given), MASK), golden[name])
    close(call(sequence_is.response_ratio, given), golden["sequence_ratio"])
    close(call(sequence_is.sequence_truncated, given), golden["sequence_truncated"])
    close(call(partial(sequence_is.sequence_masked, upper=2.0), given), golden["sequence_masked"])
    close(groups.token_mean(F1["old_logp"] - F1["sampled_logp"], MASK).exp(), golden["geometric"])
    kept = call(partial(sequence_is.geometric_filter, lower=0.5, upper=2.0), given)
    close(kept, golden["kept_within_0.5_2"])


def test_a_sampler_that_gave_a_token_no_chance_does_not_break_the_weights():
    given = fields(sampled_logp=F1["sampled_logp"].clone().fill_(-torch.inf))
    for part in (rollout_is.truncated, rollout_is.masked, rollout_is.icepop, sequence_is.sequence_truncated):
        assert bool(call(part, given).isfinite().all())


def test_rollout_weight_comes_after_the_clip():
    given = fields()
    loss = call(partial(dual_clip.dual_clip, high=0.28), given) * call(rollout_is.truncated, given)
    close((plain.over_tokens(MASK) * loss).sum(), GOLDEN["rollout_is"]["ppo_loss"])


def test_opsm():
    golden, given = GOLDEN["opsm"], fields()
    close(groups.token_mean(F1["sampled_logp"] - F1["logp"], MASK), golden["left_sampled"])
    close(groups.token_mean(F1["old_logp"] - F1["logp"], MASK), golden["left_old"])
    plainly, masked = call(ppo.clip, given), call(partial(opsm.masked_clip, delta=golden["delta"]), given)
    close(masked, (plainly * tensor(golden["kept"])[:, None]).tolist())
    by_old = call(partial(opsm.masked_clip, delta=golden["delta"] + 1e-4), sampled_by_old())
    close(by_old, plainly.tolist())


def test_ctpo_cumulative_ratio_and_bounds():
    golden = GOLDEN["ctpo"]
    close(groups.spread(ctpo.cumulative_log_ratio(F1["logp"], F1["old_logp"], MASK), MASK), golden["cumulative"])
    up = torch.ones(1, 4)
    far_up = ctpo.widening_clip(9 * up, 0 * up, up, up.bool())
    close((-far_up).log(), [golden["high_bounds"][0]])
    far_down = ctpo.widening_clip(-9 * up, 0 * up, -up, up.bool())
    close(far_down.log(), (-tensor([golden["high_bounds"][0]]) / 2).tolist())


def test_the_cumulative_ratio_is_unbiased_and_the_token_ratio_is_not():
    toy = GOLDEN["ctpo_toy"]
    mu1, pi1, mu2, pi2, f2, f1 = (tensor(toy[name]).float() for name in ("mu1", "pi1", "mu2", "pi2", "f2", "f1"))
    joint = mu1[:, None] * mu2
    logp = torch.stack([pi1[:, None].expand(2, 2), pi2], -1).log().reshape(4, 2)
    old = torch.stack([mu1[:, None].expand(2, 2), mu2], -1).log().reshape(4, 2)
    ratio = ctpo.cumulative_log_ratio(logp, old, torch.ones(4, 2).bool()).exp()
    cumulative, first, token = ratio[:, 1].view(2, 2), ratio[:, 0].view(2, 2), ppo.ratio(logp, old)[:, 1].view(2, 2)
    close((pi1[:, None] * pi2 * f2).sum(), toy["expected"])
    close((joint * cumulative * f2).sum(), toy["cumulative"])
    close((joint * token * f2).sum(), toy["token"])
    mean = (pi1 * f1).sum()
    for name, weight in (("variance_cumulative", first), ("variance_full", cumulative)):
        close((joint * (weight * f1[:, None]) ** 2).sum() - mean**2, toy[name])


def test_poets():
    golden, on = GOLDEN["poets"], torch.ones(4, 1).bool()
    reward, group, beta = tensor(golden["reward"]), torch.zeros(4, dtype=torch.long), golden["beta"]

    def loss(logp, times=(1.0, 1.0, 1.0, 1.0)):
        weight = tensor(times)[:, None] / sum(times)
        error = poets.misfit(logp, torch.zeros(4, 1), reward, group, weight, on, beta)
        return (weight[:, 0] * error**2).sum()

    delta = tensor(golden["delta"])[:, None]
    close(loss(delta), golden["loss"])
    close(loss(delta, golden["times"]), golden["loss_of_bootstrap"])
    for times in ((1.0, 1.0, 1.0, 1.0), golden["times"]):  # what the recipe descends is the gradient of that loss
        at = delta.clone().requires_grad_()
        true = torch.autograd.grad(loss(at, times), at)[0]
        weight = tensor(times)[:, None] / sum(times)
        given = {"logp": delta, "ref_logp": torch.zeros(4, 1), "reward": reward, "group": group, "mask": on}
        close(weight * call(partial(poets.pull_of_misfit, beta=beta), {**given, "weight": weight}), true.tolist())
    start = torch.zeros(4, 1, requires_grad=True)
    gradient = torch.autograd.grad(loss(start), start)[0][:, 0]
    close(gradient, golden["grad_at_zero"])
    close(gradient, (-2 * beta / 4 * dr_grpo.centred(reward, group)).tolist())
    best = torch.log_softmax(reward / beta, 0) - tensor([0.25] * 4).log()
    close(loss(best[:, None]), golden["loss_at_optimum"])


def test_alpacafarm_rewards():
    golden = GOLDEN["alpacafarm_ppo"]
    old, ref, mask = tensor([golden["old_logp"]]), tensor([golden["ref_logp"]]), torch.ones(1, 3).bool()
    score = tensor([golden["score"]])
    reward = groups.at_last_token(score, mask) + alpacafarm_ppo.minus_clamped_k1(old, ref, mask, golden["beta"])
    close(reward[0], golden["reward"])
    close(groups.to_go(reward, mask)[0], golden["returns"])
    value = torch.zeros(1, 3)
    close(gae.generalized_advantage(reward, value, mask, lam=1.0)[0], golden["returns"])
    scaled = alpacafarm_ppo.scaled_reward(score, old, ref, mask)
    close(scaled.mean(), float(reward.mean()))
    close(scaled.std(correction=0), 1.0)


def test_aggregations():
    golden = GOLDEN["loss_agg"]
    per_token, length = tensor(golden["M"]), MASK.sum(1)
    close((loss_agg.over_response_count(MASK) * per_token).sum(), golden["response_sum"])
    close((loss_agg.over_longest(MASK, length) * per_token).sum(), golden["new_norm"])
    close((loss_agg.over_length_only(MASK, 4) * per_token).sum(), golden["old_norm"])
    close((loss_agg.one_each(MASK) * per_token).sum(), golden["token_sum"])
    clipped = call(partial(dual_clip.dual_clip, high=0.28), fields())
    close((loss_agg.over_response_count(MASK) * clipped).sum(), golden["response_sum_of_dual_clip"])


@pytest.mark.parametrize(
    "weight", [loss_agg.over_response_count, partial(loss_agg.over_longest, length=tensor([0, 0]))]
)
def test_responses_without_a_kept_token_weigh_nothing(weight):
    assert weight(tensor([[False, False], [False, False]])).tolist() == [[0, 0], [0, 0]]


def covarying():
    golden = GOLDEN["clip_cov"]
    given = {name: tensor(golden[name]).float() for name in ("advantage", "logp", "old_logp")}
    given["mask"] = tensor(golden["mask"]).bool()
    chosen = torch.zeros(2, 3, dtype=torch.bool)
    chosen[tuple(golden["chosen"])] = True
    return golden, given, chosen


def test_clip_cov():
    golden, given, chosen = covarying()
    mask = given["mask"]
    close(call(clip_cov.covariance, given), golden["covariance"])
    close(groups.spread(ppo.ratio(given["logp"], given["old_logp"]), mask), golden["ratio"])
    for seed in range(3):
        selected = call(clip_cov.some_covarying, {**given, "rng": torch.Generator().manual_seed(seed)})
        assert torch.equal(selected, chosen)
    for selected, expected in ((mask & False, golden["before"]), (chosen, golden["after"])):
        loss = call(clip_cov.clip_unless_selected, {**given, "selected": selected})
        close((plain.over_tokens(mask) * loss).sum(), expected)


def test_clip_cov_chooses_at_random_among_candidates():
    given = {
        "logp": -torch.arange(8.0)[None] / 2,
        "old_logp": -torch.arange(8.0)[None] / 2,
        "advantage": tensor([[2.0, 2, 2, 0, 0, -2, -2, -2]]),
        "mask": torch.ones(1, 8).bool(),
    }
    found = {
        tuple(
            call(clip_cov.some_covarying, {**given, "rng": torch.Generator().manual_seed(seed)}).nonzero()[0].tolist()
        )
        for seed in range(40)
    }
    c = call(clip_cov.covariance, given)
    assert found == {tuple(place) for place in ((c > 1) & (c < 5)).nonzero().tolist()}
    assert len(found) > 2


def test_without_a_candidate_clip_cov_selects_nothing():
    given = {**covarying()[1], "advantage": torch.ones(2, 3), "rng": torch.Generator()}
    assert not call(clip_cov.some_covarying, given).any()


def test_without_covariance_kl_cov_selects_nothing():
    given = {**covarying()[1], "advantage": torch.full((2, 3), 0.3)}
    assert not call(clip_cov.most_covarying, given).any()


def test_kl_cov():
    golden, (_, given, chosen) = GOLDEN["kl_cov"], covarying()
    mask = given["mask"]
    selected = call(partial(clip_cov.most_covarying, share=golden["share"]), given)
    assert torch.equal(selected, chosen)
    for picked, expected in ((selected, golden["loss"]), (mask & False, golden["without"])):
        loss = call(clip_cov.drift_of_selected, {**given, "selected": picked})
        close((plain.over_tokens(mask) * loss).sum(), expected)
    golden = GOLDEN["covariance"]
    given = {
        "advantage": tensor([golden["advantage"]]),
        "logp": tensor([golden["logp"]]),
        "mask": torch.ones(1, 4).bool(),
    }
    close(call(clip_cov.covariance, given).mean(), golden["mean"])
    assert call(clip_cov.most_covarying, given).nonzero().tolist() == [[0, golden["picked"]]]


def test_disco_has_the_gradient_of_its_objective():
    golden = GOLDEN["disco"]
    correct, group, mask = tensor(golden["correct"]).bool(), torch.zeros(4, dtype=torch.long), torch.ones(4, 1).bool()
    score = tensor(golden["score"])
    weight = disco.over_problems(mask, group)[:, 0]
    close((weight * disco.pairwise(correct, group) * score).sum(), golden["disco_b"])
    for tau, expected in golden["disco"].items():
        s = score.clone().requires_grad_()
        objective = s[correct].mean() - float(tau) * torch.logsumexp(s[~correct] / float(tau), 0)
        objective = objective + float(tau) * tensor(2.0).log()
        close(objective, expected)
        found = disco.discriminative(correct, score[:, None], group, mask, tau=float(tau))
        close(weight * found, torch.autograd.grad(objective, s)[0].tolist())
        if tau in golden["negative_weights"]:
            close(-found[~correct], golden["negative_weights"][tau])


def test_disco_gives_every_question_weight_one():
    golden = GOLDEN["disco"]
    group = torch.zeros(10, dtype=torch.long)
    for rate, dr, ours in zip(golden["pass_rates"], golden["dr_grpo_weight"], golden["disco_weight"], strict=True):
        correct = torch.arange(10) < round(10 * rate)
        close(dr_grpo.centred(correct.float(), group)[correct].sum() / 10, dr)
        close(disco.pairwise(correct, group)[correct].sum(), ours)


def test_disco_is_silent_without_both_kinds_and_still_counts_the_problem():
    group = tensor([0, 0, 1, 1])
    correct, logp, mask = tensor([True, True, True, False]), -torch.rand(4, 2), torch.ones(4, 2).bool()
    for advantage in (disco.pairwise(correct, group), disco.discriminative(correct, logp, group, mask)):
        close(advantage, [0.0, 0.0, 1.0, -1.0])
    close(disco.over_problems(mask, group).sum(1), [0.5] * 4)


def test_apo():
    golden = GOLDEN["apo"]
    difficulty = tensor(golden["difficulty"])
    close(apo_dads.difficulty_gate(difficulty), golden["gate"])
    close(apo_dads.difficulty_gate(tensor([0.0, 1.0])), [1.0, 1.0])
    close(apo_dads.earlier_gate(difficulty[:3]), golden["earlier"])
    reward, length = tensor(golden["reward"]), tensor(golden["length"])
    correct, group = reward.trunc() == 1, torch.zeros(4, dtype=torch.long)
    advantage = grpo.z_score(reward, group, epsilon=1e-9)[:, None]
    found = apo_dads.longer_than_right(advantage, correct, length, group)
    close(found[:, 0], golden["advantage"])
    close((found / advantage)[:, 0], golden["weights"])
    none_right = torch.zeros(4, dtype=torch.bool)
    close(apo_dads.longer_than_right(advantage, none_right, length, group), advantage.tolist())


def test_dads_gates_the_kl_of_what_a_hard_group_gets_right():
    group, correct = tensor([0, 0, 0]), tensor([True, False, False])
    given = fields(logp=F1["old_logp"].clone(), correct=correct, group=group)
    gate = apo_dads.difficulty_gate(tensor([2 / 3]))
    weight = torch.where(given["advantage"] > 0, gate, 1.0)
    given["selected"] = call(apo_dads.gate_of_group, given)
    found = call(partial(apo_dads.gated_kl, beta=0.3), given)
    close(found, (weight * call(partial(kl_estimators.k3, beta=0.3), given)).tolist())


def test_disco_presses_with_the_derivative_of_its_squared_hinge():
    rng = torch.Generator().manual_seed(0)
    group, mask = tensor([0, 0, 1, 1]), torch.arange(5) < tensor([5, 2, 3, 4])[:, None]
    old = -torch.rand(4, 5, generator=rng) - 0.5
    for shift, pressed in ((-0.1, True), (0.1, False)):
        logp = (old + shift).requires_grad_()
        kl = groups.batch_mean(old - logp, mask)
        hinge = 1e3 * (kl - 1e-4).clamp(min=0) ** 2
        expected = torch.autograd.grad(hinge, logp)[0]
        selected = disco.pressure(logp.detach(), old, group, mask)
        ours = (disco.over_problems(mask, group) * disco.constraint(logp, old, selected)).sum()
        close(torch.autograd.grad(ours, logp)[0], expected.tolist())
        assert bool((expected != 0).any()) == pressed


def test_ppo_br_range():
    golden = GOLDEN["ppo_br"]
    found = [ppo_br.clip_range(phi, change) for phi, change in golden["phi_change"]]
    close(found, golden["epsilon"])
    low, high = golden["bounds"]
    every = [ppo_br.clip_range(phi / 10, change / 10) for phi in range(11) for change in range(-50, 51)]
    assert low <= min(every)
    assert max(every) <= high


def test_ppo_br_moves_both_bounds_and_remembers_the_last_returns():
    recipe, memory = ppo_br.recipe, ppo_br.recipe.control[0].start
    for step in range(25):
        moved, memory = ppo_br.adaptive_clip({"entropy": 1.0, "reward": float(step)}, memory)
        recipe = with_settings(recipe, moved)
    assert memory == tuple(float(step) for step in range(5, 25))
    expected = ppo_br.clip_range(0.5, 19.5 / 9.5 - 1)
    close([settings(recipe)["loss.low"], settings(recipe)["loss.high"]], [expected, expected])
