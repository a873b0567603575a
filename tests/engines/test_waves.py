"""Continuous batching gives the responses of the plain cache, whoever is written beside whom."""

import pytest
import torch

from tests.engines.models import FAMILIES, PROMPTS, engine, problems, sampled
from whet.engines import replaced, sampler, waves

PLAIN = ("gemma2", "gemma3", "lfm2", "mistral", "phi3", "gpt_oss")  # windows, caps, states, sinks


def plainly(monkeypatch):
    monkeypatch.setattr(replaced, "fits", lambda *_: False)


@pytest.mark.parametrize("family", FAMILIES)
def test_waves_write_what_the_plain_cache_writes(family, monkeypatch):
    ours = sampled(engine(family), each=6, max_tokens=30)
    plainly(monkeypatch)
    theirs = sampled(engine(family), each=6, max_tokens=30)
    for name in ("tokens", "mask", "length", "finished"):
        assert torch.equal(ours[name], theirs[name]), name
    for name in ("sampled_logp", "sampled_entropy"):
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 8, 20])
def test_responses_that_wait_for_room_are_the_same(rows, monkeypatch):
    mine = engine(max_rows=rows)
    ours = sampled(mine, each=6, max_tokens=30)
    plainly(monkeypatch)
    theirs = sampled(engine(), each=6, max_tokens=30)
    assert torch.equal(ours["tokens"], theirs["tokens"])
    torch.testing.assert_close(ours["sampled_logp"], theirs["sampled_logp"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_architecture_that_does_not_fit_is_known_by_its_own_layers(family):
    mine = engine(family)
    sampled(mine)
    assert replaced.fits(mine.model) == (family not in PLAIN)


def test_the_model_keeps_its_own_attention():
    mine = engine()
    before = mine.model.config._attn_implementation
    sampled(mine)
    assert mine.model.config._attn_implementation == before


def test_a_new_response_begins_before_the_longest_has_ended(monkeypatch):
    sizes = []
    forward = waves.forward
    monkeypatch.setattr(
        waves, "forward", lambda m, going, *a: sizes.append([w.filled for w in going]) or forward(m, going, *a)
    )
    sampled(engine(max_rows=8), each=8, max_tokens=40)
    assert any(len(filled) > 1 and len(set(filled)) > 1 for filled in sizes)


def test_fewer_steps_are_computed_than_in_turns(monkeypatch):
    def rows_computed(max_rows):
        counted = []
        monkeypatch.setattr(sampler, "counted", lambda where, tokens, *_, **__: counted.append(where == "decode"))
        batch = sampled(engine(max_rows=max_rows), each=24, max_tokens=40)
        return sum(counted), batch

    continuous, ours = rows_computed(16)
    plainly(monkeypatch)
    in_turns, theirs = rows_computed(16)
    assert torch.equal(ours["tokens"], theirs["tokens"])
    assert continuous < 0.8 * in_turns


def test_one_prompt_with_more_responses_than_room_is_answered():
    mine = engine(max_rows=8)
    batch = mine.sample(problems("abc"), [50], max_tokens=20, seed=2)
    whole = engine().sample(problems("abc"), [50], max_tokens=20, seed=2)
    assert torch.equal(batch["tokens"], whole["tokens"])


def test_attention_in_two_parts_is_attention():
    torch.manual_seed(0)
    query, keys, values = torch.randn(5, 4, 3, 8), torch.randn(5, 4, 9, 8), torch.randn(5, 4, 9, 8)
    one, one_total = waves.partial(query, keys[:, :, :6], values[:, :, :6], None, 0.3)
    two, two_total = waves.partial(query, keys[:, :, 6:], values[:, :, 6:], None, 0.3)
    together = torch.lerp(one, two, torch.sigmoid(two_total - one_total)[..., None])
    whole = torch.nn.functional.scaled_dot_product_attention(query, keys, values, scale=0.3)
    torch.testing.assert_close(together, whole, atol=1e-6, rtol=1e-5)
    bias = torch.zeros(5, 1, 1, 9).masked_fill(torch.arange(9) < 2, -torch.inf)
    for hidden in (None, bias):  # the way of other devices, and of a shorter format
        ours, total = waves.partial(query, keys, values, hidden, 0.3)
        theirs, other = waves.by_products(query, keys, values, hidden, 0.3)
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(total, other, atol=1e-6, rtol=1e-5)
        short = [x.bfloat16() for x in (query, keys, values)]
        ours, total = waves.partial(*short, None if hidden is None else hidden.bfloat16(), 0.3)
        torch.testing.assert_close(ours.float(), theirs, atol=0.03, rtol=0.03)
        torch.testing.assert_close(total, other, atol=0.03, rtol=0.03)


def test_responses_are_drawn_in_bfloat16_too(monkeypatch):
    mine = engine(dtype="bfloat16")
    ours = sampled(mine, each=6, max_tokens=30)
    plainly(monkeypatch)
    theirs = sampled(engine(dtype="bfloat16"), each=6, max_tokens=30)
    both = (
        ours["mask"][:, :5]
        & theirs["mask"][:, :5]
        & (ours["tokens"][:, :5] == theirs["tokens"][:, :5]).cumprod(1).bool()
    )
    assert both.float().mean() > 0.5
    gap = (ours["sampled_logp"][:, :5] - theirs["sampled_logp"][:, :5])[both].abs()
    assert 0 < float(gap.max()) < 0.2  # precision.GAP


def test_prompts_of_unequal_length_share_a_wave(monkeypatch):
    assert len({len(prompt) for prompt in PROMPTS}) > 1
    begun = []
    monkeypatch.setattr(sampler, "_begun", lambda *a, f=sampler._begun: begun.append(len(a[2])) or f(*a))
    sampled(engine(), each=4)
    assert begun == [4 * len(PROMPTS)]
