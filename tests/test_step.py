"""One step with a real model: against the equation by hand, against itself, and where responses are missing."""

import math
from collections import Counter
from functools import partial

import pytest
import torch

from tests.laws.harness import RUN, case
from whet import plain, shelf
from whet.batch import join
from whet.draw import Draw, generator, judged
from whet.engines.local import LocalEngine
from whet.models import tiny
from whet.papers import dapo
from whet.recipe import Remembers, scored
from whet.settings import with_settings
from whet.step import State, objective, selector, step, wanted, weigh
from whet.tasks import Problem, Verdict


class Successor:
    """Answer a digit with the next one; judged by the first character."""

    name, max_tokens, optimum, focus, elsewhere = "successor", 3, 1.0, "held", ()

    def __init__(self, unknown=lambda problem, text: False):
        self.unknown = unknown

    def train(self):
        return [Problem(id=f"{d}{c}", prompt=f"{d}{c}", answer=str((d + 1) % 10)) for d in range(10) for c in "abc"]

    def judge(self, problems, texts):
        return [
            Verdict(None, reason="lost") if self.unknown(p, t) else Verdict(float(t[:1] == p.answer), t[:1] == p.answer)
            for p, t in zip(problems, texts, strict=True)
        ]


def fresh(lr=1e-2) -> LocalEngine:
    model, tokenizer = tiny.micro(0)
    return LocalEngine(model, tokenizer, lr=lr)


def steps(name, count, task=None, engine=None, seed=0, **settings):
    engine, task = engine or fresh(), task or Successor()
    state = State(with_settings(shelf.load(name), settings))
    batches = []
    for _ in range(count):
        state, batch = step(engine, task, task.train(), state, seed)
        batches.append(batch)
    return engine, state, batches


def by_hand(model, reference, batch, epsilon=1e-6, beta=0.04):
    """Eq. 3 of DeepSeekMath on policy: every response by itself, with plain Python for groups."""
    rewards = {}
    for problem, score in zip(batch.problems, batch["score"].tolist(), strict=True):
        rewards.setdefault(problem.id, []).append(score)
    total = torch.zeros(())
    for i, problem in enumerate(batch.problems):
        group = rewards[problem.id]
        mean = sum(group) / len(group)
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / (len(group) - 1))
        advantage = (float(batch["score"][i]) - mean) / (std + epsilon)
        prompt, response = list(batch.prompts[i]), batch["tokens"][i][batch["mask"][i]].tolist()
        ids = torch.tensor([prompt + response])
        where = torch.arange(len(prompt), ids.shape[1])

        def logp(of, ids=ids, where=where):
            return of(input_ids=ids).logits.log_softmax(-1)[0, where - 1, ids[0, where]]

        new, ref = logp(model), logp(reference).detach()
        ratio = torch.exp(new - new.detach())
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        k3 = torch.exp(ref - new) - (ref - new) - 1
        total = total - (surrogate - beta * k3).mean() / len(batch.problems)
    return total


def test_one_step_of_grpo_is_the_equation():
    engine, _, _ = steps("grpo", 1)  # so that the policy is not the reference any more
    before = {name: p.detach().clone() for name, p in engine.model.named_parameters()}
    model, _ = tiny.micro(0)
    model.load_state_dict(before, strict=False)
    reference, _ = tiny.micro(0)
    task, state = Successor(), State(shelf.load("grpo"))

    _, batch = step(engine, task, task.train(), state, seed=5)
    loss = by_hand(model, reference, batch)
    loss.backward()
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters()))
    assert batch.told["loss"] == pytest.approx(loss.item(), abs=1e-6)
    assert batch.told["grad_norm"] == pytest.approx(norm, rel=1e-5)
    expected, found = dict(model.named_parameters()), dict(engine.model.named_parameters())
    scale = min(1.0, 1.0 / norm)
    for name, parameter in expected.items():
        torch.testing.assert_close(found[name].grad, parameter.grad * scale, atol=1e-6, rtol=1e-4)


def test_the_first_optimiser_step_is_adamw_by_hand():
    engine = fresh(lr=1e-2)
    before = {name: p.detach().clone() for name, p in engine.model.named_parameters()}
    engine, _, _ = steps("rloo", 1, engine=engine)
    for name, parameter in engine.model.named_parameters():
        gradient = parameter.grad
        clear = gradient.abs() > 1e-5
        expected = before[name] - 1e-2 * gradient / (gradient.abs() + 1e-8)  # m̂ = g, v̂ = g²
        torch.testing.assert_close(parameter.detach()[clear], expected[clear], atol=1e-6, rtol=0)


