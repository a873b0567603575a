"""Responses come from the model's own distribution, whatever they are computed beside."""

import pytest
import torch

from tests.engines.models import (
    FAMILIES,
    PROMPTS,
    TOKENIZER,
    direct_logits,
    engine,
    problems,
    responses,
    sampled,
    told,
)
from whet.engines import pick, reading, sampler
from whet.engines.pick import Drawing
from whet.fields import FIELDS, made_by
from whet.refusal import Refused

families = pytest.mark.parametrize("family", FAMILIES)


@families
def test_greedy_is_what_transformers_generates(family):
    mine = engine(family)
    batch = mine.sample(problems(), [1] * len(PROMPTS), greedy=True, max_tokens=20, seed=0)
    for prompt, response in zip(batch.prompts, responses(batch), strict=True):
        ids = torch.tensor([prompt])
        theirs = mine.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20)
        assert response == theirs[0, len(prompt) :].tolist()
    assert (batch["temperature"] == 1).all()


@families
def test_sampled_logp_and_entropy_are_those_of_the_plain_forward_pass(family):
    mine = engine(family)
    batch = sampled(mine, temperature=0.7)
    logp, entropy = [], []
    for prompt, response in zip(batch.prompts, responses(batch), strict=True):
        row = (direct_logits(mine.model, prompt, response) / 0.7).log_softmax(-1)
        logp.append(row.gather(1, torch.tensor(response)[:, None])[:, 0])
        entropy.append(-(row.exp() * row).sum(-1))
    torch.testing.assert_close(batch["sampled_logp"], told(batch, logp), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(batch["sampled_entropy"], told(batch, entropy), atol=1e-5, rtol=1e-5)
    assert batch["temperature"].tolist() == pytest.approx([0.7] * len(batch))


@families
def test_a_response_does_not_depend_on_what_is_computed_beside_it(family, monkeypatch):
    mine = engine(family)
    whole = sampled(mine)
    mine.max_rows, mine.token_budget = 3, 12
    monkeypatch.setattr(sampler, "DROP", 1)
    pieces = sampled(mine)
    for name in ("tokens", "mask", "length", "finished", "group"):
        assert torch.equal(whole[name], pieces[name]), name
    torch.testing.assert_close(whole["sampled_logp"], pieces["sampled_logp"], atol=1e-5, rtol=1e-5)


def test_the_cache_with_room_gives_the_same_bits(monkeypatch):
    mine = engine()
    ours = sampled(mine, max_tokens=30)
    monkeypatch.setattr(sampler, "roomy", lambda cache: cache)
    theirs = sampled(mine, max_tokens=30)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.fields)


def test_the_cache_makes_room_again_when_it_is_full(monkeypatch):
    monkeypatch.setattr("whet.engines.cache.BLOCK", 2)
    tight = sampled(engine(), max_tokens=30)
    assert torch.equal(tight["tokens"], sampled(engine(), max_tokens=30)["tokens"])


def test_each_distinct_prompt_is_read_once(monkeypatch):
    read = []
    monkeypatch.setattr(reading, "forward", lambda *a, f=reading.forward: read.append(a[1].shape) or f(*a))
    mine = engine()
    mine.sample(problems("abc", "12", "abc"), [4, 4, 4], max_tokens=1, seed=0)
    assert read == [torch.Size([2, 3])]


def test_tokens_are_drawn_as_often_as_they_are_probable():
    mine, tries = engine(), 20_000
    batch = mine.sample(problems("abc"), [tries], max_tokens=1, temperature=0.8, seed=3)
    probability = (direct_logits(mine.model, batch.prompts[0], [0])[0] / 0.8).softmax(-1)
    counts = torch.bincount(batch["tokens"][:, 0], minlength=len(probability))
    expected = probability * tries
    usual = expected > 5
    chi = ((counts - expected) ** 2 / expected)[usual].sum() / usual.sum()
    assert 0.3 < chi < 1.8  # 1 ± 0.24 for about 35 degrees of freedom


