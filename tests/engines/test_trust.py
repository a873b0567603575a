"""Pickles and the code of a model directory: never unasked; by name they open, and a run remembers that they may."""

import io
import json
import shutil
import sys

import pytest
import torch

from tests.test_fuzz import main
from tests.test_train import metrics
from whet.engines.local import LocalEngine
from whet.evaluate import _cache
from whet.export import export
from whet.models import load, lora, memory, tiny
from whet.models.setup import Setup
from whet.prepare import Run
from whet.refusal import Refused
from whet.tasks import Problem
from whet.tasks.digits import Digits
from whet.train import resume_run, start_run

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({mark!r}).write_text("ran")

class MineConfig(LlamaConfig):
    model_type = "mine"

class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
"""
TOKENIZER_CODE = """
from transformers import PreTrainedTokenizerFast

class MineTokenizer(PreTrainedTokenizerFast):
    pass
"""


def pickled(folder):
    """A micro model whose weights are in pytorch_model.bin."""
    model, tokenizer = tiny.micro(0)
    tiny.save((model, tokenizer), folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def edited(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def with_code(folder, mark):
    """A micro model of an architecture that stands in its own directory, and so does its tokenizer."""
    tiny.save(tiny.micro(0), folder)
    (folder / "mine.py").write_text(CODE.format(mark=str(mark)))
    (folder / "words.py").write_text(TOKENIZER_CODE)
    edited(
        folder / "config.json", model_type="mine", architectures=["MineForCausalLM"],
        auto_map={"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.MineForCausalLM"},
    )  # fmt: skip
    edited(
        folder / "tokenizer_config.json", tokenizer_class="MineTokenizer",
        auto_map={"AutoTokenizer": [None, "words.MineTokenizer"]},
    )  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def own_modules(tmp_path, monkeypatch):
    """Where transformers copies the code of directories to."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "stdin", io.StringIO("12\n"))
    yield
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]


@pytest.fixture(params=["pickle", "code"])
def unusual(request, tmp_path):
    """A directory of each kind, and the setup that trusts it."""
    if request.param == "pickle":
        return pickled(tmp_path / "model"), Setup(allow_pickle=True)
    return with_code(tmp_path / "model", tmp_path / "mark"), Setup(trust_remote_code=True)


def test_neither_is_opened_unasked_and_the_sentence_names_the_option(unusual, tmp_path):
    folder, setup = unusual
    option = "--allow-pickle" if setup.allow_pickle else "--trust-remote-code"
    for other in (Setup(), Setup(allow_pickle=not setup.allow_pickle, trust_remote_code=setup.allow_pickle)):
        with pytest.raises(Refused, match=f"add {option}") as refusal:
            LocalEngine.load(folder, setup=other)
        assert "\n" not in str(refusal.value)
    assert not (tmp_path / "mark").exists()


def test_asked_for_by_name_it_has_the_numbers_of_the_same_model_in_safetensors(unusual, tmp_path):
    folder, setup = unusual
    tiny.save(tiny.micro(0), tmp_path / "plain")
    plain, mine = LocalEngine.load(tmp_path / "plain"), LocalEngine.load(folder, setup=setup)
    problems = [Problem("a", "12", ""), Problem("b", "abc", "")]
    one, other = (engine.sample(problems, [2, 2], max_tokens=4, seed=0) for engine in (plain, mine))
    assert one.texts == other.texts
    assert torch.equal(one["sampled_logp"], other["sampled_logp"])
    assert memory.parameters(folder) == memory.parameters(tmp_path / "plain") > 0


