"""Advantages, and rewards and weights published with them: our numbers are those in golden/advantages.json."""

import itertools
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import tensor

from whet import groups, plain
from whet.batch import Batch
from whet.papers import (
    a_nsr,
    balcaprl_cgdpo,
    best_minus_second,
    confucius_pshw,
    degrpo,
    expthink,
    gae,
    gdpo,
    gpg,
    grpo,
    gspo,
    icr,
    luspo,
    mutual_rl_xgrpo,
    opo,
    pacevolve_pp,
    passk_training,
    pkpo,
    ppo,
    reinforce_pp,
    rlvr_decomposed,
    vapo,
)
from whet.recipe import Refused, call, settings_of
from whet.tasks import Problem

FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = json.loads((FOLDER / "advantages.json").read_text())
TOLERANCE = {"rtol": 1e-5, "atol": 1.1e-6}


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found).float(), tensor(expected).float(), **TOLERANCE)


def up_to(lengths):
    return torch.arange(max(lengths)) < tensor(lengths)[:, None]


def one_group(size):
    return torch.zeros(size, dtype=torch.long)


def some_right(size, right):
    return torch.arange(size) < right


# --- the whole batch as baseline -------------------------------------------------------------------------


def test_reinforce_pp():
    golden = GOLDEN["reinforce_pp"]
    mask = up_to(golden["lengths"])
    reward = groups.at_last_token(tensor(golden["scores at the last token"]), mask)
    advantage = reinforce_pp.return_to_go(reward, mask)
    close(gae.whitened(advantage, mask) * mask, golden["whitened"])
    close(reinforce_pp.whitened_by_population(advantage, mask) * mask, golden["population"])
    discounted = reinforce_pp.return_to_go(reward, mask, gamma=golden["gamma"])
    close(discounted, golden["returns"])
    close(gae.whitened(discounted, mask) * mask, golden["whitened returns"])


def test_whitening_of_equal_rewards_is_zero():
    mask = up_to([3, 1])
    for whitened in (gae.whitened, reinforce_pp.whitened_by_population):
        assert float((whitened(torch.ones(2, 3), mask) * mask).abs().max()) == 0


def test_reinforce_pp_baseline_moves_even_a_group_without_spread():
    golden = GOLDEN["reinforce_pp_baseline"]
    mask, reward = up_to(golden["lengths"]), tensor(golden["reward"])
    in_time = groups.at_last_token(reward, mask)
    centred = groups.spread(reinforce_pp.above_group_mean(in_time, reward, tensor(golden["group"]), mask), mask)
    close(gae.whitened(centred, mask) * mask, golden["value"])


def test_gpg_counts_groups_with_spread_and_verl_counts_rewards():
    golden = GOLDEN["gpg"]
    reward, group = tensor(golden["reward"]).flatten(), torch.arange(4).repeat_interleave(4)
    close(gpg.scaled_by_mixed(reward, group).view(4, 4), golden["paper"])
    close(gpg.scaled_by_nonzero(reward, group).view(4, 4), golden["verl"])
    assert float(gpg.scaled_by_mixed(torch.ones(16), group).abs().max()) == 0


# --- several rewards -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_group_of_equal_rewards_stays_silent_beside_others_in_gdpo(seed):
    rewards = torch.rand(12, 2, generator=torch.Generator().manual_seed(seed))
    rewards[9:] = 0.3
    advantage = gdpo.decoupled_over_batch(rewards, tensor([0] * 4 + [1] * 5 + [2] * 3))
    assert advantage[9:].tolist() == [0, 0, 0]


def test_gdpo():
    golden = GOLDEN["gdpo"]
    rewards = tensor(golden["rewards"])
    close(gdpo.decoupled(rewards, one_group(4)), golden["sum"])
    close(gdpo.decoupled_over_batch(rewards, one_group(4)), golden["trl"])
    close(grpo.z_score(rewards.sum(1), one_group(4)), golden["grpo of the sum"])


