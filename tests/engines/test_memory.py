"""The estimate is near what a run really takes, and says what would fit where there is too little."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.models import TOKENIZER, build
from whet.models import memory
from whet.models.setup import Setup
from whet.prepare import BASE, Run, prepared, recipe_of
from whet.refusal import Refused

MEASURE = """
import json, os, sys, threading, time
import psutil, torch
from transformers import LlamaConfig, LlamaForCausalLM
from tests.engines.models import TOKENIZER
from whet.engines.local import LocalEngine
from whet.models.setup import Setup
from whet.tasks import Problem
import peft

torch.set_num_threads(1)
setup = Setup(**json.loads(sys.argv[2]))
before = psutil.Process().memory_info().rss
top, going = [before], [True]
def watch():
    while going:
        top[0] = max(top[0], psutil.Process().memory_info().rss)
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
mine = LocalEngine.load(sys.argv[1], "cpu", setup=setup)
batch = mine.sample([Problem("p", "abc" * 10, "")], [32], max_tokens=64, seed=0)
mine.score(batch, ["ref_logp"])
learner = mine.learner(lambda f: -(f["logp"] * f["mask"]).sum(), frozenset({"logp"}))
for _ in range(2):
    learner.gradient(batch)
    learner.step(1e-4, 1.0)
going.clear()
print(top[0] - before)
"""


def built(folder, **shape):
    import transformers as hf

    config = hf.LlamaConfig(
        max_position_embeddings=256, bos_token_id=None, eos_token_id=TOKENIZER.eos_token_id, **shape
    )  # fmt: skip
    hf.LlamaForCausalLM(config).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of 12 million weights: enough to be seen beside the interpreter."""
    return built(
        tmp_path_factory.mktemp("large"), vocab_size=8000, hidden_size=384, intermediate_size=1024,
        num_hidden_layers=4, num_attention_heads=6,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A large vocabulary: the logits of a whole micro-batch would take 0.8 GB, and are never all there."""
    return built(
        tmp_path_factory.mktemp("wide"), vocab_size=100_000, hidden_size=96, intermediate_size=256,
        num_hidden_layers=2, num_attention_heads=4, tie_word_embeddings=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "setup"),
    [
        ("large", {"tokens_at_once": 2048}),
        ("large", {"tokens_at_once": 2048, "recompute": True, "lora": "r=8"}),
        ("wide", {"tokens_at_once": 2048}),
    ],
)
def test_the_estimate_is_within_a_factor_of_two_of_what_a_run_takes(setup, model, request):
    folder = request.getfixturevalue(model)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), json.dumps(setup)], capture_output=True, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    took = float(done.stdout)
    need = memory.estimate(folder, Setup(**setup), rows=32, prompt=30, max_tokens=64).total
    assert 0.5 < need / took < 2.0, f"estimated {need / 1e6:.0f} MB, took {took / 1e6:.0f} MB"


def test_what_is_held_at_once_is_what_the_engine_holds():
    from whet.engines import local

    assert memory.ROWS == local.MAX_ROWS


def test_the_refusal_can_be_overridden(tmp_path, monkeypatch):
    """`--guard.memory=false` begins whatever the estimate says."""
    monkeypatch.setattr(memory, "free", lambda device: 1e6)
    run = Run(task="compose", model=str(BASE), out=str(tmp_path))
    with pytest.raises(Refused, match=r"--guard\.memory=false"):
        prepared(run, recipe_of(run))
    run = replace(run, settings={"guard.memory": "false"})
    task, engine, _ = prepared(run, recipe_of(run))
    assert (task.name, engine.device.type) == ("compose", "cpu")


def test_the_weights_are_counted_without_loading_them(large):
    from whet.models import load

    assert memory.parameters(large) == sum(x.numel() for x in load.model(large).parameters())


FEW = {"rows": 64, "max_tokens": 64}  # so that what is kept for the gradient is more than the cache


def test_each_way_to_need_less_needs_less(large):
    room = [memory.estimate(large, setup, **FEW).total for _, setup in memory._smaller(Setup())]
    assert memory.estimate(large, Setup(), **FEW).total > room[0]
    assert room == sorted(room, reverse=True)
    assert memory.estimate(large, Setup(), needs={"value"}).critic > 0


def test_recorded_steps_keep_their_keys_and_values_while_the_gradient_is_computed(large):
    plain, recorded = (memory.estimate(large, Setup(graph=graph), **FEW) for graph in (False, True))
    held = plain.cache - recorded.cache  # moves from what is gone by then to what stays, in as many slots and widths
    assert plain.graph == 0 < held <= recorded.graph
    assert recorded.total - plain.total >= held


def test_too_little_memory_is_refused_with_what_would_fit(large):
    need = memory.estimate(large, Setup(), **FEW)
    assert memory.refuse_if_short(large, Setup(), room=need.total, **FEW) == need
    with pytest.raises(Refused, match=r"needs about .* GB \(passes .*would fit: --tokens-at-once 512 \(") as caught:
        memory.refuse_if_short(large, Setup(), room=need.total * 0.9, **FEW)
    assert "\n" not in str(caught.value)
    adapters = memory._smaller(Setup())[-1][1]
    with pytest.raises(Refused, match=r"would fit: --tokens-at-once 512 --recompute --dtype bfloat16 --lora r=16 \("):
        memory.refuse_if_short(large, Setup(), room=memory.estimate(large, adapters, **FEW).total, **FEW)
    with pytest.raises(Refused, match="nothing here would fit: take a smaller model"):
        memory.refuse_if_short(large, Setup(), room=1e6)


def test_the_logits_of_a_large_vocabulary_are_never_all_there(large, tmp_path):
    """A model of half a billion weights with Qwen's vocabulary trains with 16 GB: the head speaks in chunks."""
    config = json.loads((large / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 151_936}))
    small, wide = memory.estimate(large, Setup()), memory.estimate(tmp_path, Setup())
    assert wide.passes - small.passes < 2e9


def test_every_architecture_can_be_estimated(tmp_path):
    for family in ("gpt2", "gemma3", "mixtral", "phi3"):
        build(family).save_pretrained(tmp_path / family)
        assert memory.estimate(tmp_path / family, Setup()).total > 0
    assert memory.free("cpu") > 1e6
