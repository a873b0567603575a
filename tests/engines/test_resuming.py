"""Responses drawn in pieces, by the policy of the day; the starting model's responses; where tokens end in a text."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.engines.models import FAMILIES, engine, problems, responses, sampled
from whet.engines import text
from whet.refusal import Refused


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_resumed_response_has_the_probabilities_of_one_drawn_in_one_piece(family):
    mine = engine(family)
    begun = sampled(mine, each=4, max_tokens=3, temperature=0.7)
    whole = mine.resume(begun, max_tokens=4, seed=9)
    assert int(whole["length"].max()) == 7
    torch.testing.assert_close(mine.score(whole, ["old_logp"])["old_logp"], whole["sampled_logp"], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(
        mine.score(whole, ["old_entropy"])["old_entropy"], whole["sampled_entropy"], atol=2e-4, rtol=1e-4
    )


def test_what_was_drawn_stays_and_what_is_finished_grows_no_more():
    mine = engine()
    begun = sampled(mine, each=4, max_tokens=3)
    whole = mine.resume(begun, max_tokens=4, seed=9)
    for before, after, finished in zip(responses(begun), responses(whole), begun["finished"].tolist(), strict=True):
        assert after[: len(before)] == before
        assert len(after) == len(before) if finished else len(after) > len(before)
    ended = [row[-1] in mine.stop for row in responses(whole)]
    assert whole["finished"].tolist() == ended
    assert whole.texts == tuple(text.decoded(mine.tokenizer, responses(whole)))
    assert bool(begun["finished"].any())
    assert not bool(begun["finished"].all())


def test_a_resumed_response_that_does_not_fit_is_refused():
    mine = engine()
    with pytest.raises(Refused, match="more than the 64 tokens"):
        mine.resume(sampled(mine, max_tokens=3), max_tokens=60, seed=1)


def test_the_starting_model_is_sampled_however_far_the_policy_went():
    mine = engine()

    def drawn(reference):
        return mine.sample(problems(), [2] * 5, max_tokens=6, seed=4, reference=reference)["tokens"]

    first = drawn(False)
    with torch.no_grad():
        for x in mine.model.parameters():
            x.mul_(-1.5)
    assert torch.equal(drawn(True), first)
    assert drawn(False).shape != first.shape or not torch.equal(drawn(False), first)


def byte_level(*texts):
    """A tokenizer whose tokens are bytes, and a few merged pairs: most letters with an accent are two tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, special_tokens=["<eos>"])
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


@pytest.mark.parametrize("said", ["3+4 = 7, so the answer", "größer als 日本 é", ""])
def test_tokens_end_where_their_text_ends(said):
    tokenizer = byte_level("the answer is the sum of the numbers, so the answer")
    row = [*tokenizer(said).input_ids, tokenizer.eos_token_id]
    found = text.ends(tokenizer, row)
    assert found[-1] == len(said)
    for i, end in enumerate(found):
        so_far = text.decoded(tokenizer, [row[: i + 1]])[0]
        assert end == len(so_far)