@pytest.mark.parametrize("totals", ["totals 0 and 1", "totals 0 and 2"])
def test_what_grpo_collapses_gdpo_keeps_apart(totals):
    golden = GOLDEN["gdpo"][totals]
    rewards = tensor(golden["rewards"])
    close(grpo.z_score(rewards.sum(1), one_group(2)), golden["grpo"])
    close(gdpo.decoupled(rewards, one_group(2)), golden["gdpo"])


def test_balcaprl():
    golden = GOLDEN["balcaprl_cgdpo"]
    close(gdpo.decoupled(tensor(golden["rewards"]), one_group(3)), golden["c-gdpo"])
    for share, kept in golden["kept by length ratio"].items():
        texts, problems = ["word " * round(10 * float(share))], [SimpleNamespace(answer="word " * 10)]
        close(balcaprl_cgdpo.style_at_fitting_length(tensor([True]), texts, problems), [float(kept)])


def test_a_pool_with_a_peer_moves_the_baseline_of_the_own_responses():
    golden = GOLDEN["mutual_rl_xgrpo"]
    pool = tensor(golden["own"] + golden["peer"])
    own = mutual_rl_xgrpo.own_responses(torch.arange(8) >= 4)
    assert mutual_rl_xgrpo.recipe.advantage is grpo.z_score
    close(grpo.z_score(pool, one_group(8)), golden["pooled"])
    close(grpo.z_score(pool, one_group(8))[own], golden["xgrpo"])
    close(grpo.z_score(tensor(golden["own"]), one_group(4)), golden["grpo"])


# --- the best of k ---------------------------------------------------------------------------------------


def test_best_minus_second():
    golden = GOLDEN["best_minus_second"]
    close(best_minus_second.best_minus_second(tensor(golden["reward"]), one_group(4)), golden["plain"])
    close(best_minus_second.best_minus_second_in_stds(tensor(golden["reward"]), one_group(4)), golden["in stds"])
    for tied_or_alone in ([0.9, 0.9, 0.1], [0.9]):
        found = best_minus_second.best_minus_second(tensor(tied_or_alone), one_group(len(tied_or_alone)))
        assert float(found.abs().max()) == 0


def test_best_minus_second_is_the_marginal_contribution_to_the_best_of_all():
    reward = tensor(GOLDEN["best_minus_second"]["reward"])
    close(pkpo.marginal(reward, one_group(4), k=4), best_minus_second.best_minus_second(reward, one_group(4)).tolist())


def subset_advantages(right, k):
    """GRPO with the population std over all groups of k tries, each response averaged over the groups it is in."""
    subsets = list(itertools.combinations(range(len(right)), k))
    passed = tensor([float(any(right[i] for i in subset)) for subset in subsets])
    advantage = (passed - passed.mean()) / passed.std(correction=0)
    return [float(advantage[[i in subset for subset in subsets]].mean()) for i in range(len(right))]


def test_pass_at_k_training():
    golden = GOLDEN["passk_training"]
    correct = some_right(golden["size"], golden["right"])
    found = passk_training.pass_at_k(correct, one_group(golden["size"]), k=golden["k"])
    close(found[[0, -1]], [golden["right advantage"], golden["wrong advantage"]])
    close(found.sum(), 0.0)
    close(found, subset_advantages(correct.tolist(), golden["k"]))
    close((1 - golden["mean"]) / golden["spread"], golden["right advantage"])


@pytest.mark.parametrize(("right", "k"), [(1, 1), (3, 2), (5, 3)])
def test_pass_at_k_training_is_the_mean_over_all_subsets(right, k):
    correct = some_right(8, right)
    close(passk_training.pass_at_k(correct, one_group(8), k=k), subset_advantages(correct.tolist(), k))


def test_pass_at_one_training_is_grpo_with_the_population_std():
    correct = some_right(8, 3)
    reward = correct.float()
    population = (reward - reward.mean()) / reward.std(correction=0)
    close(passk_training.pass_at_k(correct, one_group(8), k=1), population.tolist())


