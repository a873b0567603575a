"""Budgets, tournaments, demonstrations and look-ahead: the numbers of the cards (golden/sampling.json)."""

import io
import itertools
import json
import math
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import tensor

from whet import groups, plain, tournaments
from whet.batch import Batch
from whet.papers import (
    alpacafarm_ppo,
    amft_controller,
    arena_single,
    c3po,
    e3_budget,
    eframe,
    entropulse,
    grpo,
    gxpo,
    hora,
    mgda,
    mutual_rl_xgrpo,
    papo,
    poise,
    srft,
)
from whet.recipe import Remembers, call
from whet.tasks import Problem

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "sampling.json").read_text())


def close(found, expected, atol=1.1e-6):
    torch.testing.assert_close(torch.as_tensor(found).float(), torch.as_tensor(expected).float(), rtol=1e-5, atol=atol)


def one_group(size):
    return torch.zeros(size, dtype=torch.long)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def problems(names):
    return [Problem(id=name, prompt=name, answer="x", level=i) for i, name in enumerate(names)]


def batch_of(rows, right, temperature=1.0, demonstration=False, width=2):
    """One row for each problem named, with the fields that a sampler and a judge make."""
    n = len(rows)
    correct = torch.as_tensor(right, dtype=torch.bool)
    fields = {
        "group": groups.index_of([p.id for p in rows]),
        "mask": torch.ones(n, width).bool(),
        "score": correct.float(),
        "correct": correct,
        "finished": torch.ones(n).bool(),
        "temperature": torch.full((n,), float(temperature)),
        "sampled_entropy": torch.full((n, width), 0.0 if demonstration else 0.5),
        "demonstration": torch.full((n,), demonstration),
    }
    return Batch(tuple(rows), ((1,),) * n, tuple(f"{p.id}{i}" for i, p in enumerate(rows)), fields, drawn=n)


class Draw:
    """A `draw` in which the first `right[id]` responses to a problem are right."""

    def __init__(self, right):
        self.right, self.asked = right, []

    def __call__(self, chosen, responses, temperature):
        counts = [responses] * len(chosen) if isinstance(responses, int) else list(responses)
        self.asked.append(({p.id: n for p, n in zip(chosen, counts, strict=True)}, temperature))
        rows = [(p, i) for p, n in zip(chosen, counts, strict=True) for i in range(n)]
        right = [i < self.right[p.id] for p, i in rows]
        return batch_of([p for p, _ in rows], right, temperature, width=2 + len(self.asked))

    def demonstrations(self, chosen):
        return batch_of(chosen, [True] * len(chosen), demonstration=True, width=5)


# --- budgets -----------------------------------------------------------------------------------------------


def test_e3_gives_more_responses_to_harder_problems():
    golden = GOLDEN["e3_budget"]
    for low, high, expected in golden["cases"]:
        assert e3_budget.counts(golden["rank"], golden["total"], low, high) == expected
    low, high, expected = golden["unseen"]
    assert e3_budget.counts([0.0] * 4, golden["total"], low, high) == expected
    skewed = golden["skewed"]
    assert e3_budget.counts(skewed["rank"], golden["total"], skewed["low"], skewed["high"]) == skewed["counts"]


@pytest.mark.parametrize(("step", "case"), [(0, 0), (3, 1), (4, 1), (40, 2)])
def test_e3_opens_its_range_with_every_epoch(step, case):
    chosen = problems("abcd")
    history = {"d": (8, 1, 0.1), "a": (8, 8, 1.0), "b": (8, 6, 0.8), "c": (8, 4, 0.5)}
    draw = Draw(Counter())
    e3_budget.by_rank(draw, chosen, problems("abcdefghij"), history, step)
    assert list(draw.asked[0][0].values()) == GOLDEN["e3_budget"]["cases"][case][2]
    assert e3_budget.ranks(problems("xa"), {}) == [0.0, 0.0]


