"""The same sequence has the same numbers alone, in any batch, from the sampler and from the learner."""

import pytest
import torch

from tests.engines.models import FAMILIES, PROMPTS, direct_logits, engine, responses, sampled, told
from whet.engines import forward, head
from whet.fields import made_by
from whet.refusal import Refused

families = pytest.mark.parametrize("family", FAMILIES)
close = {"atol": 1e-5, "rtol": 1e-5}


def push_up(fields):
    return -fields["logp"].sum()


@families
def test_scores_are_those_of_the_plain_forward_pass(family):
    mine = engine(family)
    batch = sampled(mine, temperature=0.7)
    scores = mine.score(batch, ["old_logp", "old_entropy", "ref_logp", "value"])
    logp, entropy = [], []
    for prompt, response in zip(batch.prompts, responses(batch), strict=True):
        row = (direct_logits(mine.model, prompt, response) / 0.7).log_softmax(-1)
        logp.append(row.gather(1, torch.tensor(response)[:, None])[:, 0])
        entropy.append(-(row.exp() * row).sum(-1))
    torch.testing.assert_close(scores["old_logp"], told(batch, logp), **close)
    torch.testing.assert_close(scores["old_entropy"], told(batch, entropy), **close)
    assert torch.equal(scores["ref_logp"], scores["old_logp"])
    assert torch.equal(scores["value"], torch.zeros(batch["mask"].shape))
    torch.testing.assert_close(scores["old_logp"], batch["sampled_logp"], **close)


def test_scores_do_not_depend_on_the_batch():
    mine = engine()
    batch = sampled(mine)
    batch = batch.having(temperature=torch.linspace(0.5, 1.5, len(batch)))
    whole = mine.score(batch, ["old_logp", "old_entropy"])
    alone = [mine.score(batch.rows([i]), ["old_logp", "old_entropy"]) for i in range(len(batch))]
    mine.token_budget = 40
    pieces = mine.score(batch, ["old_logp", "old_entropy"])
    for name, x in whole.items():
        torch.testing.assert_close(x, torch.cat([one[name] for one in alone]), **close)
        torch.testing.assert_close(x, pieces[name], **close)


def test_masked_tokens_have_no_score_but_are_read():
    mine = engine()
    batch = sampled(mine)
    whole = mine.score(batch, ["old_logp"])["old_logp"]
    holes = batch["mask"].clone()
    holes[:, 1] = holes[0] = False
    some = mine.score(batch.having(mask=holes), ["old_logp"])["old_logp"]
    torch.testing.assert_close(some, whole * holes, **close)
    nothing = mine.score(batch.having(mask=torch.zeros_like(holes)), ["old_logp", "old_entropy", "value"])
    assert all((x == 0).all() for x in nothing.values())


def test_micro_batches_keep_to_the_budget_and_miss_no_row():
    batch = sampled(engine())
    for budget in (1, 40, 100, 10_000):
        pieces = list(forward.micro_batches(batch, budget, "cpu"))
        assert sorted(i for piece in pieces for i in piece.index.tolist()) == list(range(len(batch)))
        for piece in pieces:
            assert piece.ids.numel() <= budget or len(piece.index) == 1
    lengths = [len(p) + n for p, n in zip(batch.prompts, batch["length"].tolist(), strict=True)]
    assert len(forward.cut(lengths, 10_000, piece=1e9)) == 1  # where one more piece costs more than any padding


def test_the_head_sees_only_what_counts(monkeypatch):
    mine = engine()
    batch = sampled(mine)
    seen, product = [], head._product
    monkeypatch.setattr(head, "_product", lambda *how: seen.append(len(how[-1])) or product(*how))
    mine.score(batch, ["old_logp"])
    assert sum(seen) == int(batch["mask"].sum())


def test_the_reference_stays_at_the_start():
    mine = engine()
    batch = sampled(mine)
    start = mine.score(batch, ["old_logp"])["old_logp"]
    learner = mine.learner(push_up, frozenset({"logp"}))
    for _ in range(2):  # the reference is first asked for after an update
        learner.gradient(batch)
        learner.step(1e-2, 1.0)
        scores = mine.score(batch, ["old_logp", "ref_logp"])
        assert torch.equal(scores["ref_logp"], start)
        assert (scores["old_logp"] - start).abs().max() > 1e-3


