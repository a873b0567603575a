"""Whole runs drawn by vLLM: the same learning as with the local engine, and what a user types."""

import json
import subprocess
import sys
from statistics import mean, stdev

import pytest
import torch

from tests.vllm.agree import curve
from tests.vllm.models import pytestmark, wider  # noqa: F401
from tests.vllm.test_gap import small
from whet.engines.local import LocalEngine
from whet.engines.vllm import VLLM
from whet.models import load, tiny
from whet.prepare import BASE, Run
from whet.refusal import Refused
from whet.tasks.shelf import make
from whet.train import resume_run, start_run

T95 = {4: 2.447, 3: 2.776, 2: 4.303}  # Student's t with 2(n - 1) degrees of freedom, two-sided


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    """A model directory for `digits`."""
    place = tmp_path_factory.mktemp("micro")
    one = small()
    tiny.save((one.model, one.tokenizer), place)
    (place / "whet.json").write_text(json.dumps({"lr": 1e-2}))
    return place


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The shipped base, with heads that vLLM knows on a CPU."""
    place = tmp_path_factory.mktemp("base")
    tiny.save((wider(load.model(BASE)), load.tokenizer(BASE)), place)
    (place / "whet.json").write_text(json.dumps({"lr": 1e-3}))
    return place


def learnt(model, task, seed: int, updates: int, served: bool) -> tuple[float, float]:
    """Share of right answers over all updates, and pass@1 on held-out problems behind them."""
    mine = LocalEngine.load(model)
    if served:
        mine.sampler = VLLM(mine)
    run = curve(mine, task, seed, updates)
    return mean(run["right"]), run["held_out"]


def agree(one: list[float], other: list[float]) -> bool:
    """The 95 % interval of the difference of the means holds 0."""
    n = len(one)
    return abs(mean(one) - mean(other)) <= T95[n] * ((stdev(one) ** 2 + stdev(other) ** 2) / n) ** 0.5


def test_digits_is_learnt_as_with_the_local_engine(micro):
    task = make("digits")
    local, vllm = ([learnt(micro, task, seed, 40, served) for seed in range(4)] for served in (False, True))
    print("digits, local and vllm:", local, vllm)
    for one, other in zip(zip(*local, strict=True), zip(*vllm, strict=True), strict=True):
        assert agree(one, other)
        assert abs(mean(one) - mean(other)) < 0.1  # a wide interval alone would agree with anything
    assert min(end for _, end in vllm) > 0.8


def test_compose_level_1_is_learnt_as_with_the_local_engine(base):
    task = make("compose", levels="1")
    local, vllm = ([learnt(base, task, seed, 8, served) for seed in range(3)] for served in (False, True))
    print("compose level 1, local and vllm:", local, vllm)
    for one, other in zip(zip(*local, strict=True), zip(*vllm, strict=True), strict=True):
        assert agree(one, other)
        assert abs(mean(one) - mean(other)) < 0.1
    assert min(end for _, end in vllm) > 0.6  # 0.55 before


def test_the_wider_base_is_the_base():
    narrow = load.model(BASE)
    ids = torch.randint(3, 90, (2, 40), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(wider(narrow)(ids).logits, narrow(ids).logits, atol=1e-4, rtol=1e-4)


def test_a_head_size_that_vllm_has_no_kernel_for_is_refused_by_name():
    if torch.cuda.is_available():
        pytest.skip("a GPU has kernels for heads of 16 numbers")
    with pytest.raises(Refused, match=r"heads of 32, 64.* those of this llama have 16: take the engine local"):
        VLLM(LocalEngine.load(BASE))


def test_a_run_stops_and_goes_on(micro, tmp_path):
    run = Run(task="digits", model=str(micro), steps=3, eval_samples=4, out=str(tmp_path), name="a",
              settings={"engine": "vllm", "engine.publish_every": "2"})  # fmt: skip
    store = start_run(run)
    assert store.state[0] == "finished"
    store = resume_run("a", str(tmp_path), steps=5)
    assert store.about["run"]["settings"]["engine"] == "vllm"
    gaps = store.metrics("sampler_gap")["sampler_gap"][1].tolist()
    assert len(gaps) == 5
    assert gaps[0] < 1e-3 < gaps[1]  # the second batch comes from the policy before the first update


def test_the_commands_train_and_eval_take_the_engine(micro, tmp_path):
    def whet(*words: str) -> str:
        code = "import sys; from whet.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    out = whet("train", "grpo", "--task", "digits", "--model", str(micro), "--engine", "vllm", "--steps", "3",
               "--eval-samples", "4", "--name", "b", "--engine.dtype=bfloat16")  # fmt: skip
    assert "Finished after 3 updates" in out
    assert (tmp_path / "runs" / "b" / "report.html").is_file()
    assert "pass@1" in whet("eval", "b", "--engine", "vllm", "--samples", "4")