def test_e3_temperature_rises_where_the_entropy_fell():
    golden, part = (
        GOLDEN["e3_temperature"],
        partial(e3_budget.hold_entropy, vocabulary=GOLDEN["e3_temperature"]["vocabulary"]),
    )
    for entropy, expected in ((0.4, golden["half"]), (1.6, golden["double"]), (0.8, 1.0), (0.0, 1.0)):
        memories = {}
        remembered = Remembers(part, e3_budget.e3_temperature.control[0].start)
        first = call(remembered, {"metrics": {"entropy": 0.8}, "progress": 0.0}, memories)
        assert first == {"sample.temperature": 1.0}
        second = call(remembered, {"metrics": {"entropy": entropy}, "progress": 0.0}, memories)
        close(second["sample.temperature"], expected)


def test_e3_lowers_its_target_late_in_the_run_and_uses_it_from_the_next_step():
    memory = {"temperature": 1.0, "seen": 1, "first": 0.8, "target": 0.8}
    for progress, factor in zip((0.6, 0.8, 1.0), GOLDEN["e3_temperature"]["annealed"], strict=True):
        told, after = e3_budget.hold_entropy({"entropy": 0.8}, progress, memory)
        assert told["sample.temperature"] == 1.0
        close(after["target"], 0.8 * factor)
    told, _ = e3_budget.hold_entropy({"entropy": 0.8}, 1.0, after)
    assert told["sample.temperature"] < 1


def test_hora_spends_where_a_hit_is_likely():
    golden = GOLDEN["hora"]
    for hits, cases in golden["utility"].items():
        for more, expected in cases.items():
            close(hora.utility(int(hits), golden["tries"], int(more)), expected)
    for hits, expected in golden["marginal"].items():
        utilities = [hora.utility(int(hits), golden["tries"], m) for m in range(5)]
        close([b - a for a, b in itertools.pairwise(utilities)], expected)
    hits, tries = golden["hits"], [golden["tries"]] * 4
    for budget, extra in golden["extra"].items():
        assert hora.allocated(hits, tries, int(budget)) == extra
    steps = [hora.allocated(hits, tries, b) for b in range(9)]
    order = [next(i for i in range(4) if b[i] > a[i]) for a, b in itertools.pairwise(steps)]
    assert order == golden["order"]


def test_hora_is_as_good_as_trying_every_allocation():
    golden = GOLDEN["hora"]

    def worth(more):
        return sum(hora.utility(s, golden["tries"], m) for s, m in zip(golden["hits"], more, strict=True))

    best = max(worth(m) for m in itertools.product(range(9), repeat=4) if sum(m) == 8)
    close(worth(hora.allocated(golden["hits"], [4] * 4, 8)), golden["total_utility"])
    close(best, golden["total_utility"])


def test_hora_trains_on_the_first_responses_too():
    draw = Draw({"a": 0, "b": 1, "c": 2, "d": 4})
    batch = hora.where_hits_are_likely(draw, problems("abcd"), responses=6)
    assert draw.asked[0] == ({"a": 4, "b": 4, "c": 4, "d": 4}, 1.0)
    assert draw.asked[1] == ({"a": 2, "b": 3, "c": 2, "d": 1}, 1.0)
    assert Counter(p.id for p in batch.problems) == {"a": 6, "b": 7, "c": 6, "d": 5}
    assert batch.drawn == len(batch) == 24


# --- filter and replay -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "right", "up", "down", "kept"), GOLDEN["eframe"]["cases"])
def test_eframe_keeps_what_is_informative(size, right, up, down, kept):
    correct = torch.arange(size) < right
    advantage = grpo.z_score(correct.float(), one_group(size))
    for value, expected in ((advantage[0], up), (advantage[-1], down)):
        if expected is not None:
            close(value, expected)
    temperature = torch.full((size,), 1.2 if size == 20 else 1.0)
    mask, done = torch.ones(size, 1).bool(), torch.ones(size).bool()
    found = eframe.informative(advantage[:, None], mask, temperature, done)[:, 0]
    assert found.tolist() == {"right": correct, "wrong": ~correct, "none": done & ~done, "both": done}[kept].tolist()


