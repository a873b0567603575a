"""What is saved comes back bit for bit, and a failure on the way damages nothing."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engines.models import TOKENIZER, build, engine, sampled
from whet.engines.local import LocalEngine
from whet.models import tiny
from whet.refusal import Refused


def loss(fields):
    value = fields["new_value"].sum() * 0.1 if "new_value" in fields else 0.0
    return -(fields["logp"] * fields["mask"]).sum() + value


def train(mine, steps, wanted=frozenset({"logp"}), first=0):
    for step in range(first, first + steps):
        learner = mine.learner(loss, wanted)
        learner.gradient(sampled(mine, max_tokens=4, seed=step))
        learner.step(None, 1.0)


def weights(mine):
    return mine.state()["weights"]


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_a_saved_policy_reloads_bit_for_bit(family, tmp_path):
    mine = engine(family)
    train(mine, 1)
    mine.save(tmp_path / "deep" / "policy")
    again = LocalEngine.load(tmp_path / "deep" / "policy", device="cpu")
    assert same(weights(mine), weights(again))
    assert again.lr == mine.lr
    assert again.path == str(tmp_path / "deep" / "policy")
    assert sampled(again).texts == sampled(mine).texts
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["policy"]


def test_saving_again_replaces_the_earlier_policy(tmp_path):
    mine = engine()
    mine.save(tmp_path / "policy")
    (tmp_path / "policy" / "left over").touch()
    train(mine, 1)
    mine.save(tmp_path / "policy")
    assert same(weights(LocalEngine.load(tmp_path / "policy", device="cpu")), weights(mine))
    assert not (tmp_path / "policy" / "left over").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["policy"]


def test_a_full_disk_leaves_the_earlier_policy(tmp_path, monkeypatch):
    mine = engine()
    mine.save(tmp_path / "policy")
    before = weights(mine)
    train(mine, 1)

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(type(TOKENIZER), "save_pretrained", full)
    with pytest.raises(OSError, match="no space left"):
        mine.save(tmp_path / "policy")
    assert same(weights(LocalEngine.load(tmp_path / "policy", device="cpu")), before)
    assert [file.name for file in tmp_path.iterdir()] == ["policy"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    mine = engine()
    mine.save(tmp_path / "policy")
    before = weights(mine)
    train(mine, 1)
    rename = type(tmp_path).rename

    def refuse(path, target):
        if path.name.endswith(".new"):
            raise OSError("not now")
        return rename(path, target)

    monkeypatch.setattr(type(tmp_path), "rename", refuse)
    with pytest.raises(OSError, match="not now"):
        mine.save(tmp_path / "policy")
    assert same(weights(LocalEngine.load(tmp_path / "policy", device="cpu")), before)
    assert [file.name for file in tmp_path.iterdir()] == ["policy"]


def test_the_card_of_the_model_is_kept(tmp_path):
    tiny.save(tiny.micro(), tmp_path / "base")
    (tmp_path / "base" / "whet.json").write_text('{"lr": 0.003, "knows": "digits"}')
    mine = LocalEngine.load(tmp_path / "base", device="cpu")
    assert mine.lr == 0.003
    mine.save(tmp_path / "policy")
    assert json.loads((tmp_path / "policy" / "whet.json").read_text()) == {"lr": 0.003, "knows": "digits"}


@pytest.mark.parametrize("wanted", [frozenset({"logp"}), frozenset({"logp", "new_value"})])
def test_a_resumed_run_goes_on_as_if_never_stopped(wanted, tmp_path):
    straight, first = engine(), engine()
    train(straight, 3, wanted)
    train(first, 2, wanted)
    flat = {f"{part}|{name}": x for part, xs in first.state().items() for name, x in xs.items()}
    save_file(flat, tmp_path / "state.safetensors")
    state = {"weights": {}, "optimizer": {}}
    for address, x in load_file(tmp_path / "state.safetensors").items():
        part, name = address.split("|")
        state[part][name] = x
    second = engine()
    second.load_state(state)
    batch = sampled(second, seed=9)
    assert second.kl_to_start(batch) == first.kl_to_start(batch) > 0
    train(second, 1, wanted, first=2)
    assert same(weights(second), weights(straight))
    assert same(second.state()["optimizer"], straight.state()["optimizer"])


def test_a_state_is_a_copy():
    mine = engine()
    train(mine, 1)
    state = mine.state()
    before = {name: x.clone() for part in state.values() for name, x in part.items()}
    train(mine, 1)
    assert all(torch.equal(x, before[name]) for part in state.values() for name, x in part.items())


def test_a_state_replaces_all_that_the_engine_remembered():
    fresh, mine = engine(), engine()
    start = mine.state()
    train(mine, 2)
    mine.load_state(start)
    train(mine, 1)
    train(fresh, 1)
    assert same(weights(mine), weights(fresh))


def test_the_state_of_another_model_is_refused():
    with pytest.raises(Refused, match="of another model"):
        engine("llama").load_state(engine("gpt2").state())


def test_bfloat16_computes_small_and_keeps_the_weights_exact():
    exact, mine = engine(), LocalEngine(build(), TOKENIZER, lr=1e-2, dtype="bfloat16")
    batch = sampled(mine, temperature=1.3)
    assert all(p.dtype == torch.float32 for p in mine.model.parameters())
    ours, theirs = (of.score(batch, ["old_logp", "old_entropy", "value"]) for of in (mine, exact))
    for name, x in ours.items():
        assert x.dtype == torch.float32
        torch.testing.assert_close(x, theirs[name], atol=0.3, rtol=0.1)
    assert not torch.equal(ours["old_logp"], theirs["old_logp"])
    train(mine, 1, frozenset({"logp", "new_value"}))
    assert all(p.grad.dtype == torch.float32 for p in mine.model.parameters())


def test_an_unknown_dtype_is_refused():
    with pytest.raises(Refused, match="float32 or bfloat16"):
        engine(dtype="int4")