def test_top_p_keeps_the_likeliest_and_renormalises():
    mine, tries = engine(), 5_000
    batch = mine.sample(problems("abc"), [tries], max_tokens=1, top_p=0.5, seed=3)
    probability = direct_logits(mine.model, batch.prompts[0], [0])[0].softmax(-1)
    likely, order = probability.sort(descending=True)
    size = int((likely.cumsum(0) < 0.5).sum()) + 1
    assert size > 1
    kept = torch.zeros_like(probability).index_add(0, order[:size], likely[:size] / likely[:size].sum())
    drawn = batch["tokens"][:, 0]
    assert set(drawn.tolist()) <= set(order[:size].tolist())
    share = torch.bincount(drawn, minlength=len(kept)) / tries
    torch.testing.assert_close(share, kept, atol=0.03, rtol=0)
    torch.testing.assert_close(batch["sampled_logp"][:, 0], kept[drawn].log(), atol=1e-5, rtol=1e-5)
    entropy = -(probability * probability.log()).sum()  # of the untruncated distribution
    torch.testing.assert_close(batch["sampled_entropy"][:, 0], entropy.expand(tries), atol=1e-5, rtol=1e-5)


def test_a_token_without_probability_is_never_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    how = Drawing(temperature=1.0, top_p=1.0, greedy=False, max_tokens=1, stop=(0,), padding=0)
    last = 1 - 2.0**-24  # the largest number that torch.rand gives in float32
    drawn = [int(pick.pick(logits, torch.tensor([u]), how)[0]) for u in (0.0, 0.49, 0.51, last)]
    assert drawn == [1, 1, 3, 3]


def test_greedy_knows_no_temperature():
    mine = engine()
    plain, cold = (sampled(mine, each=1, greedy=True, temperature=t) for t in (1.0, 0.3))
    assert all(torch.equal(plain[name], cold[name]) for name in plain.fields)


def test_lower_temperature_sharpens():
    mine = engine()
    cold, warm = (sampled(mine, temperature=t)["sampled_entropy"][:, 0].mean() for t in (0.3, 1.5))
    assert cold < warm


def test_the_seed_decides():
    mine = engine()
    once, again, other = (sampled(mine, seed=seed) for seed in (5, 5, 6))
    assert all(torch.equal(once[name], again[name]) for name in once.fields)
    assert once.texts != other.texts


def test_sampling_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    sampled(engine())
    assert torch.equal(before, torch.get_rng_state())


def test_the_end_token_belongs_to_the_response():
    mine = engine()
    mine.stop = (
        TOKENIZER.eos_token_id,
        *range(3, 9),
    )  # several, as many chat models have, so that most rows end
    batch = sampled(mine, each=8)
    assert batch["finished"].any()
    assert not batch["finished"].all()
    for response, finished, mask in zip(responses(batch), batch["finished"].tolist(), batch["mask"], strict=True):
        assert (response[-1] in mine.stop) == finished
        assert not set(response[:-1]) & set(mine.stop)
        assert int(mask.sum()) == len(response)
        assert finished or len(response) == 12
    padding = batch["tokens"][~batch["mask"]]
    assert (padding == TOKENIZER.eos_token_id).all()
    assert batch["mask"].shape[1] == int(batch["length"].max())


def test_texts_are_without_special_tokens():
    mine = engine()
    batch = sampled(mine)
    for response, text in zip(responses(batch), batch.texts, strict=True):
        assert text == "".join(TOKENIZER.convert_ids_to_tokens([i for i in response if i > 2]))


def test_every_field_of_the_sampler_is_there_and_can_be_trained_on():
    batch = sampled(engine())
    n, t = len(batch), int(batch["length"].max())
    assert set(batch.fields) == made_by("sampler")
    for name, x in batch.fields.items():
        assert x.shape == ((n, t) if FIELDS[name].shape == "n t" else (n,)), name
        assert x.device.type == "cpu"
        assert not x.is_inference()
    assert batch["group"].tolist() == [i for i in range(len(PROMPTS)) for _ in range(4)]
    assert [problem.id for problem in batch.problems] == [f"p{i}" for i in range(len(PROMPTS)) for _ in range(4)]


def test_problems_may_have_different_numbers_of_responses():
    batch = engine().sample(problems("abc", "1", "zz"), [2, 0, 3], max_tokens=3, seed=0)
    assert [problem.id for problem in batch.problems] == ["p0", "p0", "p2", "p2", "p2"]
    assert batch["group"].tolist() == [0, 0, 1, 1, 1]
    assert len(engine().sample([], [], max_tokens=3, seed=0)) == 0