def test_eframe_tries_hard_problems_again_in_place_of_the_first_time():
    draw = Draw({"a": 0, "b": 2, "c": 5})
    batch = eframe.try_again(draw, problems("abc"))
    assert draw.asked == [({"a": 5, "b": 5, "c": 5}, 1.0), ({"a": 20}, 1.2)]
    assert Counter(p.id for p in batch.problems) == {"a": 20, "b": 5, "c": 5}
    assert [p.id == "a" for p in batch.problems] == (batch["temperature"] > 1).tolist()
    assert batch.drawn == 35
    assert len(eframe.try_again(Draw({"b": 2}), problems("b"))) == 5
    assert len(eframe.try_again(Draw({"a": 0}), problems("a"))) == 20  # nothing of the first try is left


class Recorder:
    """A learner that notes what it was asked."""

    def __init__(self, gradients=()):
        self.seen, self.given = [], list(gradients)

    def gradient(self, batch, scale=1.0):
        self.seen.append((batch, scale))
        return {"loss": 0.0}

    def gradients(self):
        return [tensor(self.given.pop(0))]

    def step(self, lr, clip_norm):
        return {"grad_norm": 1.0}


def test_eframe_replays_the_loudest_every_fifth_update():
    learner, memories = Recorder(), {}
    update = eframe.recipe.update
    for step in range(10):
        rows = batch_of(problems("ab") * 2, [True] * 4)
        advantage = tensor([2.0 + step, -1.5, 0.5, 3.0])[:, None] * torch.ones(4, 2)
        mask = rows["mask"] & tensor([True, True, True, False])[:, None]
        rows = rows.having(advantage=advantage, mask=mask, weight=mask / 6.0)
        call(update, {"learner": learner, "batch": rows, "step": step}, memories)
    replayed = [(batch, scale) for batch, scale in learner.seen if scale != 1]
    assert len(learner.seen) == 12
    assert [len(batch) for batch, _ in replayed] == [8, 8]  # two of four rows a step, at most two batches
    last, scale = replayed[-1]
    assert float(last["advantage"][-2, 0]) == 11.0  # first in, first out
    assert bool((last["advantage"].abs() > 1).all())
    close(scale * last["weight"].sum(), 1.0)


def test_a_queue_of_responses_is_saved_with_the_run():
    chosen = problems("ab")
    buffer = io.BytesIO()
    torch.save({"queue": batch_of(chosen, [True, False])}, buffer)
    buffer.seek(0)
    with torch.serialization.safe_globals([Batch, Problem, Counter]):
        back = torch.load(buffer, weights_only=True)["queue"]
    assert (list(back.problems), back["correct"].tolist()) == (chosen, [True, False])


def test_c3po_learns_from_as_many_tokens_whatever_the_lengths():
    golden = GOLDEN["c3po"]
    mask = torch.arange(6) < tensor(golden["length"])[:, None]
    kept = c3po.first_tokens(mask, torch.arange(3), golden["budget"])
    assert kept.sum(1).tolist() == golden["kept"]
    close(-(kept / golden["budget"] * tensor(golden["advantage"])[:, None]).sum(), golden["loss"])
    for seed in range(5):
        weight = c3po.within_budget(mask, ["x", "y", "z"], rng(seed), budget=11)
        close(weight.sum(), 1.0)
        again = c3po.within_budget(mask.flip(0), ["z", "y", "x"], rng(seed), budget=11)
        assert torch.equal(again.flip(0), weight)
    close(c3po.within_budget(mask, ["x", "y", "z"], rng(), budget=30).sum(), 0.5)


# --- tournaments -------------------------------------------------------------------------------------------

TOPOLOGIES = {
    "anchor": arena_single.anchor,
    "round_robin": arena_single.round_robin,
    "single": arena_single.single_elimination,
    "double": arena_single.double_elimination,
    "swiss": arena_single.swiss,
}


def advantages(name, quality, seed=0, **settings):
    letters = [chr(97 + i) for i in range(len(quality))]
    group = one_group(len(quality))
    reward = TOPOLOGIES[name](torch.as_tensor(quality).float(), group, letters, rng(seed), **settings)
    return grpo.z_score(reward, group)