def test_pass_at_k_training_is_silent_where_k_tries_always_succeed():
    assert float(passk_training.pass_at_k(some_right(8, 5), one_group(8), k=4).abs().max()) == 0


def enumerated(reward, k, value):
    subsets = list(itertools.combinations(range(len(reward)), k))
    total = [sum(value(subset, i) for subset in subsets if i in subset) for i in range(len(reward))]
    return [x / len(subsets) for x in total]


@pytest.mark.parametrize(("size", "k"), [(4, 2), (6, 2), (6, 3), (7, 5), (5, 5)])
def test_best_of_k_weights_are_those_of_all_subsets(size, k):
    reward = (torch.rand(size, generator=torch.Generator().manual_seed(size + k)) * 4).round() / 4  # with ties
    best = {subset: max((float(reward[i]) for i in subset), default=0.0) for n in (k - 1, k)
            for subset in itertools.combinations(range(size), n)}  # fmt: skip

    def added(subset, i):
        return best[subset] - best[tuple(j for j in subset if j != i)]

    close(pkpo.unbiased_weight(reward, one_group(size), k), enumerated(reward, k, lambda subset, i: best[subset]))
    close(pkpo.marginal(reward, one_group(size), k), enumerated(reward, k, added))


def test_best_of_k_weights():
    golden = GOLDEN["pkpo"]
    reward = tensor(golden["reward"])
    weight = pkpo.unbiased_weight(reward, one_group(4), golden["k"])
    close(weight, golden["s"])
    close(weight.sum() / golden["k"], golden["max@2"])
    close(pkpo.marginal(reward, one_group(4), golden["k"]), golden["sloo_minus_one"])
    close(pkpo.unbiased_weight(reward, one_group(4), 1), (reward / 4).tolist())


def test_best_of_k_leaves_out_problems_with_fewer_responses():
    reward, group = tensor([0.1, 0.7, 0.4, 0.9]), tensor([0, 0, 0, 1])
    assert float(pkpo.unbiased_weight(reward, group, k=2)[3]) == float(pkpo.marginal(reward, group, k=2)[3]) == 0
    with pytest.raises(Refused, match=r"raise sample\.responses"):
        pkpo.marginal(reward, group, k=4)
    with pytest.raises(Refused, match="2 or more"):
        pkpo.marginal(reward, group, k=1)


@pytest.mark.parametrize("progress", ["0", "0.5", "1"])
def test_pacevolve_goes_from_the_group_to_the_best_of_k(progress):
    golden = GOLDEN["pacevolve_pp"]
    found = pacevolve_pp.phase_adaptive(tensor(golden["reward"]), one_group(4), float(progress), k=golden["k"])
    close(found, golden["by progress"][progress])


# --- right and wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["fading", "fading_by_cosine", "fading_by_powers"])
def test_the_push_from_wrong_answers_fades(schedule):
    golden = GOLDEN["a_nsr"]
    for progress, weight in zip(golden["progress"], golden[schedule], strict=True):
        close(getattr(a_nsr, schedule)(tensor([True, False]), progress), [0.1, -weight])


def test_with_a_constant_push_it_is_w_reinforce():
    correct = tensor([True, False, False, True])
    for schedule in (a_nsr.fading, a_nsr.fading_by_cosine, a_nsr.fading_by_powers):
        close(schedule(correct, 0.7, end=1.0), rlvr_decomposed.weighted(correct).tolist())


def test_confident_errors_are_pushed_harder():
    golden = GOLDEN["cw_nsr"]
    logp = tensor(golden["mean logp"])[:, None].expand(3, 2)
    wrong, mask = tensor([False] * 3), up_to([2, 1, 2])
    close(a_nsr.by_confidence(wrong, logp, mask), [-w for w in golden["weight"]])
    close(a_nsr.by_relative_confidence(wrong, logp, mask), [-w for w in golden["over the mean"]])
    assert float(a_nsr.by_relative_confidence(~wrong, logp, mask).abs().max()) == 0