def test_a_run_remembers_it_and_goes_on_and_is_exported_without_being_asked_again(unusual, tmp_path):
    folder, setup = unusual
    rows = [{"prompt": p.prompt, "answer": p.answer} for p in Digits().train()]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = Run(
        task=str(tmp_path / "mine.jsonl"), model=str(folder), steps=4, save_every=2, eval_samples=2, out=str(tmp_path),
        name="whole", setup=setup, options={"max_tokens": 4}, settings={"update.lr": "0.01"},
    )  # fmt: skip
    whole = start_run(run)
    shutil.copytree(whole.folder, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "checkpoints" / "step-000004")
    again = resume_run("half", str(tmp_path))
    assert metrics(again) == metrics(whole)
    assert again.about["run"]["setup"]["allow_pickle"] == setup.allow_pickle
    assert again.about["run"]["setup"]["trust_remote_code"] == setup.trust_remote_code
    place = export(again, tmp_path / "exported")
    kept = Setup(trust_remote_code=setup.trust_remote_code)  # what whet writes is in safetensors
    found = load.model(place, setup=kept)
    assert type(found).__name__ == ("MineForCausalLM" if setup.trust_remote_code else "LlamaForCausalLM")
    assert load.tokenizer(place, kept)("12")["input_ids"]
    assert main("eval", "whole", "--runs", str(tmp_path), "--samples", "1") == 0


def test_the_options_of_the_command_line_open_it(unusual, capsys):
    folder, setup = unusual
    option = "--allow-pickle" if setup.allow_pickle else "--trust-remote-code"
    words = ["--task", "digits", "--model", str(folder)]
    for command in (["check"], ["eval", str(folder), "--samples", "1"], ["chat", str(folder)]):
        mine = words if command == ["check"] else words[:2] if command[0] == "eval" else []
        assert main(*command, *mine) == 2
        assert option in capsys.readouterr().err
        assert main(*command, *mine, option) == 0


def test_adapters_of_a_model_that_was_asked_for_open_and_are_merged(unusual, tmp_path):
    folder, setup = unusual
    run = Run(
        task="digits", model=str(folder), steps=1, eval_samples=1, out=str(tmp_path), name="run",
        setup=Setup(
            lora="r=2", trust_remote_code=setup.trust_remote_code, allow_pickle=setup.allow_pickle
        ),
    )  # fmt: skip
    store = start_run(run)
    assert lora.fingerprint(folder) != lora.fingerprint(tmp_path)
    place = export(store, tmp_path / "exported")
    assert (place / "model.safetensors").is_file()


def test_a_pickle_that_runs_something_does_not_run_even_when_it_is_asked_for(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "mark"), "w"))

    folder = pickled(tmp_path / "model")
    torch.save({**tiny.micro(0)[0].state_dict(), "evil": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(Refused, match="does not open as a causal language model") as refusal:
        LocalEngine.load(folder, setup=Setup(allow_pickle=True))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "mark").exists()


def test_safetensors_are_taken_where_there_are_both(tmp_path):
    folder = pickled(tmp_path / "model")
    tiny.micro(1)[0].save_pretrained(folder)
    found = load.model(folder, setup=Setup(allow_pickle=True))
    assert torch.equal(found.lm_head.weight, tiny.micro(1)[0].lm_head.weight)


def test_other_weights_or_other_code_are_another_start(tmp_path):
    task = Digits()
    folder = pickled(tmp_path / "model")
    found = [_cache(folder, task, 1, "")]
    (folder / "mine.py").write_text("1")
    found.append(_cache(folder, task, 1, ""))
    torch.save(tiny.micro(1)[0].state_dict(), folder / "pytorch_model.bin")
    found.append(_cache(folder, task, 1, ""))
    assert len(set(found)) == 3


def test_adapters_in_a_pickle_are_refused(tmp_path):
    folder = pickled(tmp_path / "model")
    place = tmp_path / "adapters"
    place.mkdir()
    (place / lora.CONFIG).write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    torch.save({}, place / "adapter_model.bin")
    (place / "other.safetensors").write_bytes(b"")
    with pytest.raises(Refused, match="has no adapter_model"):
        load.model(place, setup=Setup(allow_pickle=True))