@pytest.mark.parametrize("name", ["anchor", "round_robin", "single"])
def test_an_exact_judge_is_ranked_exactly(name):
    golden = GOLDEN["arena"]
    close(advantages(name, golden["quality"]), golden["advantage"], atol=1e-4)
    close(advantages(name, [9, 7, 4, 1]), golden["four"])


@pytest.mark.parametrize("name", ["anchor", "round_robin"])
def test_equal_responses_share_a_place_where_points_decide(name):
    close(advantages(name, GOLDEN["arena"]["ties"]), GOLDEN["arena"]["ties_by_points"], atol=1e-4)
    close(advantages(name, [5.0] * 4), torch.zeros(4))


def test_a_knock_out_ranks_equal_responses_by_their_seats():
    golden = GOLDEN["arena"]
    for quality, expected in ((golden["ties"], golden["ties_single"]), ([5.0] * 4, golden["equal_single"])):
        reward = tournaments.knock_out(tensor(quality).float()[:, None].expand(4, 4), None)
        close(grpo.z_score(reward, one_group(4)), expected, atol=1e-4)


def test_seats_are_drawn_so_that_no_text_wins_its_ties_for_ever():
    reward = torch.stack([advantages("single", [5.0] * 4, seed) for seed in range(400)])
    assert float(reward.mean(0).abs().max()) < 0.15


def test_the_draw_keeps_the_best_apart():
    assert tournaments.bracket(16) == GOLDEN["arena"]["bracket_16"]


@pytest.mark.parametrize("name", ["single", "double"])
def test_knock_outs_make_the_number_of_comparisons_they_should(name, monkeypatch):
    matches, play = [], tournaments.play
    monkeypatch.setattr(
        tournaments, "play", lambda players, *rest: matches.append(len(players) // 2) or play(players, *rest)
    )
    advantages(name, GOLDEN["arena"]["quality"])
    anchor = GOLDEN["arena"]["comparisons"]["anchor"] if name == "single" else 0
    assert anchor + sum(matches) == GOLDEN["arena"]["comparisons"][name]


def test_the_official_draw_is_among_ours():
    golden = GOLDEN["arena"]
    assert any(
        torch.allclose(advantages("double", golden["quality"], s), tensor(golden["double"]), atol=1e-4)
        for s in range(300)
    )
    judged = tensor(golden["quality"]).float()[:, None].expand(8, 8)
    assert any(tournaments.swiss_table(judged, rng(s))[0].tolist() == golden["swiss_points"] for s in range(300))


@pytest.mark.parametrize("name", ["double", "swiss"])
def test_a_drawn_tournament_is_nearly_right(name):
    quality = tensor(GOLDEN["arena"]["quality"]).float()
    rank = quality.argsort().argsort().float()

    def spearman(found):
        order = (found[:, None] > found).sum(1) + ((found[:, None] == found).sum(1) - 1) / 2
        return float(torch.corrcoef(torch.stack([order, rank]))[0, 1])

    mean = sum(spearman(advantages(name, quality, seed)) for seed in range(150)) / 150
    assert mean == pytest.approx(GOLDEN["arena"]["spearman"][name], abs=0.02)


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7])
def test_a_tournament_of_any_size_ends_and_the_best_is_first(name, size):
    quality = torch.randperm(size, generator=rng(size)).float()
    found = advantages(name, quality, seed=1)
    assert found.shape == (size,)
    assert bool(found.isfinite().all())
    if name != "swiss":  # there a lone last player may catch up
        assert int(found.argmax()) == int(quality.argmax())


def test_a_noisy_judge_makes_the_topologies_differ():
    quality = torch.arange(8.0)
    found = {name: advantages(name, quality, seed=3, noise=2.0) for name in TOPOLOGIES}
    for one, other in itertools.combinations(found, 2):
        assert not torch.allclose(found[one], found[other]), (one, other)


# --- demonstrations ----------------------------------------------------------------------------------------