@pytest.mark.parametrize("right", ["1", "4", "7"])
def test_hard_problems_weigh_more(right):
    golden = GOLDEN["confucius_pshw"]
    found = confucius_pshw.hardness_weighted(some_right(8, int(right)), one_group(8))
    close(found[[0, -1]], golden["by right answers"][right])
    close(found.sum(), 0.0)


def test_the_hardest_problem_weighs_a_third_more_than_the_easiest():
    hard, easy = (confucius_pshw.hardness_weighted(some_right(8, n), one_group(8)).abs().sum() for n in (1, 7))
    assert float(hard / easy) == pytest.approx(GOLDEN["confucius_pshw"]["hardest over easiest"], abs=5e-4)


# --- length ----------------------------------------------------------------------------------------------


def test_expthink_remembers_the_shortest_right_answer():
    golden, memory = GOLDEN["expthink"], {}
    for visit in ("first visit", "second visit"):
        correct, lengths = tensor(golden[visit]["correct"]).bool(), tensor(golden[visit]["lengths"])
        before = dict(memory)
        reward, after = expthink.near_the_shortest(correct, lengths, [SimpleNamespace(id="a")] * 4, memory)
        close(reward, golden[visit]["reward"])
        assert (after, memory) == ({"a": golden[visit]["shortest"]}, before)
        memory = after


def test_the_released_code_of_expthink_gives_the_middle_tier_nothing():
    visit = GOLDEN["expthink"]["first visit"]
    given = {"correct": tensor(visit["correct"]).bool(), "length": tensor(visit["lengths"]), "memory": {}}
    reward, _ = expthink.near_the_shortest(**given, problems=[SimpleNamespace(id="a")] * 4, discount=0.0)
    close(reward, [1, 1, 0, 0])


@pytest.mark.parametrize("right", ["1", "2", "4", "7"])
def test_expthink_weighs_by_the_number_of_right_answers(right):
    golden = GOLDEN["expthink"]["advantages of 8"][right]
    correct = some_right(8, int(right))
    found = expthink.over_right_answers(correct.float(), one_group(8), correct)
    close(found[[0, -1]], [golden["right"], golden["wrong"]])
    close(found.abs().sum(), golden["sum"])
    z_score = grpo.z_score(correct.float(), one_group(8))
    close(z_score[0], golden["grpo right"])
    close(z_score.abs().sum(), golden["grpo sum"])


def test_with_negative_covariance_right_answers_are_shorter_on_average():
    golden = GOLDEN["icr"]
    length, correct = tensor(golden["length"]), tensor(golden["correct"]).bool()
    covariance = icr.covariance(length, correct, one_group(4))[0]
    close(covariance, golden["covariance"])
    close(length.float().mean(), golden["mean length"])
    close(length.float().mean() + covariance / correct.float().mean(), golden["mean length of right"])
    close(length[correct].float().mean(), golden["mean length of right"])


@pytest.mark.parametrize(
    ("length", "correct", "chosen"),
    [
        ([4, 6, 8, 10], [1, 1, 0, 1], [1, 0, 0, 0]),
        ([4, 4, 8, 10], [1, 1, 0, 1], [1, 1, 0, 0]),  # ties share
        ([4, 6, 8, 10], [0, 1, 1, 1], [0, 0, 0, 0]),  # the short one is wrong: longer answers are better
        ([4, 6, 8, 10], [0, 0, 0, 0], [0, 0, 0, 0]),
        ([5, 5, 5, 5], [1, 1, 0, 1], [0, 0, 0, 0]),
    ],
)
def test_icr_imitates_the_shortest_right_answer_only_where_longer_is_worse(length, correct, chosen):
    mask = torch.ones(4, 1).bool()
    found = icr.shortest_right(tensor(length), tensor(correct).bool(), one_group(4), mask)
    assert found[:, 0].int().tolist() == chosen


