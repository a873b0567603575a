"""What is saved changes nothing: the head in chunks, rows without signal left out, pieces cut by cost."""

import pytest
import torch

from tests.engines.models import FAMILIES, build, engine
from tests.engines.test_learner import WANTED, assert_same_gradient, gradient_of, ready, surrogate, with_entropy
from whet import closely
from whet.engines import forward
from whet.engines import head as head_module
from whet.engines.head import Head, Numbers
from whet.engines.precision import GAP
from whet.guards import Watch
from whet.papers import grpo
from whet.refusal import NotFinite, Refused

NAMES = ("logp", "entropy", "certainty")


def plain_numbers(model, hidden, targets, temperature):
    with head_module._saying(model, hidden):
        logits = model(input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[0] / temperature[:, None]
    logp = logits.log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(1, targets[:, None])[:, 0], entropy, logits.logsumexp(-1) - logits.mean(-1)


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("heat", [1.0, 0.7])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_in_chunks_is_the_plain_head_and_so_is_its_gradient(family, heat, chunk):
    model = build(family)
    head = Head(model, chunk)
    weight = head.last.weight
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(7, weight.shape[1], generator=draw, requires_grad=True)
    targets = torch.randint(weight.shape[0], (7,), generator=draw)
    temperature = torch.full((7,), heat)
    pushes = [torch.randn(7, generator=draw) for _ in NAMES]
    expected = plain_numbers(model, hidden, targets, temperature)
    torch.autograd.backward(expected, pushes)
    by_weight, weight.grad = weight.grad, None

    numbers = Numbers(head, hidden, targets, temperature, NAMES[1:], differentiable=True)
    for name, x in zip(NAMES, expected, strict=True):
        torch.testing.assert_close(numbers[name], x.detach(), atol=1e-5, rtol=1e-5)
    by_hidden = numbers.back(dict(zip(NAMES, pushes, strict=True)))
    torch.testing.assert_close(by_hidden, hidden.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weight.grad, by_weight, atol=1e-5, rtol=1e-5)


def test_the_head_holds_no_graph_of_its_weight():
    head = Head(build("llama"))
    assert not head.weight.requires_grad
    assert head.weight.data_ptr() == head.last.weight.data_ptr()


def test_only_gemma_2_does_something_to_its_logits():
    assert {family for family in FAMILIES if not Head(build(family)).linear} == {"gemma2"}


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_chunks_give_the_same_loss_and_gradient(family):
    mine = engine(family)
    batch = ready(mine)
    whole, told, learner = gradient_of(mine, with_entropy, WANTED, batch)
    for chunk in (1, 5, 30):
        mine.chunk = chunk
        pieces, told_again, learner_again = gradient_of(mine, with_entropy, WANTED, batch)
        assert_same_gradient(pieces, whole)
        assert told_again["loss"] == pytest.approx(told["loss"], abs=1e-5)
        torch.testing.assert_close(learner_again.seen["push"], learner.seen["push"], atol=1e-5, rtol=1e-5)


def test_the_head_is_never_asked_for_more_positions_than_a_chunk(monkeypatch):
    mine = engine(chunk=4)
    batch = ready(mine)
    seen, product = [], head_module._product

    def looked_at(one, other, start, into):
        seen.append(len(into))
        product(one, other, start, into)

    monkeypatch.setattr(head_module, "_product", looked_at)
    mine.learner(with_entropy, WANTED).gradient(batch)
    mine.score(batch, ["old_logp", "old_entropy"])
    assert max(seen) == 4


def half_silent(mine):
    batch = ready(mine)
    silent = torch.arange(len(batch)) % 3 == 0
    return batch.having(advantage=batch["advantage"] * ~silent[:, None]), silent


def read_by(mine, objective, wanted, batch, monkeypatch):
    read = []
    with monkeypatch.context() as patch:
        patch.setattr(
            forward, "hidden", lambda m, rows, f=forward.hidden: read.extend(rows.index.tolist()) or f(m, rows)
        )
        found = gradient_of(mine, objective, wanted, batch)
    return sorted(read), found


def test_rows_without_signal_are_not_read_and_the_gradient_is_the_same(monkeypatch):
    mine = engine()
    batch, silent = half_silent(mine)
    read, (fast, told, learner) = read_by(mine, surrogate, WANTED, batch, monkeypatch)
    assert read == (~silent).nonzero()[:, 0].tolist()
    monkeypatch.setattr(type(learner), "_silent", lambda self, batch: torch.zeros(len(batch), dtype=torch.bool))
    read, (slow, told_slow, learner_slow) = read_by(mine, surrogate, WANTED, batch, monkeypatch)
    assert len(read) == len(batch)
    assert_same_gradient(fast, slow)
    assert told["loss"] == pytest.approx(told_slow["loss"], abs=1e-6)
    assert told["clip_fraction"] == told_slow["clip_fraction"]
    torch.testing.assert_close(learner.seen["push"], learner_slow.seen["push"], atol=1e-6, rtol=1e-5)
    unknown = learner.seen["logp"].isnan()
    assert torch.equal(unknown, batch["mask"] & silent[:, None])  # not 0: nobody computed it
    # in another company a response has the same numbers, rounding aside
    torch.testing.assert_close(learner.seen["logp"][~unknown], learner_slow.seen["logp"][~unknown], atol=1e-5, rtol=0)


def test_the_guard_passes_rows_that_were_not_read_and_stops_at_those_that_were():
    mine = engine()
    batch, silent = half_silent(mine)
    watched = Watch(mine, grpo.recipe).learner(surrogate, WANTED)
    watched.gradient(batch)
    assert torch.equal(watched.silent, silent)
    with torch.no_grad():
        mine.model.lm_head.weight[5] = torch.nan
    with pytest.raises(NotFinite, match="log-probability is not finite"):
        watched.gradient(batch)


def test_how_far_a_step_went_is_known_without_reading_every_response():
    mine = engine()
    batch, _ = half_silent(mine)
    learner = mine.learner(surrogate, WANTED)
    learner.gradient(batch)
    slow = closely.step_kl(mine, batch.having(logp=mine.score(batch, ["old_logp"])["old_logp"]))
    assert closely.step_kl(mine, batch.having(logp=learner.seen["logp"])) == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("more", ["penalty", "entropy", "constant", "gradient alone"])
def test_rows_that_a_penalty_still_moves_are_read(more, monkeypatch):
    terms = {
        "penalty": lambda f: (f["weight"] * (f["logp"] - f["sampled_logp"] + 1) ** 2)[f["mask"]].sum(),
        "entropy": lambda f: (f["weight"] * f["entropy"])[f["mask"]].sum(),
        "gradient alone": lambda f: (f["weight"] * (f["logp"] - f["logp"].detach()))[f["mask"]].sum(),
        "constant": lambda f: f["weight"][f["mask"]].sum() + 0 * f["logp"].sum(),
    }
    mine = engine()
    batch, _ = half_silent(mine)
    read, _ = read_by(mine, lambda fields: surrogate(fields) + terms[more](fields), WANTED, batch, monkeypatch)
    assert read == list(range(len(batch)))


def test_a_batch_without_any_signal_moves_the_policy_as_a_gradient_of_zero_does():
    def after(silence):
        mine = engine()
        batch = ready(mine)
        for advantage in (batch["advantage"], batch["advantage"] * 0):
            learner = mine.learner(surrogate, WANTED)
            if not silence:
                learner._silent = lambda batch: torch.zeros(len(batch), dtype=torch.bool)
            learner.gradient(batch.having(advantage=advantage))
            told = learner.step(None, 1.0)
        assert told["grad_norm"] == 0
        return mine.state()["weights"]

    fast, slow = after(True), after(False)
    for name in slow:
        torch.testing.assert_close(fast[name], slow[name], atol=1e-6, rtol=1e-5)


def test_padding_is_below_five_percent_where_lengths_differ_a_lot():
    draw = torch.Generator().manual_seed(0)
    for longest in (96, 2048):
        lengths = (20 + torch.rand(256, generator=draw) ** 2 * longest).long().tolist()
        pieces = forward.cut(lengths, 16384)
        padded = sum(len(piece) * max(lengths[i] for i in piece) for piece in pieces)
        assert sorted(i for piece in pieces for i in piece) == list(range(256))
        assert all(len(piece) * max(lengths[i] for i in piece) <= 16384 for piece in pieces)
        assert 1 - sum(lengths) / padded < 0.05
        assert len(pieces) < 80


def test_wrong_sizes_are_refused_in_one_sentence():
    for wrong in ({"chunk": 0}, {"token_budget": 0}, {"max_rows": -1}):
        with pytest.raises(Refused, match="each is at least 1"):
            engine(**wrong)


def test_bfloat16_is_refused_where_the_processor_is_not_faster_in_it(monkeypatch):
    monkeypatch.setattr("whet.engines.precision.speedup", lambda: 0.34)
    with pytest.raises(Refused, match=r"bfloat16 matrices at 0\.3 times its speed in float32.*take the dtype float32"):
        engine(dtype="bfloat16")


def test_in_bfloat16_the_factors_are_rounded_and_nothing_else():
    draw = torch.Generator().manual_seed(1)
    mine = engine(dtype="bfloat16")
    weight = mine.model.lm_head.weight
    with torch.no_grad():
        weight.mul_(20)  # logits around a hundred, which bfloat16 holds to a half
    hidden = torch.randn(9, weight.shape[1], generator=draw)
    with mine.precision():
        head = Head(mine.model)
    exact = (hidden.bfloat16().float() @ weight.bfloat16().float().T).detach().requires_grad_()
    targets = exact.argsort(1, descending=True)[torch.arange(9), torch.arange(9) % 3]
    numbers = Numbers(head, hidden, targets, torch.ones(9), ("entropy",), differentiable=True)
    logp = exact.log_softmax(1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(numbers["logp"], logp.detach(), atol=2e-3, rtol=2**-8)
    (by_logits,) = torch.autograd.grad(logp.sum(), exact)
    by_hidden = numbers.back({"logp": torch.ones(9)})
    for found, true in ((by_hidden, by_logits @ weight.detach()), (weight.grad, by_logits.T @ hidden)):
        assert found.dtype == torch.float32
        assert float((found - true).norm() / true.norm()) < 0.01


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_in_bfloat16_chunks_lose_no_gradient(family):
    batch = ready(engine(family))
    whole, pieces = (
        gradient_of(engine(family, dtype="bfloat16", chunk=chunk), with_entropy, WANTED, batch)[0]
        for chunk in (None, 5)
    )
    for name in whole:
        assert float((pieces[name] - whole[name]).norm()) <= 0.02 * float(whole[name].norm()), name


def test_in_bfloat16_the_gradient_is_close_to_the_exact_one():
    exact, mine = engine(), engine(dtype="bfloat16")
    batch = ready(exact)
    theirs, _, _ = gradient_of(exact, with_entropy, WANTED, batch)
    ours, _, _ = gradient_of(mine, with_entropy, WANTED, batch)
    assert set(ours) == set(theirs)
    ours, theirs = (torch.cat([of[name].flatten() for name in theirs]) for of in (ours, theirs))
    assert ours.dtype == torch.float32
    assert float(torch.cosine_similarity(ours, theirs, dim=0)) > 0.99


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sampler_and_learner_agree_within_the_bound_that_is_stated(family, dtype):
    mine = engine(family, dtype=dtype)
    told = mine.learner(surrogate, WANTED).gradient(ready(mine, each=8, max_tokens=20))
    assert 0 < told["sampler_gap"] < GAP[mine.dtype], told["sampler_gap"]
