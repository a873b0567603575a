"""The recipes of the entropy list give the numbers of their spec cards (golden/entropy.json)."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import tensor

from whet import groups, plain
from whet.papers import (
    adaptive_entropy_control,
    aepo,
    em_ft,
    entropy_advantage,
    grpo,
    gtpo,
    intuitor,
    ppl_advantage,
    reinforce,
    rent,
    rloo,
    spro_msa,
    tea_rl,
    temperature_adjusted_entropy,
    tw_grpo_soft_reward,
    ulorl_dmmpt,
)
from whet.settings import settings, with_settings
from whet.tasks import Problem

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "entropy.json").read_text())
ONE_GROUP = torch.zeros(4, dtype=torch.long)


def padded(rows):
    """Rows of unequal length as [n t], garbage behind their end, and their mask."""
    width = max(map(len, rows))
    mask = torch.arange(width) < tensor([len(row) for row in rows])[:, None]
    return tensor([[float(x) for x in row] + [7.0] * (width - len(row)) for row in rows]), mask


def close(found, expected, tolerance=1.1e-6):
    expected = torch.as_tensor(expected).float()
    torch.testing.assert_close(torch.as_tensor(found).float(), expected, rtol=1e-5, atol=tolerance)


def flat(rows):
    return [x for row in rows for x in row]


def on(rows, columns):
    return torch.ones(rows, columns).bool()


def test_entropy_advantage():
    golden = GOLDEN["entropy_advantage"]
    advantage, entropy = tensor([golden["advantage"]]), tensor([golden["entropy"]])
    shaped = entropy_advantage.plus_entropy(advantage, entropy, alpha=golden["alpha"], kappa=golden["kappa"])
    close(shaped[0], golden["shaped"])
    close((shaped - advantage)[0], golden["psi"])
    assert entropy_advantage.plus_entropy(tensor([[-1.0]]), tensor([[9.0]]), kappa=1.0) == 0


def gtpo_case():
    golden = GOLDEN["gtpo"]
    entropy, mask = padded(golden["H"])
    reward = tensor(golden["R"]).float()
    return golden, reward, reward > 0, entropy, mask


def test_gtpo():
    golden, reward, correct, entropy, mask = gtpo_case()
    bonus = golden["alpha"][1]
    shaped = gtpo.shares(reward, correct, ONE_GROUP, entropy, mask, bonus)
    close(shaped[mask], flat(golden["r"]))
    advantage = gtpo.token_shares(reward, correct, ONE_GROUP, entropy, mask, bonus=bonus)
    close(advantage[mask], flat(golden["A"]))


def test_gtpo_hands_out_as_much_as_there_are_responses_running():
    _, reward, correct, entropy, mask = gtpo_case()
    bonus = gtpo.shares(reward, correct, ONE_GROUP, entropy, mask, 1.0) - gtpo.shares(
        reward, correct, ONE_GROUP, entropy, mask, 0.0
    )
    for side in (correct, ~correct):
        running = mask & side[:, None]
        sign = 1 if side is correct else -1
        close(groups.spread(bonus, running).sum(0), sign * running.sum(0).float())


def test_the_advantages_of_each_side_of_gtpo_sum_to_zero():
    """So they say nothing of which side was right: the reason why it does not learn `digits`."""
    _, reward, correct, entropy, mask = gtpo_case()
    advantage = gtpo.token_shares(reward, correct, ONE_GROUP, entropy, mask)
    for side in (correct, ~correct):
        close(advantage[side & mask.any(1)].sum(), 0.0)


def test_gtpo_is_silent_where_a_side_has_one_value():
    """A lone right answer, and identical wrong ones: the rounding of a mean must not look like a spread."""
    reward, group = tensor([1.0, 0.0, 0.0, 0.0]), ONE_GROUP
    entropy = tensor([[0.3, 0.7, 1.1]]).repeat(4, 1)
    advantage = gtpo.token_shares(reward, reward > 0, group, entropy, on(4, 3))
    assert advantage.abs().max() < 1e-6
    assert gtpo.response_shares(reward, reward > 0, group, entropy, on(4, 3)).abs().max() < 1e-6


def test_gtpo_says_something_even_of_groups_that_are_all_wrong():
    """What the card warns of, and why the recipe keeps DAPO's sampling."""
    _, reward, _, entropy, mask = gtpo_case()
    none = torch.zeros(4).bool()
    assert gtpo.token_shares(torch.zeros_like(reward), none, ONE_GROUP, entropy, mask).abs().max() > 0.5
    assert gtpo.recipe.sample is gtpo.dapo.until_mixed


