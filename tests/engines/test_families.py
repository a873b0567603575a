"""Every architecture: one step moves what it should, and what is saved opens in transformers with the same bits."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.engines.models import FAMILIES, TOKENIZER, build, engine, sampled
from whet.engines.local import LocalEngine
from whet.models import load
from whet.refusal import Refused

TIED = {"qwen2", "gpt2", "gemma", "gemma2", "gemma3", "qwen3", "lfm2"}


def one_step(mine):
    learner = mine.learner(lambda fields: -(fields["logp"] * fields["mask"]).sum(), frozenset({"logp"}))
    batch = sampled(mine)
    told = learner.gradient(batch)
    moved = {name for name, x in mine.model.named_parameters() if x.grad is not None and x.grad.abs().max() > 0}
    learner.step(3e-3, 1.0)  # at 1e-2 tokens of qwen3_moe go to other experts, and their likelihood jumps
    return batch, told, moved


@pytest.mark.parametrize("family", FAMILIES)
def test_one_step_moves_what_has_a_gradient_and_the_export_has_the_same_bits(family, tmp_path):
    mine = engine(family)
    before = {name: x.detach().clone() for name, x in mine.model.named_parameters()}
    batch, _, moved = one_step(mine)
    changed = {name for name, x in mine.model.named_parameters() if not torch.equal(x, before[name])}
    assert changed == moved
    assert len(moved) >= 0.9 * len(before)  # phi's key biases have none: softmax does not see them
    later = mine.score(batch, ["old_logp", "ref_logp"])
    assert float((later["old_logp"] - later["ref_logp"])[batch["mask"]].mean()) > 0.05  # the step did what it said

    mine.save(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True).eval()
    assert type(again) is type(mine.model)
    theirs = again.state_dict()
    assert set(theirs) == set(mine.model.state_dict())
    assert all(torch.equal(x, theirs[name]) for name, x in mine.model.state_dict().items())
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13]])
    assert torch.equal(again(ids).logits, mine.model(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)("hello12")["input_ids"] == list(
        TOKENIZER("hello12")["input_ids"]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_that_was_tied_stays_tied(family, tmp_path):
    mine = engine(family)
    one_step(mine)
    mine.save(tmp_path)
    for model in (mine.model, mine.reference, load.model(tmp_path)):
        head, embeddings = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        assert (head is embeddings) == (family in TIED)
        assert torch.equal(head, embeddings) == (family in TIED)


def test_an_expert_that_no_token_went_to_stays():
    mine = engine("mixtral")
    experts = mine.model.model.layers[0].mlp
    with torch.no_grad():
        experts.gate.weight.zero_()  # equal routes: the router takes the first two
    before = experts.experts.down_proj.detach().clone()
    one_step(mine)
    changed = (experts.experts.down_proj != before).flatten(1).any(1)
    assert changed.sum() == 2


@pytest.mark.parametrize(
    ("family", "option"), [("gemma2", "final_logit_softcapping"), ("mistral", "sliding_window"), ("gpt_oss", "sinks")]
)
def test_what_an_architecture_adds_is_really_there(family, option):
    """A family whose special part did nothing would pass every other test."""
    model, plain = build(family), build(family)
    ids = torch.tensor([[*range(5, 25)]])
    if option == "sinks":
        for layer in plain.model.layers:
            torch.nn.init.constant_(layer.self_attn.sinks, -1e9)
    else:
        setattr(plain.config, option, None)
        for layer in getattr(plain.model, "layers", ()):
            layer.self_attn.sliding_window = None
    assert (model(ids).logits - plain(ids).logits).abs().max() > 1e-3


def test_quantised_weights_are_refused_by_name(tmp_path):
    build("gpt_oss").save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(Refused, match=r"mxfp4.*dequantize"):
        LocalEngine.load(tmp_path)


def test_a_model_of_encoder_and_decoder_is_refused(tmp_path):
    import transformers as hf

    config = hf.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    hf.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(Refused, match="does not open as a causal language model"):
        load.model(tmp_path)


def test_attention_scores_are_capped_where_the_model_says_so(tmp_path):
    made = build("gemma2")
    made.config.attn_logit_softcapping = 0.1  # small, so that it acts on these weights
    made.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    exact = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True, attn_implementation="eager").eval()
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13]])
    with torch.no_grad():
        assert torch.allclose(load.model(tmp_path)(ids).logits, exact(ids).logits, atol=1e-5)
