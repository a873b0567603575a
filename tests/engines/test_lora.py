"""Adapters, freezing and recomputing: what is trained, what stays, and that the numbers are those of plain training."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.engines.models import FAMILIES, TOKENIZER, build, engine, sampled
from whet.engines.local import LocalEngine
from whet.models import load, lora
from whet.models.setup import Setup
from whet.refusal import Refused


def loss(fields):
    value = 0.1 * fields["new_value"].sum() if "new_value" in fields else 0.0
    return -(fields["logp"] * fields["mask"]).sum() + value


def train(mine, steps=1, wanted=frozenset({"logp"})):
    batch = sampled(mine)
    for _ in range(steps):
        learner = mine.learner(loss, wanted)
        learner.gradient(batch)
        learner.step(1e-2, 1.0)
    return batch


@pytest.fixture
def base(tmp_path):
    return saved("llama", tmp_path / "base")


def saved(family, folder):
    build(family).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def opened(base, **setup):
    torch.manual_seed(0)
    return LocalEngine.load(base, "cpu", setup=Setup(**setup))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "phi", "mixtral", "gpt_oss"])
def test_adapters_alone_are_trained_and_the_reference_is_the_model_without_them(family, tmp_path):
    folder = saved(family, tmp_path / "base")
    mine, plain = opened(folder, lora="r=4"), load.model(folder)
    assert {name for name, x in mine.model.named_parameters() if x.requires_grad} == {
        name for name, _ in mine.model.named_parameters() if "lora_" in name
    }
    start = {name: x.detach().clone() for name, x in mine.model.named_parameters()}
    batch = train(mine, 3)
    moved = {name for name, x in mine.model.named_parameters() if not torch.equal(x, start[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    scores = mine.score(batch, ["old_logp", "ref_logp"])
    fresh = LocalEngine(plain, TOKENIZER).score(batch, ["old_logp"])["old_logp"]
    assert torch.equal(scores["ref_logp"], fresh)
    assert (scores["old_logp"] - fresh).abs().max() > 0.05
    assert mine.reference._model is mine.model  # no second copy
    responses = mine.sample(list(batch.problems[:1]), [4], max_tokens=4, seed=0)
    torch.testing.assert_close(
        responses["sampled_logp"], mine.score(responses, ["old_logp"])["old_logp"], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_adapters_of_all_linear_layers_merge_into_the_base(family, tmp_path):
    mine = opened(saved(family, tmp_path / "base"), lora="r=4")
    batch = train(mine, 2)
    mine.save(tmp_path / "policy")
    again = LocalEngine.load(tmp_path / "policy", "cpu")
    ours, theirs = (of.score(batch, ["old_logp"])["old_logp"] for of in (mine, again))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert (mine.score(batch, ["ref_logp"])["ref_logp"] - theirs).abs().max() > 0.05


def test_adapters_are_saved_in_pefts_format_and_merge_into_the_base(base, tmp_path):
    mine = opened(base, lora="r=4,alpha=16,targets=q_proj|v_proj")
    batch = train(mine, 2)
    mine.save(tmp_path / "policy")
    names = {path.name for path in (tmp_path / "policy").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
    assert not names & {"model.safetensors", "config.json"}
    config = json.loads((tmp_path / "policy" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], set(config["target_modules"])) == (4, 16.0, {"q_proj", "v_proj"})

    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "policy").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(theirs(ids).logits, mine.model(ids).logits)
    again = LocalEngine.load(tmp_path / "policy", "cpu")
    assert not any("lora_" in name for name, _ in again.model.named_parameters())
    ours = (of.score(batch, ["old_logp"])["old_logp"] for of in (mine, again))
    torch.testing.assert_close(*ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wanted", [frozenset({"logp"}), frozenset({"logp", "new_value"})])
def test_a_run_with_adapters_resumes_bit_for_bit_and_keeps_only_what_is_trained(wanted, base):
    straight, first = opened(base, lora="r=4"), opened(base, lora="r=4")
    train(straight, 2, wanted)
    train(first, 2, wanted)
    kept = first.state()
    assert all("lora_" in name or name.startswith("critic.") for name in kept["weights"])
    torch.manual_seed(5)
    second = LocalEngine.load(base, "cpu", setup=Setup(lora="r=4"))
    second.load_state(kept)
    train(straight, 1, wanted)
    train(second, 1, wanted)
    one, two = (of.state()["weights"] for of in (straight, second))
    assert set(one) == set(two)
    assert all(torch.equal(x, two[name]) for name, x in one.items())


def test_adapters_of_another_base_are_refused(base, tmp_path):
    mine = opened(base, lora="r=4")
    train(mine)
    mine.save(tmp_path / "policy")
    config = tmp_path / "policy" / "adapter_config.json"
    text = config.read_text()
    for family, sentence in (("qwen3", "other weights"), ("gpt2", "do not match the model in")):
        other = saved(family, tmp_path / family)
        config.write_text(text.replace(str(base), str(other)))
        with pytest.raises(Refused, match=sentence):
            load.model(tmp_path / "policy")
        (tmp_path / "policy" / "whet.json").unlink(missing_ok=True)  # adapters made elsewhere say nothing of their base
    config.write_text(text.replace(str(base), "/gone"))
    with pytest.raises(Refused, match="belong to the model /gone, which is not there"):
        load.model(tmp_path / "policy")


def test_adapters_whose_base_was_trained_on_since_are_refused(base, tmp_path):
    mine = opened(base, lora="r=4")
    mine.save(tmp_path / "policy")
    load.model(tmp_path / "policy")
    build("llama", seed=1).save_pretrained(base)
    with pytest.raises(Refused, match="trained on other weights"):
        load.model(tmp_path / "policy")


@pytest.mark.parametrize(
    ("typed", "said"),
    [("r=0", "at least 1"), ("rank=4", "not understood at 'rank=4'"), ("r=x", "is a number"),
     ("r=4,targets=nowhere", "no nowhere to adapt; it has .*q_proj")],
)  # fmt: skip
def test_adapters_that_cannot_be_are_refused(base, typed, said):
    with pytest.raises(Refused, match=said):
        opened(base, lora=typed)


def test_adapters_learn_ten_times_faster(base):
    assert opened(base, lora="r=4").lr == pytest.approx(opened(base).lr * lora.FASTER)


def test_in_bfloat16_the_base_is_small_and_the_adapters_are_exact(base):
    mine = opened(base, lora="r=4", dtype="bfloat16")
    kinds = {x.requires_grad: x.dtype for x in mine.model.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    batch = train(mine, 2, frozenset({"logp", "new_value"}))
    assert {x.dtype for x in mine.critic.parameters()} == {torch.float32}
    exact = opened(base).score(batch, ["old_logp"])["old_logp"]
    torch.testing.assert_close(mine.score(batch, ["ref_logp"])["ref_logp"], exact, atol=0.3, rtol=0.1)


def test_what_matches_a_pattern_stays(base):
    mine = opened(base, freeze="*embed*,*.layers.0.*")
    start = {name: x.detach().clone() for name, x in mine.model.named_parameters()}
    batch = train(mine, 2)
    moved = {name for name, x in mine.model.named_parameters() if not torch.equal(x, start[name])}
    assert moved == {name for name in start if "embed" not in name and ".layers.0." not in name}
    assert set(mine.state()["weights"]) == {f"policy.{name}" for name in moved}
    fresh = opened(base).score(batch, ["old_logp"])["old_logp"]
    assert torch.equal(mine.score(batch, ["ref_logp"])["ref_logp"], fresh)
    with pytest.raises(Refused, match=r"matches no trained weight; their names are like .*embed_tokens"):
        opened(base, freeze="*.layers.9.*")
    with pytest.raises(Refused, match="nothing to train"):
        opened(base, freeze="*")


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputing_changes_no_gradient(family):
    plain, mine = engine(family), engine(family)
    Setup(recompute=True).applied(mine.model)
    entered = []
    for layer in mine.model.modules():
        if hasattr(layer, "_gradient_checkpointing_func"):
            before = layer._gradient_checkpointing_func
            layer._gradient_checkpointing_func = lambda *a, f=before, **k: entered.append(1) or f(*a, **k)
    batch = sampled(plain)
    for of in (plain, mine):
        of.learner(loss, frozenset({"logp"})).gradient(batch)
    for (name, x), y in zip(plain.model.named_parameters(), mine.model.parameters(), strict=True):
        assert (x.grad is None) == (y.grad is None), name
        if x.grad is not None:
            assert torch.equal(x.grad, y.grad), name
    assert entered
    assert not any(module.training for module in mine.model.modules())
    count = len(entered)
    assert torch.equal(sampled(mine)["tokens"], batch["tokens"])  # the cache still works
    assert len(entered) == count