def test_srft_weighs_imitation_and_exploration_by_entropy():
    golden = GOLDEN["srft"]
    ones = torch.ones(4, 1).bool()
    demonstration, correct = tensor([True, False, False, False]), tensor([True, True, True, False])
    for entropy, (sft, right) in golden["weights"].items():
        level = torch.full((4, 1), float(entropy))
        loss = partial(srft.imitation_and_exploration, tensor([[-1.0]] * 4), torch.zeros(4, 1), level)
        close(loss(demonstration, correct)[0, 0], sft)
        close(srft.by_kind(ones, level, demonstration, correct)[1], right * 4 / 2)
    close(
        grpo.z_score(tensor(golden["reward"]).float(), one_group(4)) * math.sqrt(4 / 3), golden["population_advantage"]
    )


def test_srft_loss_and_gradient():
    golden, mask = GOLDEN["srft"], torch.ones(4, 1).bool()
    logp = tensor(golden["logp"]).float()[:, None].requires_grad_()
    demonstration, correct = tensor([True, False, False, False]), tensor([True, True, True, False])
    entropy, advantage = torch.full((4, 1), 0.5), torch.full((4, 1), golden["population_advantage"][0])
    weight = grpo.over_responses(mask) * srft.by_kind(mask, entropy, demonstration, correct)[:, None]
    parts = weight * srft.imitation_and_exploration(logp, advantage, entropy, demonstration, correct)
    close(parts[0].sum(), golden["sft"] + golden["demo"])
    close(parts[1:].sum(), golden["self"])
    close(parts.sum(), golden["total"])
    sft, right = golden["weights"]["0.5"]
    found = torch.autograd.grad(parts.sum(), logp)[0][:, 0]
    close(found, [-sft - math.exp(-4) * 0.57735, -right / 2, -right / 2, 1.0])


def test_without_wrong_responses_srft_only_imitates_and_reinforces():
    mask, entropy = torch.ones(2, 1).bool(), torch.full((2, 1), 0.5)
    demonstration, correct = tensor([True, False]), tensor([True, True])
    assert bool(srft.by_kind(mask, entropy, demonstration, correct).isfinite().all())


def test_srft_gives_a_demonstration_the_entropy_of_the_responses():
    batch = srft.with_demonstrations(Draw({"a": 1, "b": 0}), problems("ab"))
    assert Counter(batch["demonstration"].tolist()) == {False: 16, True: 2}
    assert batch["group"].tolist() == [0] * 8 + [1] * 8 + [0, 1]
    assert bool((batch["sampled_entropy"][batch["mask"]] == 0.5).all())


def test_amft_moves_the_weight_by_entropy_and_by_looking_ahead():
    golden = GOLDEN["amft"]
    rows = amft_controller.beside_demonstrations(Draw({"a": 1, "b": 1}), problems("ab"), responses=2)
    assert rows["group"].tolist() == [0, 0, 2, 2, 1, 3]
    rows = rows.having(weight=grpo.over_responses(rows["mask"]))
    learner = Recorder([golden["validation"], golden["explore"], golden["imitate"]])
    ahead = amft_controller.look_ahead(learner, rows, golden["lr"])
    assert ahead == pytest.approx(golden["ahead"])
    assert [len(batch) for batch, _ in learner.seen] == [2, 2, 2]
    assert learner.seen[2][0]["demonstration"].all()
    mu = amft_controller.balance(golden["mu"], golden["entropy"], golden["target"], ahead)
    close(mu, golden["next"])
    close((1 - mu) * golden["losses"][0] + mu * golden["losses"][1], golden["total"])
    assert amft_controller.balance(0.95, 0.0, 1e3, 0.0) == 0.95
    assert amft_controller.balance(0.05, 1e3, 0.0, 0.0) == 0.05


def test_amft_weighs_each_kind_by_its_own_mean():
    rows = amft_controller.beside_demonstrations(Draw({"a": 1, "b": 1}), problems("ab"), responses=3)
    rows = rows.having(weight=grpo.over_responses(rows["mask"]))
    learner, memories = Recorder([[1.0], [0.0], [1.0]]), {}
    for step in (18, 19):
        call(amft_controller.recipe.update, {"learner": learner, "batch": rows, "step": step}, memories)
    for batch in (learner.seen[0][0], learner.seen[-1][0]):
        shown = batch["demonstration"]
        close(batch["weight"][shown].sum(), 0.8)
        close(batch["weight"][~shown].sum(), 0.2)
    assert len(learner.seen) == 1 + 3 + 1
    assert memories["balanced"] == {"mu": pytest.approx(0.8 - 1e-4 * 1e-5), "target": 0.5}