def test_grpo_s():
    golden, (_, reward, correct, entropy, mask) = GOLDEN["grpo_s"], gtpo_case()
    whole = groups.token_mean(entropy, mask)
    close(whole, golden["H"])
    close(gtpo.shares(reward, correct, ONE_GROUP, whole[:, None], on(4, 1), 0.1)[:, 0], golden["r"])
    close(gtpo.response_shares(reward, correct, ONE_GROUP, entropy, mask), golden["A"])


@pytest.mark.parametrize("case", GOLDEN["grop"]["cases"])
def test_grop(case):
    length, correct = tensor(GOLDEN["grop"]["length"]), tensor(case["correct"]).bool()
    close(gtpo.long_majority(length, correct, ONE_GROUP), case["penalty"])


def test_ppl_advantage():
    golden = GOLDEN["ppl_advantage"]
    advantage, logp = tensor(golden["advantage"]).float()[:, None], -tensor(golden["log_ppl"])[:, None]
    part = partial(ppl_advantage.fluent_counts_more, advantage, logp, on(4, 1), ONE_GROUP)
    close(part(alpha=golden["alpha"])[:, 0], golden["shaped"])
    close((1 - part(alpha=golden["alpha"]) / advantage)[:, 0] / golden["alpha"], golden["w"], 1e-5)
    assert bool((part(alpha=50.0) * advantage >= 0).all())


def test_position_advantage():
    bonus = tensor(GOLDEN["position_advantage"]["bonus"])
    close(ppl_advantage.late_counts_more(torch.ones(1, 4), on(1, 4))[0], 1 + bonus)
    tiny = torch.full((1, 4), -1e-9)  # what rounding leaves of 0 has no direction
    assert torch.equal(ppl_advantage.late_counts_more(tiny, on(1, 4)), tiny)
    close(ppl_advantage.late_counts_more(-torch.ones(1, 4), on(1, 4))[0], -1 - bonus)
    close(ppl_advantage.late_counts_more(torch.zeros(1, 4), on(1, 4))[0], torch.zeros(4))
    close(ppl_advantage.late_counts_more(torch.ones(1, 1), on(1, 1)), 1 + bonus[-1:, None])


def test_tea_rl():
    golden = GOLDEN["tea_rl"]
    logp, entropy = tensor(golden["logp"]).requires_grad_(), tensor(golden["H"])
    advantage, mask = tensor(golden["A"]).float()[:, None].expand(2, 4), on(2, 4)
    term = tea_rl.adaptive_entropy(logp, advantage, entropy, mask)
    close(-term / entropy, golden["k"])
    mean = groups.batch_mean(-term, mask)
    close(mean, golden["term"])
    close(torch.autograd.grad(mean, logp)[0], golden["grad"])
    centred = advantage * (logp.detach() - logp.detach().mean())
    close(centred, golden["c"])
    close((10 * centred.softmax(1)).clamp(0, 5), golden["k"])


def test_tea_rl_has_no_number_that_is_none_on_an_empty_row():
    logp = torch.full((1, 3), -60.0, requires_grad=True)
    term = tea_rl.adaptive_entropy(logp, torch.ones(1, 3), torch.ones(1, 3), ~on(1, 3))
    assert bool(torch.autograd.grad(term.sum(), logp)[0].isfinite().all())


def test_entropy_sft():
    golden = GOLDEN["entropy_sft"]
    surprise, entropy = tensor([golden["CE"]]), tensor([golden["H"]])
    part = partial(tea_rl.most_surprising, on(1, 5), -surprise, entropy, trust=golden["c"])
    close((surprise - golden["c"] * entropy)[0], golden["delta"])
    kept = part(share=golden["rho"])
    close(kept[0], golden["kept"])
    loss = reinforce.policy_gradient(-surprise, torch.ones(1, 5))
    close((plain.over_tokens(kept) * loss).sum(), golden["loss"])
    close((plain.over_tokens(part(share=1.0)) * loss).sum(), golden["all_tokens"])
    assert bool(tea_rl.most_surprising(on(1, 1), -surprise[:, :1], entropy[:, :1]).all())