def test_the_distance_to_the_start_is_the_k3_estimate():
    mine = engine()
    batch = sampled(mine, each=8)
    assert mine.kl_to_start(batch) == pytest.approx(0, abs=1e-6)
    learner = mine.learner(push_up, frozenset({"logp"}))
    learner.gradient(batch)
    learner.step(1e-3, 1.0)
    scores = mine.score(batch, ["old_logp", "ref_logp"])
    x = scores["old_logp"] - scores["ref_logp"]
    assert mine.kl_to_start(batch, rows=1000) == pytest.approx(
        float((torch.exp(-x) - 1 + x)[batch["mask"]].mean()), rel=1e-3
    )
    nothing_kept = batch.having(mask=torch.zeros_like(batch["mask"]))  # what `keep` narrows does not matter
    assert mine.kl_to_start(nothing_kept) == pytest.approx(mine.kl_to_start(batch))
    assert 0 < mine.kl_to_start(batch, rows=3) < 1
    shown = batch.having(demonstration=torch.arange(len(batch)) >= 4)
    assert mine.kl_to_start(shown) == pytest.approx(mine.kl_to_start(batch.rows(range(4))))
    assert mine.kl_to_start(batch.having(demonstration=torch.ones(len(batch), dtype=torch.bool))) == 0


@families
def test_states_and_certainty_are_those_of_the_plain_forward_pass(family):
    mine = engine(family, token_budget=70)
    batch = sampled(mine, temperature=0.7)
    scores = mine.score(batch, ["old_certainty", "prompt_state", "response_state"])
    certainty, prompts, ends = [], [], []
    for prompt, response in zip(batch.prompts, responses(batch), strict=True):
        logp = (direct_logits(mine.model, prompt, response) / 0.7).log_softmax(-1)
        certainty.append(-logp.mean(-1))
        hidden = mine.model.base_model(torch.tensor([[*prompt, *response]])).last_hidden_state[0].detach()
        prompts.append(hidden[: len(prompt)][-10:].mean(0))
        ends.append(hidden[len(prompt) :][-10:].mean(0))
    torch.testing.assert_close(scores["old_certainty"], told(batch, certainty), **close)
    torch.testing.assert_close(scores["prompt_state"], torch.stack(prompts), **close)
    torch.testing.assert_close(scores["response_state"], torch.stack(ends), **close)


def test_a_blind_row_misses_tokens_of_its_prompt_only():
    batch = sampled(engine())
    rows = forward._lay_out(batch, list(range(len(batch))), batch["length"].tolist(), "cpu")
    masked = forward.blind(rows, token=0)
    hidden = masked.ids != rows.ids
    inside = torch.arange(rows.ids.shape[1]) < rows.prompt[:, None]
    assert not (hidden & ~inside).any()
    assert 0.3 < hidden.sum() / inside.sum() < 0.9
    order = rows.index.argsort()
    assert torch.equal(hidden[order[0]], hidden[order[1]])  # the same prompt misses the same tokens
    again = forward.blind(next(forward.micro_batches(batch.rows([3]), 10_000, "cpu")), token=0)
    width = again.ids.shape[1]
    assert torch.equal(again.ids[0], masked.ids[order[3], :width])


def test_scores_can_be_trained_on():
    mine = engine()
    names = sorted(made_by("scorer"))
    scores = mine.score(sampled(mine), names)
    assert sorted(scores) == names
    assert not any(x.is_inference() or x.requires_grad for x in scores.values())
    assert mine.score(sampled(mine), []) == {}


def test_an_unknown_score_is_refused():
    mine = engine()
    with pytest.raises(Refused, match="cannot score 'teacher_logp'"):
        mine.score(sampled(mine), ["teacher_logp"])


def test_prompts_of_every_length_are_scored():
    assert len({len(prompt) for prompt in PROMPTS}) > 2