def test_vapo_looks_further_ahead_in_longer_responses():
    golden = GOLDEN["vapo"]
    for length, lam in golden["lambda by length"].items():
        reward, mask = torch.zeros(1, int(length)), torch.ones(1, int(length)).bool()
        reward[0, -1] = 1.0
        found = vapo.length_adaptive(reward, torch.zeros_like(reward), mask)
        close(found[0, -2], lam)
        close(found, gae.generalized_advantage(reward, torch.zeros_like(reward), mask, lam=lam).tolist())
    close(sum(golden["lambda by length"]["100"] ** k for k in range(200)), golden["sum of powers at 100"])


def test_vapo_takes_a_lambda_for_each_response_and_teaches_the_critic_whole_returns():
    mask = up_to([40, 100])
    reward = groups.at_last_token(tensor([1.0, 1.0]), mask)
    found = vapo.length_adaptive(reward, torch.zeros(2, 100), mask)
    close(found[[0, 1], [38, 98]], [0.5, 0.8])
    critic, _ = vapo.recipe.penalties
    assert settings_of(critic)["lam"] == 1.0


def test_vapo_averages_the_likelihood_of_right_answers_over_theirs():
    mask, logp = up_to([2, 3, 4]), -torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    correct = tensor([True, False, True])
    selected = vapo.share_of_right(correct, mask)
    found = (plain.over_tokens(mask) * vapo.likelihood_of_right(logp, selected, mu=0.1)).sum()
    close(found, float(-0.1 * logp[mask & correct[:, None]].mean()))


# --- weights of tokens -----------------------------------------------------------------------------------


def test_luspo_multiplies_the_loss_of_a_response_by_its_length():
    golden, f1 = GOLDEN["luspo"], json.loads((FOLDER / "surrogates.json").read_text())["F1"]
    fields = {name: tensor(rows) for name, rows in f1.items()}
    mask = fields["mask"].bool()
    fields |= {"mask": mask, "advantage": groups.spread(fields["advantage"], mask)}
    loss = call(partial(gspo.sequence_clip, low=0.2, high=0.28), fields)
    close(loss[:, 0], golden["per sequence"])
    close((call(luspo.recipe.normalise, fields) * loss).sum(), golden["loss"])


def test_degrpo_gives_the_control_token_its_own_mean():
    golden = GOLDEN["degrpo"]
    mask, advantage = up_to(golden["lengths"]), tensor(golden["advantage"])
    logp = tensor(golden["ratio"]).log().requires_grad_()
    loss = ppo.clip(logp, torch.zeros(2, 4), groups.spread(advantage, mask))
    close(loss[:, 0].mean(), golden["control"])
    close((degrpo.control_token_apart(mask, alpha=0.0) * loss).sum(), golden["response"])
    total = (degrpo.control_token_apart(mask) * loss).sum()
    close(total, golden["degrpo"])
    close((plain.over_tokens(mask) * loss).sum(), golden["token mean"])
    gradient = torch.autograd.grad(total, logp)[0]
    close(gradient[:, 0], [-0.5 * 0.001 / 2, 1.3 * 0.001 / 2])  # α over the responses, whatever their length
    assert float(degrpo.control_token_apart(up_to([1, 1])).sum()) == pytest.approx(0.001)


# --- a target for the entropy, and groups left over ------------------------------------------------------


def test_entropy_is_drawn_to_its_target_from_both_sides():
    golden, mask = GOLDEN["confucius_ter"], up_to([3, 1])
    for mean, expected in zip(golden["entropy"], golden["loss"], strict=True):
        entropy = (torch.full((2, 3), mean) + tensor([[0.1, -0.1, 0.0], [0.0, 0.0, 0.0]])).requires_grad_()
        selected = confucius_pshw.entropy_above(entropy.detach(), mask)
        loss = (plain.over_tokens(mask) * confucius_pshw.entropy_to_target(entropy, selected)).sum()
        close(loss, expected)
        if mean != 0.55:
            slope = torch.autograd.grad(loss, entropy)[0].sum()
            close(slope, golden["slope below and above"][mean > 0.55])


def problem(name):
    return Problem(id=name, prompt=name, answer="x")