def test_ulorl_dmmpt():
    golden = GOLDEN["ulorl_dmmpt"]
    entropy = tensor(golden["mean_H"])[:, None].expand(2, 3)
    probability, mask = tensor(golden["p"]), on(2, 3)
    weight = ulorl_dmmpt.not_mastered(mask, tensor([True, True]), probability.log(), entropy)
    close(1 - weight, golden["masked"])
    close((plain.over_tokens(mask) * weight * -1).sum(), golden["loss"])
    assert bool((ulorl_dmmpt.not_mastered(mask, ~tensor([True, True]), probability.log(), entropy) == 1).all())


def test_spro():
    golden = GOLDEN["spro_msa"]
    drift, mask = padded(golden["log_ratio"])
    group, start = ONE_GROUP[:3], torch.zeros(3, 3)
    step = partial(spro_msa.plus_step_advantage, start, drift, start, mask, group)
    msa = step(beta=1.0)
    close(msa[mask], flat(golden["MSA"]))
    close(msa.sum(0), torch.zeros(3))
    total = spro_msa.at_each_position(groups.spread(drift, mask).cumsum(1), mask, group)
    close((total / spro_msa.at_each_position(mask.float(), mask, group))[0], golden["column_mean"])
    progress = msa + tensor(golden["column_mean"])
    close(progress[mask], flat(golden["CPR"]))
    reward = tensor(golden["R"]).float()
    outcome = (reward - reward.mean()) / reward.std(correction=0)
    shaped = spro_msa.plus_step_advantage(outcome[:, None].expand(3, 3), drift, start, mask, group, beta=1.0)
    close(shaped[mask], flat(golden["A_population_std"]))
    same = spro_msa.plus_step_advantage(outcome[:, None].expand(3, 3), drift, drift, mask, group)
    close(same, groups.spread(outcome, mask))


def test_tw_grpo_soft_reward():
    golden = GOLDEN["tw_grpo_soft_reward"]
    answers = tuple(golden["named"])
    problems, wrong = [Problem("p", "which?", golden["right"])] * len(answers), torch.zeros(len(answers)).bool()
    reward = partial(tw_grpo_soft_reward.share_of_options, problems=problems)
    close(reward(correct=wrong, texts=answers), golden["reward"])
    close(reward(correct=~wrong, texts=answers), torch.ones(len(answers)))
    twice = tuple(f"I think <answer> {a}, {a} </answer>" for a in answers)
    close(reward(correct=wrong, texts=twice), golden["reward"])


def test_adaptive_entropy_control():
    golden, memory = GOLDEN["adaptive_entropy_control"], 0.0
    recipe = adaptive_entropy_control.recipe
    for entropy, (a, e) in zip(golden["H"], golden["a_e"], strict=True):
        change, memory = adaptive_entropy_control.steer_coefficient({"entropy": entropy}, memory)
        close([memory, change["penalties.entropy_bonus.coef"]], [a, a * e], 1e-9)
        recipe = with_settings(recipe, change)
        assert settings(recipe)["penalties.entropy_bonus.coef"] == change["penalties.entropy_bonus.coef"]
    change, _ = adaptive_entropy_control.steer_coefficient({"entropy": 0.2}, 0.0)
    assert change == {"penalties.entropy_bonus.coef": 0.0}, "exactly on target counts as not below"
    assert adaptive_entropy_control.steer_coefficient({"entropy": 0.0}, 0.005)[1] == 0.005


def test_entropy_minimization():
    entropy = tensor([GOLDEN["em_ft"]["H"]])
    loss = em_ft.entropy_itself(entropy)
    close((grpo.over_responses(on(1, 3)) * loss).sum(), GOLDEN["em_ft"]["loss"])
    golden = GOLDEN["em_rl"]
    logp, entropy = tensor(golden["sequence"]["R"])[:, None], -tensor(golden["token"]["R"])[:, None]
    for name, reward in (
        ("sequence", em_ft.total_log_probability(logp.float(), on(4, 1))),
        ("token", em_ft.minus_total_entropy(entropy, on(4, 1))),
    ):
        close(reward, golden[name]["R"])
        close(rloo.leave_one_out(reward, ONE_GROUP), golden[name]["A"])