def test_entropulse_imitates_one_success_of_each_solved_problem_between_two_phases():
    draw, memories, sample = Draw({"a": 2, "b": 0, "c": 1}), {}, entropulse.recipe.sample

    def at(progress, chosen="abc"):
        fields = {"draw": draw, "problems": problems(chosen), "progress": progress, "rng": rng(1)}
        return call(sample, fields, memories)

    first = at(0.55, "b")  # no success yet: the phase is left out
    assert (len(first), bool(first["demonstration"].any())) == (16, False)
    assert len(at(0.1)) == 48
    imitated = at(0.55)
    assert len(draw.asked) == 2
    assert sorted(p.id for p in imitated.problems) == ["a", "c"]
    assert bool(imitated["correct"].all())
    assert bool(imitated["demonstration"].all())
    assert imitated.drawn == 0
    assert len(at(0.7)) == 48


def test_a_rescue_is_only_for_problems_that_nobody_solved():
    golden = GOLDEN["mutual"]
    assert golden["SGT_gate_own=[0,0,0,0],peer_above"] == 1
    assert golden["SGT_gate_own_above"] == 0
    batch = mutual_rl_xgrpo.rescued(Draw({"a": 0, "b": 1}), problems("ab"), responses=4)
    assert [p.id for p, shown in zip(batch.problems, batch["demonstration"].tolist(), strict=True) if shown] == ["a"]
    assert not mutual_rl_xgrpo.rescued(Draw({"b": 1}), problems("b"), responses=4)["demonstration"].any()

    spread = grpo.z_score(batch["score"], batch["group"])
    (credit,) = mutual_rl_xgrpo.sgt.credit
    advantage = credit(groups.spread(spread, batch["mask"]), batch["demonstration"])[:, 0]
    assert advantage[:4].tolist() == [0.0] * 4
    assert advantage[-1] == 1.0
    assert float(advantage[4:8].abs().min()) > 0


def test_peers_join_the_group():
    golden = GOLDEN["mutual"]
    own, pool = tensor(golden["own"]), tensor(golden["own"] + golden["peer"])
    close(grpo.z_score(own, one_group(4)), golden["GRPO_own"])
    close(grpo.z_score(pool, one_group(8)), golden["PRP_pooled"])
    close(grpo.z_score(pool, one_group(8))[:4], golden["XGRPO_own"])


# --- updates -----------------------------------------------------------------------------------------------


class Quadratic:
    """½ Σ h θ², descended by plain gradient steps: a learner with two weights."""

    def __init__(self, h, theta, lr):
        self.h, self.theta, self.lr, self.passes = tensor(h), tensor(theta), lr, 0

    def gradient(self, batch, scale=1.0):
        self.slope, self.passes = self.h * self.theta * scale, self.passes + 1
        return {"loss": 0.0}

    def step(self, lr, clip_norm):
        self.theta = self.theta - self.lr * self.slope
        return {"grad_norm": float(self.slope.norm())}

    def gradients(self):
        return [self.slope.clone()]

    def weights(self):
        return [self.theta.clone()]

    def set_weights(self, weights):
        self.theta = weights[0]
        self.ahead = weights[0].clone()


def test_gxpo_on_a_quadratic():
    golden = GOLDEN["gxpo"]
    close(gxpo.growth(tensor(golden["g0"]), tensor(golden["g1"]), 5), golden["scale"])
    learner = Quadratic(golden["h"], golden["theta0"], golden["lr"])
    gxpo.extrapolated(learner, None, {"on": True, "mean": 1.0, "variance": 1.0})
    close(learner.ahead, golden["ahead"])
    close(learner.theta, golden["theta_final"])
    close(learner.slope, golden["g_slow"])
    assert learner.passes == 3
    learner = Quadratic(golden["h"], golden["theta0"], golden["lr"])
    gxpo.extrapolated(learner, None, {"on": True, "mean": 1.0, "variance": 1.0}, alpha=1.0)
    close(learner.ahead, golden["full"])
    close(learner.ahead, golden["five_steps"])