def test_what_cannot_be_sampled_is_refused_in_one_sentence():
    mine = engine()
    with pytest.raises(Refused, match=r"p0 has 40 tokens.*up to 30.*64 tokens the model can see"):
        mine.sample(problems("a" * 40), [1], max_tokens=30, seed=0)
    with pytest.raises(Refused, match="p0 has no tokens"):
        mine.sample(problems(""), [1], max_tokens=3, seed=0)
    for wrong in ({"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(Refused, match="greedy=True"):
            mine.sample(problems("abc"), [1], max_tokens=3, seed=0, **wrong)
    with torch.no_grad():
        mine.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(Refused, match="not finite"):
        mine.sample(problems("abc"), [1], max_tokens=3, seed=0)


def test_a_written_solution_is_a_response_that_nobody_sampled():
    mine = engine()
    batch = mine.written(problems("abc", "1"), ["12", "hello"])
    assert batch.texts == ("12", "hello")
    assert responses(batch) == [
        [*TOKENIZER("12").input_ids, mine.stop[0]],
        [*TOKENIZER("hello").input_ids, mine.stop[0]],
    ]
    assert batch["finished"].all()
    assert batch["length"].tolist() == [3, 6]
    assert (batch["sampled_logp"] == 0).all()
    assert set(batch.fields) == set(sampled(mine).fields)
    assert (mine.score(batch, ["old_logp"])["old_logp"][batch["mask"]] < 0).all()
    with pytest.raises(Refused, match="more than the 64 tokens"):
        mine.written(problems("abc"), ["z" * 70])


def test_pieces_are_the_tokens_one_by_one():
    mine = engine()
    batch = sampled(mine)
    for pieces, response, text in zip(mine.pieces(batch), responses(batch), batch.texts, strict=True):
        assert len(pieces) == len(response)
        assert "".join(piece for piece in pieces if not piece.startswith("<")) == text


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("vocabulary", [5, 512, 513, 20_000])
def test_the_search_in_two_steps_draws_what_one_running_sum_draws(vocabulary, top_p):
    draw = torch.Generator().manual_seed(vocabulary)
    logits = 4 * torch.randn(40, vocabulary, generator=draw)
    logits[:, ::3] = -torch.inf
    uniform = torch.rand(40, generator=draw)
    token, logp, entropy = pick.pick(logits, uniform, Drawing(0.7, top_p, False, 1, (0,), 0))
    exact = (logits.double() / 0.7).log_softmax(-1)
    kept = pick.nucleus(exact.exp(), top_p) if top_p < 1 else exact.exp()
    running = kept.cumsum(1)
    slow = torch.searchsorted(running, uniform[:, None] * running[:, -1:], right=True)
    assert torch.equal(token, slow[:, 0])
    expected = exact.gather(1, slow)[:, 0] - running[:, -1].log()
    torch.testing.assert_close(logp.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy.double(), torch.special.entr(exact.exp()).sum(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("top_p", [0.1, 0.9, 0.999])
@pytest.mark.parametrize("peaked", [0.1, 1.0, 4.0, 10.0])
def test_the_nucleus_of_a_large_vocabulary_is_that_of_sorting_all_of_it(peaked, top_p):
    draw = torch.Generator().manual_seed(0)
    p = (peaked * torch.randn(6, 20_000, generator=draw)).softmax(1)
    p[3:] = (p[3:] * 2**12).round() / 2**12  # many are equal: the earlier of them is kept
    assert torch.equal(pick.nucleus(p, top_p), pick._nucleus(p, top_p))


def test_the_largest_random_number_draws_a_token_that_has_weight():
    weight = torch.rand(200, 1000, generator=torch.Generator().manual_seed(0))
    weight[:, 700:] = 0
    for last in (1 - 2.0**-24, 0.0):
        token, mass = pick.invert(weight, torch.full((200,), last))
        assert (weight.gather(1, token[:, None]) > 0).all()
        torch.testing.assert_close(mass, weight.double().sum(1))


def test_prompts_of_many_lengths_are_answered_together():
    prompts = [tuple(range(3, 4 + length)) for length in range(1, 60)]
    assert len(sampler.chunks(prompts, rows=512, budget=16384)) == 1