def test_rent():
    golden = GOLDEN["rent"]
    reward = rent.minus_mean_entropy(*padded(golden["H"]))
    close(reward, golden["R"])
    close(grpo.z_score(reward, ONE_GROUP), golden["A"], 1e-5)


def test_intuitor():
    golden = GOLDEN["intuitor"]
    z = tensor(golden["z"]).float()
    certainty = z.logsumexp(1) - z.mean(1)
    close(certainty, golden["SC"])
    close(certainty - tensor(3.0).log(), golden["kl_to_uniform"], 1e-6)
    close(intuitor.self_certainty(certainty[None], on(1, 2)), [golden["u"]])
    close(grpo.z_score(tensor(golden["group_u"]), ONE_GROUP, epsilon=golden["epsilon"]), golden["A"])


def test_aepo():
    golden, rough = GOLDEN["aepo"], 1e-4
    reward, group = tensor(golden["R"]).float(), tensor([0] * 4 + [1] * 4)
    alike = [Problem("p", "", "")] * 8
    advantage = aepo.over_task_spread(reward, group, alike)
    to_population = (8 / 7) ** 0.5
    close(advantage * to_population, golden["A_population_std"], rough)
    close(advantage[[0, -1]], golden["A_sample_std_first_and_last"], rough)
    length, entropy = tensor(golden["length"]), tensor(golden["H"])[:, None].expand(8, 4)
    mask = torch.arange(4) < length[:, None]
    spread = groups.spread(advantage, mask)
    kept = aepo.without_uncertain_negatives(spread, entropy, mask, threshold=golden["tau"])
    objective = (plain.over_tokens(mask) * kept * spread).sum()
    close(objective * to_population, golden["J_population_std"], rough)


def test_aepo_takes_the_spread_of_each_task_alone():
    tasks = [Problem("a", "", "", about={"task": "qa"})] * 2 + [Problem("b", "", "", about={"task": "number"})] * 2
    found = aepo.over_task_spread(tensor([1.0, 0.0, 100.0, 0.0]), tensor([0, 0, 1, 1]), tasks)
    close(found[2:], found[:2], 1e-5)


def test_aepo_masks_from_above_its_band_until_below():
    golden, masking = GOLDEN["aepo"], False
    low, high = golden["band"]
    advantage, mask = tensor([[1.0, -1.0]]), on(1, 2)
    for entropy, expected in zip(golden["batch_H"], golden["masking"], strict=True):
        weight, masking = aepo.calm(advantage, torch.full((1, 2), entropy), mask, masking, low=low, high=high)
        assert masking == bool(expected)
        close(weight, [[1.0, 0.0 if masking else 1.0]])


def test_temperature_adjusted_entropy():
    golden, asked = GOLDEN["temperature_adjusted_entropy"], []
    logits = tensor(golden["logits"]).float()

    def draw(problems, responses, temperature):
        asked.append((responses, temperature))
        probability = (logits / temperature).softmax(0)
        return {"sampled_entropy": torch.special.entr(probability).sum().view(1, 1), "mask": on(1, 1)}

    grid = tuple(golden["T"])
    for temperature, expected in zip(grid, golden["H"], strict=True):
        close(draw([], 1, temperature)["sampled_entropy"], [[expected]])
    asked.clear()
    part = partial(temperature_adjusted_entropy.near_target_entropy, draw, [], grid=grid)
    _, memory = part(0.0, target=0.9)
    assert (memory, asked) == (1.0, [*((1, t) for t in grid), (16, 1.0)])
    asked.clear()
    assert part(0.6, target=0.9)[1] == 0.6
    assert asked == [(16, 0.6)], "once chosen, the temperature stays"
    assert part(0.0, target=0.3)[1] == 0.6


def test_overlong_filter():
    golden = GOLDEN["overlong_filter"]
    reward, finished = tensor(golden["R"]).float(), tensor(golden["finished"]).bool()
    close(groups.mean(reward, ONE_GROUP)[0], golden["mean_kept"])
    close(reward[finished].mean(), golden["mean_removed"])
    removed = temperature_adjusted_entropy.z_score_of_finished(reward, ONE_GROUP, finished)
    close(removed[:3], grpo.z_score(reward[:3], ONE_GROUP[:3]))
    assert removed[3] == 0
    nobody = temperature_adjusted_entropy.z_score_of_finished(reward, ONE_GROUP, torch.zeros(4).bool())
    close(nobody, torch.zeros(4))