def test_gxpo_takes_the_sum_where_the_quotient_is_undefined():
    same = tensor([1.0, 0.0, -2.0])
    close(gxpo.growth(same, same, 5), [2.5, 1.0, 2.5])
    close(gxpo.growth(tensor([1.0, 1.0]), tensor([-2.0, 9.0]), 5), [1.0, 3.5])


def test_gxpo_is_off_for_good_after_a_surprise():
    golden, memory, on = GOLDEN["gxpo_gate"], gxpo.recipe.update.start, True
    for norm, (z, mean, sigma, active) in zip(golden["norms"], golden["rows"], strict=True):
        assert on == active
        found, memory = gxpo.surprise(norm, memory, 0.1)
        close([found, memory["mean"], memory["variance"] ** 0.5], [z, mean, sigma])
        on = on and abs(found) < 0.5
    learner, off = Quadratic([1.0, 1.0], [1.0, 2.0], 0.1), {"on": False, "mean": 1.0, "variance": 1.0}
    learner.split = None
    whole = SimpleNamespace(split=lambda pieces: [None])
    _, memory = gxpo.extrapolated(learner, whole, off)
    assert (learner.passes, memory) == (1, off)
    learner = Quadratic([1.0, 1.0], [0.0, 0.0], 0.1)
    gxpo.extrapolated(learner, None, gxpo.recipe.update.start)
    assert learner.passes == 1  # no gradient, nothing to extrapolate


def test_mgda_takes_the_shortest_combination():
    golden = GOLDEN["mgda"]
    for (g1, g2, code, paper), direction in zip(golden["pairs"], golden["directions"], strict=True):
        g = tensor([g1, g2]).float()
        products = g @ g.T
        close(mgda.between(*(float(products[i]) for i in ((0, 0), (0, 1), (1, 1)))), paper)
        close(mgda.between_in_the_code(float(products[0, 0]), float(products[0, 1]), float(products[1, 1])), code)
        alpha = mgda.shortest(products, 250)
        close(alpha[0], paper, atol=1e-4)
        if direction:
            close(alpha @ g, direction, atol=1e-4)
            assert bool((g @ (alpha @ g) > 0).all())  # no task gets worse


def test_mgda_of_three_tasks_is_as_short_as_a_search_finds():
    g = torch.randn(3, 4, generator=rng(2))
    alpha = mgda.shortest(g @ g.T, 250)
    grid = [tensor([a, b, 1 - a - b]) for a in torch.linspace(0, 1, 41) for b in torch.linspace(0, 1, 41) if a + b <= 1]
    best = min(float((w @ g).norm()) for w in grid)
    assert float((alpha @ g).norm()) <= best + 1e-3
    close(alpha.sum(), 1.0)


def test_mgda_weighs_the_tasks_of_a_batch():
    rows = batch_of(problems("ab") * 2, [True] * 4)
    rows = rows.having(weight=plain.over_tokens(rows["mask"]))
    learner = Recorder([[1.0, 0.0], [0.0, 2.0]])
    mgda.common_descent(learner, rows)
    (first, scale), (second, _), (whole, _) = learner.seen
    assert (first.problems[0].level, second.problems[0].level, scale) == (0, 1, 2.0)
    close(whole["weight"].sum(1), [0.4, 0.1, 0.4, 0.1])


# --- objectives --------------------------------------------------------------------------------------------


def test_papo_terms():
    golden = GOLDEN["papo"]
    logp = tensor([golden["logp"]]).requires_grad_()
    blind = tensor([golden["blind"]]).requires_grad_()
    close(-papo.perception_in_the_code(logp, blind, gamma=1.0)[0], golden["code"])
    close(papo.perception_in_the_code(logp, blind).mean(), golden["term"])
    close(-papo.perception(logp, blind, gamma=1.0)[0], golden["paper"])
    close(papo.double_entropy(logp, blind, seeing=1.0, blind=0.0).mean(), golden["entropy"])
    close(papo.double_entropy(logp, blind, seeing=0.0, blind=1.0).mean(), golden["blind_entropy"])


