"""Whole runs: the same bits twice, stopped and resumed, on a user's own model, file and judge."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from whet import checkpoints
from whet.models import tiny
from whet.refusal import Refused
from whet.runs.store import Store, find
from whet.train import Run, resume_run, start_run

TIMED = ("seconds", "tokens_per_second")


def metrics(store):
    return {name: (s.tolist(), v.tolist()) for name, (s, v) in store.metrics().items() if name not in TIMED}


def short(out, **more):
    return start_run(Run(**{"task": "digits", "steps": 6, "eval_samples": 8, "eval_every": 3, "out": str(out), **more}))


def weights(store):
    return torch.cat([p.flatten() for p in model_of(store).parameters()])


def model_of(store):
    return AutoModelForCausalLM.from_pretrained(checkpoints.newest(store.folder), local_files_only=True)


def test_the_same_seed_gives_the_same_run_bit_for_bit(tmp_path):
    one, two, other = short(tmp_path / "a"), short(tmp_path / "b"), short(tmp_path / "c", seed=1)
    assert metrics(one) == metrics(two) != metrics(other)
    assert [r for _, r in one.evaluations()] == [r for _, r in two.evaluations()]
    assert torch.equal(weights(one), weights(two))


def test_a_run_learns_and_keeps_everything_that_a_report_needs(tmp_path):
    store = short(tmp_path, steps=40)
    correct = store.metrics()["correct"][1]
    assert correct[-5:].mean() > correct[:5].mean() + 0.3
    steps = {step for step, _ in store.evaluations()}
    assert {0, 3, 40} <= steps
    rows = store.samples(split="train")
    assert {"advantage", "sampled_entropy", "push", "log_ratio"} <= set(rows[0])
    about = store.about
    assert about["status"] == "finished"
    assert {row["address"] for row in about["settings"]} >= {"loss.low", "update.lr"}
    assert all(row["source"] for row in about["settings"])


def test_checkpoints_are_hugging_face_directories(tmp_path):
    store = short(tmp_path)
    place = checkpoints.newest(store.folder)
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    ids = tokenizer("3a", return_tensors="pt")["input_ids"]
    assert model_of(store).generate(ids, max_new_tokens=2, do_sample=False).shape[1] > 2
    assert not list(place.glob("*.bin"))


@pytest.mark.parametrize("recipe", ["grpo", "ppo", "dapo"])
def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path, recipe):
    whole = short(tmp_path / "whole", recipe=recipe, steps=8, save_every=4, eval_every=0)
    half = short(tmp_path / "half", recipe=recipe, steps=4, save_every=4, eval_every=0)
    resumed = resume_run(str(half.folder), steps=8)
    expected, found = metrics(whole), metrics(resumed)
    assert {n: v[0] for n, v in expected.items()} == {n: v[0] for n, v in found.items()}
    assert expected["loss"] == found["loss"]
    assert torch.equal(weights(whole), weights(resumed))


def test_ctrl_c_leaves_a_run_that_can_be_reported_and_resumed(tmp_path):
    command = [sys.executable, "-c", "from whet.cli import main; main()"]
    arguments = [
        "train",
        "grpo",
        "--task",
        "digits",
        "--steps",
        "2000",
        "--eval-samples",
        "4",
        "--runs",
        "runs",
        "--name",
        "r",
    ]
    process = subprocess.Popen(
        [*command, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.time() + 120
    while time.time() < deadline and not _updates(tmp_path / "runs" / "r"):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    store = Store.open(tmp_path / "runs" / "r")
    assert store.about["status"] == "stopped"
    assert "--resume" in said
    assert (tmp_path / "runs" / "r" / "report.html").stat().st_size > 10_000
    done = checkpoints.newest(store.folder).name
    resumed = resume_run("r", str(tmp_path / "runs"), steps=int(done[-6:]) + 2)
    assert resumed.about["status"] == "finished"


def _updates(folder: Path) -> int:
    try:
        return Store.open(folder).steps
    except (Refused, OSError, ValueError):
        return 0


def test_a_full_disk_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path):
    store = short(tmp_path, steps=4, save_every=2)
    before = {path.name: path.stat().st_size for path in checkpoints.newest(store.folder).iterdir()}
    from whet.engines.local import LocalEngine
    from whet.step import State

    model, tokenizer = tiny.micro(0)
    engine = LocalEngine(model, tokenizer)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # no file may grow beyond 20 kB
        with pytest.raises(Refused, match="one before it is whole"):
            checkpoints.write(store.folder, engine, State(_recipe(), step=9), 0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    place = checkpoints.newest(store.folder)
    assert place.name == "step-000004"
    assert {path.name: path.stat().st_size for path in place.iterdir()} == before
    assert [path.name for path in (store.folder / "checkpoints").iterdir() if path.name.startswith(".")] == []


def _recipe():
    from whet import shelf

    return shelf.load("grpo")


# --- the user's own ----------------------------------------------------------------------------------------

JUDGE = """
import time
def mark(reply, worth, mode="strict"):
    return worth * float(reply.strip()[:1] == "1")
