"""AdamW in 8 bits: a quarter of the memory, nearly the same steps, and a run that goes on as if never stopped."""

import sys

import pytest
import torch

from tests.engines.models import TOKENIZER, build, engine
from tests.engines.test_learner import WANTED, ready, surrogate
from whet.engines.local import LocalEngine
from whet.refusal import Refused


def large(name):
    """A model with weights of more than the 4096 numbers from which on bitsandbytes takes 8 bits."""
    pytest.importorskip("bitsandbytes")
    import transformers as hf

    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(
        hf.LlamaConfig(
            vocab_size=len(TOKENIZER), hidden_size=96, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=64, bos_token_id=None,
            eos_token_id=TOKENIZER.eos_token_id, pad_token_id=TOKENIZER.pad_token_id,
        )
    ).eval()  # fmt: skip
    return LocalEngine(model, TOKENIZER, lr=1e-3, optimiser_name=name)


def moved(mine, steps=4, batch=None):
    batch = ready(mine) if batch is None else batch
    learner = mine.learner(surrogate, WANTED)
    for _ in range(steps):
        learner.gradient(batch)
        learner.step(None, 1.0)
    return batch


def bytes_of(state):
    return sum(x.numel() * x.element_size() for key, x in state["optimizer"].items() if "qmap" not in key)


def test_eight_bits_take_a_quarter_of_the_memory_and_nearly_the_same_steps():
    exact, mine = large("adamw"), large("adamw_8bit")
    start = [x.detach().clone() for x in exact.parameters]
    batch = moved(exact)
    moved(mine, batch=batch)
    assert bytes_of(mine.state()) < 0.3 * bytes_of(exact.state())
    ways = [
        torch.cat([(x.detach() - y).flatten() for x, y in zip(e.parameters, start, strict=True)]) for e in (exact, mine)
    ]
    assert torch.cosine_similarity(*ways, dim=0) > 0.95
    assert float(ways[1].norm()) == pytest.approx(float(ways[0].norm()), rel=0.1)


def test_a_run_in_eight_bits_goes_on_as_if_never_stopped():
    mine, again = large("adamw_8bit"), large("adamw_8bit")
    batch = moved(mine, 2)
    kept = mine.state()
    again.load_state(kept)
    for one in (mine, again):
        moved(one, 2, batch)
    assert all(torch.equal(x, y) for x, y in zip(mine.parameters, again.parameters, strict=True))
    assert {x.dtype for key, x in kept["optimizer"].items() if "state1" in key} == {torch.uint8, torch.float32}


def test_without_the_library_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(Refused, match=r"needs bitsandbytes: run pip install 'whet\[8bit\]', or take adamw.$"):
        LocalEngine(build(), TOKENIZER, optimiser_name="adamw_8bit")


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(Refused, match="there is no optimiser 'adam': it is adamw or adamw_8bit"):
        engine(optimiser_name="adam")