def drawn_as(valid):
    """A `draw` in which the problems named in `valid` get a right and a wrong answer, the others two wrong ones."""
    asked = []

    def draw(problems, responses, temperature):
        asked.append([p.id for p in problems])
        rows = [p for p in problems for _ in range(2)]
        first = torch.arange(len(rows)) % 2 == 0
        width = 2 + len(asked)
        fields = {
            "group": groups.index_of([p.id for p in rows]),
            "mask": torch.ones(len(rows), width).bool(),
            "sampled_logp": torch.full((len(rows), width), -float(len(asked))),
            "age": torch.zeros(len(rows), width),
            "correct": first & tensor([p.id in valid for p in rows]),
        }
        return Batch(tuple(rows), ((1,),) * len(rows), tuple(p.id for p in rows), fields, drawn=len(rows))

    return draw, asked


def in_order(batch):
    return list(dict.fromkeys(p.id for p in batch.problems))


def test_surplus_groups_go_first_in_the_next_batch():
    golden, rng = GOLDEN["confucius_rsr"], torch.Generator().manual_seed(0)
    first, second = ["g1", "x1", "g2", "g3"], ["g7", "x2", "g8", "g9"]
    pool = [problem(name) for name in [*first, *second]]
    draw, asked = drawn_as({"g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8", "g9"})

    unseen = [problem(name) for name in ("g4", "g5", "g6", "x3")]
    chosen = [problem(name) for name in first]
    batch, memory = confucius_pshw.surplus_first(draw, chosen, [*chosen, *unseen], rng, {})
    assert [len(part) for part in asked] == [4, 4]
    assert in_order(batch)[:3] == golden["first batch"][:3]
    assert {*in_order(batch)[3:], *memory["ids"]} == {golden["first batch"][3], *golden["left"]}
    assert batch.drawn == 16
    assert float(batch["age"].max()) == 0

    left = list(dict.fromkeys(memory["ids"]))
    before = memory["fields"]["age"].clone()
    chosen = [problem(name) for name in second]
    batch, memory = confucius_pshw.surplus_first(draw, chosen, [*pool, *unseen], rng, memory)
    assert [len(part) for part in asked] == [4, 4, 4]
    assert in_order(batch) == [*left, "g7", "g8"]
    assert (list(dict.fromkeys(memory["ids"])), golden["left again"]) == (["g9"], ["g9"])
    assert batch["age"][:, 0].tolist() == [1.0] * 4 + [0.0] * 4
    assert batch["sampled_logp"][:, 0].tolist() == [-2.0] * 4 + [-3.0] * 4
    assert batch["mask"].sum(1).tolist() == [4] * 4 + [5] * 4
    assert bool((before == 1).all())
    assert batch.drawn == 8


def test_no_valid_group_gives_an_empty_batch_and_nothing_left():
    draw, asked = drawn_as(set())
    pool = [problem(f"x{i}") for i in range(20)]
    batch, memory = confucius_pshw.surplus_first(draw, pool[:2], pool, torch.Generator().manual_seed(0), {}, rounds=3)
    assert (len(batch), memory["ids"], len(asked)) == (0, [], 3)
    assert len({name for part in asked for name in part}) == 6
    again, _ = confucius_pshw.surplus_first(draw, pool[:2], pool, torch.Generator().manual_seed(0), memory, rounds=1)
    assert len(again) == 0


@pytest.mark.parametrize("value", [0.1, 2.3, -1 / 3])
def test_the_mean_of_equal_numbers_is_that_number(value):
    x, mask = torch.full((23, 7), value), torch.arange(7) < torch.arange(23)[:, None] % 8
    assert groups.batch_mean(x, mask) == x[0, 0]
    assert bool((groups.mean(x[:, 0], torch.arange(23) // 9) == x[0, 0]).all())
    assert groups.batch_mean(x, torch.zeros_like(mask)) == 0


def test_opo_has_no_baseline_where_nothing_was_said():
    assert opo.length_weighted(tensor([1.0, 1.0]), one_group(2), tensor([0, 0])).tolist() == [0, 0]