def test_the_same_seed_gives_the_same_bits():
    one, two = (steps("grpo", 3, seed=3) for _ in range(2))
    assert [b.told for b in one[2]] == [b.told for b in two[2]]
    for a, b in zip(one[0].model.parameters(), two[0].model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert steps("grpo", 1, seed=4)[2][0].told != one[2][0].told


def test_the_gap_of_a_policy_that_has_moved_is_not_told_as_the_samplers():
    first, later = {"loss": 0.0}, {"loss": 1.0, "sampler_gap": 0.3, "sampler_ess": 0.9}
    assert plain._together([first, later]) == {"loss": 0.5, "ratio_max": 1.0}
    assert plain._together([{"loss": 0.0, "sampler_gap": 1e-6}, later])["sampler_gap"] == 1e-6


def test_mini_batches_make_several_updates_and_keep_the_old_policy():
    _, _, (batch,) = steps("gspo", 1)
    assert "old_logp" in batch.fields
    assert batch.told["ratio_max"] > 1
    assert batch.told["sampler_gap"] < 1e-5  # of the first mini-batch: nothing had moved


def test_fewer_groups_than_mini_batches_keep_the_scale_of_the_batch():
    """The responses to one problem cannot be split, so that two mini-batches of them are one, and no larger."""

    class One(Successor):
        def train(self):
            return super().train()[:1]

    (whole,), (halves,) = (steps("grpo", 1, One(), **{"update.minibatches": n})[2] for n in ("1", "2"))
    assert 0 < halves.told["grad_norm"] == pytest.approx(whole.told["grad_norm"], rel=1e-4)


def test_unknown_responses_do_not_move_the_gradient_of_the_others():
    """The batch in which some responses are unknown is the batch in which they were never drawn."""
    some = Successor(lambda problem, text: problem.id == "3a" or text.startswith("7"))
    engine = fresh()
    problems = some.train()[:12]
    draw = Draw(engine, some, generator(1))
    batch = draw(problems, 8)
    assert batch.unknown == Counter(lost=96 - len(batch))
    assert "3a" not in {p.id for p in batch.problems}
    sizes = Counter(p.id for p in batch.problems)
    everything = Draw(engine, Successor(), generator(1))(problems, 8)
    rows = [
        i for i, (p, t) in enumerate(zip(everything.problems, everything.texts, strict=True)) if not some.unknown(p, t)
    ]
    alone = everything.rows(rows)
    assert sizes == Counter(p.id for p in alone.problems)
    for name in alone.fields:
        assert torch.equal(alone[name], batch[name]), name


def gradients(engine, recipe, batch):
    """The gradient of every weight, from a judged batch to the loss."""
    batch = weigh(recipe, batch.having(**engine.score(batch, scored(recipe))), {**RUN, "rng": generator(0)}, {})
    engine.model.zero_grad()
    engine.learner(objective(recipe), wanted(recipe), selector(recipe, RUN)).gradient(batch)
    return [p.grad.clone() for p in engine.model.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ["grpo", "rloo", "dr_grpo", "reinforce", "gspo", "ppo", "opo"])
def test_the_gradient_with_unknown_responses_is_that_of_the_batch_without_them(name):
    engine, task, recipe = fresh(), Successor(), shelf.load(name)
    sampled = engine.sample(task.train()[:6], [8] * 6, max_tokens=3, seed=5)
    lost = [i for i in range(48) if i % 5 == 2 or i >= 40]  # some of each group, and one whole group
    mixed = [Verdict(float(i % 3), i % 3 > 0) if i not in lost else Verdict(None, reason="x") for i in range(48)]
    kept = [i for i in range(48) if i not in lost]
    without = judged(sampled.rows(kept), [mixed[i] for i in kept])
    found = gradients(engine, recipe, judged(sampled, mixed))
    expected = gradients(engine, recipe, without)
    assert any(bool(x.abs().max() > 1e-4) for x in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)
    as_zero = [Verdict(0.0) if v.score is None else v for v in mixed]
    moved = gradients(engine, recipe, judged(sampled, as_zero))
    assert max(float((a - b).abs().max()) for a, b in zip(moved, expected, strict=True)) > 1e-4


def test_a_step_in_which_every_response_is_unknown_changes_nothing_and_is_counted():
    engine = fresh()
    before = [p.detach().clone() for p in engine.model.parameters()]
    _, state, (batch,) = steps("grpo", 1, task=Successor(lambda p, t: True), engine=engine)
    assert len(batch) == 0
    assert batch.unknown == Counter(lost=256)
    assert state.step == 1
    assert all(torch.equal(a, b) for a, b in zip(before, engine.model.parameters(), strict=True))


def test_a_verdict_of_zero_is_not_unknown():
    batch = judged(case(0).batch, [Verdict(0.0)] * len(case(0).batch))
    assert len(batch) == len(case(0).batch)
    assert not batch.unknown


def test_dynamic_sampling_leaves_only_mixed_groups_and_never_asks_twice():
    task = Successor()
    asked = []

    def draw(problems, responses, temperature):
        asked.extend(p.id for p in problems)
        given = case(len(asked), sizes=(responses,) * len(problems)).batch
        right = torch.tensor([int(p.id[0]) % 2 == 0 and i % 2 == 0 for i, p in enumerate(_rows(problems, responses))])
        from dataclasses import replace

        return replace(given, problems=tuple(_rows(problems, responses))).having(correct=right)

    def _rows(problems, responses):
        return [p for p in problems for _ in range(responses)]

    batch = dapo.until_mixed(draw, task.train()[:10], task.train(), generator(0), responses=4, rounds=3)
    assert len(asked) == len(set(asked))
    assert all(int(p.id[0]) % 2 == 0 for p in batch.problems)
    assert len({p.id for p in batch.problems}) == len(set(batch["group"].tolist())) > 4


def test_joining_batches_pads_and_numbers_groups_anew():
    one, two = case(0, width=5).batch, case(1, width=8).batch
    both = join([one, two])
    assert both["mask"].shape == (len(one) + len(two), 8)
    assert int(both["mask"].sum()) == int(one["mask"].sum() + two["mask"].sum())
    assert int(both["group"].max()) == 3  # the same problem ids: one group each


def test_a_controller_changes_a_named_setting_and_remembers():
    def warmer(metrics, memory, by=0.5):
        return {"sample.temperature": memory + by}, memory + by

    recipe = shelf.load("rloo").with_(control=(Remembers(partial(warmer, by=0.25), start=1.0),))
    engine, task, state = fresh(), Successor(), State(recipe)
    for expected in (1.0, 1.25, 1.5):
        state, batch = step(engine, task, task.train(), state, 0)
        assert float(batch["temperature"][0]) == expected