def test_papo_makes_the_seen_prompt_matter():
    """Both forms push π up where the prompt helped; only the paper's pushes π_mask."""
    logp, blind = tensor([[-0.5, -3.0]]).requires_grad_(), tensor([[-1.5, -1.0]]).requires_grad_()
    for part, moves_blind in ((papo.perception, True), (papo.perception_in_the_code, False)):
        up, other = torch.autograd.grad(part(logp, blind).sum(), [logp, blind], allow_unused=True)
        assert (up[0, 0] < 0, up[0, 1] > 0) == (True, True)
        assert (other is not None) == moves_blind
    (entropy,) = torch.autograd.grad(papo.double_entropy(logp, blind).sum(), blind)
    close(entropy, [[-0.03, -0.03]])


def test_quark_imitates_the_best_quarter():
    golden = GOLDEN["quark"]
    reward = tensor(golden["reward"])
    assert alpacafarm_ppo.chunk(reward, 4).tolist() == golden["chunks"]
    assert alpacafarm_ppo.best_chunk(reward).nonzero()[:, 0].tolist() == golden["kept"]
    assert alpacafarm_ppo.chunk(torch.arange(10.0), 4).tolist() == [3, 3, 3, 3, 2, 2, 1, 1, 0, 0]
    assert alpacafarm_ppo.chunk(torch.arange(3.0), 4).tolist() == [2, 1, 0]


def test_poise_targets_baselines_and_advantages():
    for case in (GOLDEN["poise"]["two"], GOLDEN["poise"]["three"]):
        reward, forecast, group = tensor(case["reward"]).float(), tensor(case["forecast"]), tensor(case["group"])
        close(poise.of_the_others(reward, group), case["target"])
        close(poise.of_the_others(forecast, group), case["baseline"])
        close(reward - poise.of_the_others(forecast, group), case["A"])


def test_a_baseline_from_another_response_leaves_the_gradient_as_it_is():
    golden, p = GOLDEN["poise"]["bias"], 0.3
    forecast, chance = {1: 0.8, 0: 0.1}, {1: p, 0: 1 - p}
    pairs = list(itertools.product((1, 0), repeat=2))
    true = sum(chance[y] * y * (y - p) for y in chance)
    same = sum(chance[y] * (y - forecast[y]) * (y - p) for y in chance)
    crossed = 0.0
    for pair in pairs:
        baseline = poise.of_the_others(tensor([forecast[y] for y in pair]), one_group(2))
        crossed += chance[pair[0]] * chance[pair[1]] * (pair[0] - float(baseline[0])) * (pair[0] - p)
    close([true, same, crossed], [golden["true"], golden["same"], golden["other"]])


def test_poise_learns_to_forecast_from_states():
    memories, group, n = {}, torch.arange(32).repeat_interleave(2), 64
    part = Remembers(partial(poise.own_states, bootstrap=4, alpha=1e-3), start={"steps": 0})
    for step in range(6):
        noise = rng(step)
        value = torch.rand(32, generator=noise).repeat_interleave(2)
        reward = (torch.rand(n, generator=noise) < value).float()
        states = torch.stack([value, torch.rand(n, generator=noise)], 1)
        fields = {"reward": reward, "group": group, "prompt_state": states, "response_state": states,
                  "sampled_entropy": torch.zeros(n, 3), "mask": torch.ones(n, 3).bool()}  # fmt: skip
        found = call(part, fields, memories)
        plain_loo = reward - poise.of_the_others(reward, group)
        if step < 4:
            close(found, plain_loo)
    assert float(found.var()) < float(plain_loo.var())
    assert float((found - (reward - value)).abs().mean()) < 0.15
    assert memories["own_states"]["steps"] == 6
    assert len(memories["own_states"]["target"]) == 6 * n