"""


@pytest.fixture
def own(tmp_path):
    """A folder as a user would have it: their model, their problems in their words, their judge."""
    tiny.save(tiny.micro(0), tmp_path / "model")
    rows = [{"question": f"{d}{c}", "worth": 1.0, "reference": "1"} for d in range(10) for c in "abcd"]
    (tmp_path / "mine.jsonl").write_text("\n".join(json.dumps({"prompt": r["question"], **r}) for r in rows))
    judge = JUDGE.replace("reply", "response")
    (tmp_path / "my.py").write_text(judge)
    return tmp_path


def run_cli(folder, *words):
    environment = {**os.environ, "COLUMNS": "200", "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-c", "from whet.cli import main; main()", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)


def test_a_users_model_file_and_judge_from_the_command_line(own):
    done = run_cli(
        own, "train", "rloo", "--task", "mine.jsonl", "--judge", "my.py:mark", "--model", "model", "--max-tokens", "4",
        "--steps", "25", "--update.lr=0.01", "--eval-samples", "8", "--eval-every", "0",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "report:" in done.stdout
    store = find("last", own / "runs")
    correct = store.metrics()["correct"][1]
    assert correct[-3:].mean() > correct[:3].mean() + 0.2
    for words in (["runs"], ["samples"], ["report"], ["eval", store.name, "--samples", "4", "--judge", "my.py:mark"]):
        again = run_cli(own, *words)
        assert again.returncode == 0, again.stdout + again.stderr


def test_a_judge_that_fails_too_often_stops_the_run_in_one_sentence(own):
    (own / "my.py").write_text("def mark(response):\n    return float('nan')\n")
    done = run_cli(
        own, "train", "rloo", "--task", "mine.jsonl", "--judge", "my.py:mark", "--model", "model", "--max-tokens", "4",
        "--steps", "25", "--eval-samples", "2",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "could not judge 100%" in done.stdout
    assert "nan" in done.stdout
    assert find("last", own / "runs").about["status"] == "failed"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "gpro"], "no recipe 'gpro'"),
        (["train", "dapo+gspo"], "both set loss"),
        (["train", "grpo", "--loss.hihg=0.3"], "nearest is 'loss.high'"),
        (["train", "grpo", "--loss.high"], "is not a setting"),
        (["train", "grpo", "--budget", "soon"], "write 90s, 2m or 1h"),
        (["train", "grpo", "--task", "compse"], "nearest is 'compose'"),
        (["train", "grpo", "--task", "none.jsonl"], "no file none.jsonl"),
        (["train", "grpo", "--task", "bad.jsonl"], "line 2 of bad.jsonl is not JSON"),
        (["train", "grpo", "--task", "empty.jsonl"], "empty"),
        (
            ["train", "grpo", "--task", "mine.jsonl", "--judge", "my.py:mark", "--model", "nowhere"],
            "no directory nowhere",
        ),
        (
            ["train", "grpo", "--task", "mine.jsonl", "--judge", "my.py:mark", "--model", "Qwen/Qwen3-0.6B"],
            "hf download",
        ),
        (["train", "grpo", "--task", "mine.jsonl", "--judge", "my.py:mrak"], "'mark'"),
        (["train", "grpo", "--task", "digits", "--judge", "my.py:mark"], "for data of your own"),
        (["train", "grpo", "--resume", "nothing"], "no runs"),
        (["show", "gpro"], "no recipe 'gpro'"),
        (["samples", "nothing"], "no runs"),
        (["report"], "run"),
    ],
)
def test_bad_input_gets_one_sentence_and_status_2(own, words, sentence):
    (own / "bad.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "c", answer}\n')
    (own / "empty.jsonl").write_text("\n")
    done = run_cli(own, *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert sentence in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in done.stderr
    assert not (own / "runs").exists()
