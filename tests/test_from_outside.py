"""What a user does, from a folder of their own: recipes, tasks and judges in plain files, and what comes after."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import torch
from rich.console import Console

from tests.engines import chat
from whet.refusal import Refused
from whet.runs.store import Store

ROOT = Path(__file__).parents[1]

MY_PAPER = '''
"""Mine (2026): the sign of the advantage only.

    A_i = sign(R_i - mean R)
"""

import torch

from whet import groups
from whet.fields import Group, PerResponse
from whet.papers import reinforce
from whet.recipe import Paper


def sign(reward: PerResponse, group: Group, scale: float = 0.5) -> PerResponse:
    """+scale above the mean of the group, -scale below."""
    return scale * torch.sign(reward - groups.mean(reward, group))


recipe = reinforce.recipe.with_(
    name="mine", paper=Paper("Mine", date="2026-01-01"), new="the sign of the advantage", advantage=sign
)
'''
MY_TASK = '''
from dataclasses import dataclass

from whet.tasks import Problem, Verdict


@dataclass(frozen=True)
class Longer:
    """Any response of at least so many characters is right."""

    least: int = 3
    max_tokens: int = 6

    name, optimum, focus, elsewhere = "longer", 1.0, "held_out", ()

    def train(self):
        return [Problem(f"t{i}", str(i), "") for i in range(8)]

    def evaluation(self):
        return {"held_out": [Problem(f"h{i}", str(i) + "x", "") for i in range(3)]}

    def judge(self, problems, texts):
        return [Verdict(float(len(text) >= self.least), len(text) >= self.least) for text in texts]
'''
MY_JUDGE = "def score(response, answer): return 1.0 if answer in response else 0.0\n"
NOTEBOOK = """
from functools import partial
import whet
from whet.papers import grpo
from whet.papers.ppo import clip
from my_task import Longer

report = whet.train(model="model", task=Longer(least=2), recipe=grpo.recipe.with_(loss=partial(clip, high=0.28)),
                    steps=2, eval_samples=4, name="api", settings={"sample.responses": 4})
again = whet.train(resume="api", steps=3, task=Longer(least=2), recipe=grpo.recipe.with_(loss=partial(clip, high=0.28)))
print(repr(again))
page = report._repr_html_()
assert page.startswith("<iframe") and "srcdoc=" in page and "<script" not in page
assert {row["address"]: row["value"] for row in report.store.about["settings"]}["loss.high"] == 0.28
assert len(report.metrics()["reward"][0]) == 3
assert report.samples()
print(report.export("exported"))
try:
    whet.train(resume="api", steps=4)
except whet.Refused as refused:
    print("refused:", refused)
"""


def whet(folder, *words, stdin="", ok=True):
    """The command line in this process, which is faster; what is refused is its sentence."""
    import io

    from whet import cli, commands

    before, said = Path.cwd(), io.StringIO()
    console = Console(file=said, width=200, highlight=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(cli, "out", console)
        patch.setattr(commands, "out", console)
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            cli.app(list(words), standalone_mode=False)
        except Refused as refusal:
            if ok:
                raise
            return str(refusal)
    assert ok
    assert Path.cwd() == before
    return said.getvalue()


def outside(folder, *words):
    """The command line as a user has it, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "from whet.cli import main; main()", *words], cwd=folder, capture_output=True, text=True,
        env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder with a chat model, problems, a recipe, a task and a judge, and one run on them with adapters."""
    folder = tmp_path_factory.mktemp("mine")
    tokenizer = chat.bpe()
    tokenizer.save_pretrained(folder / "model")
    chat.model(tokenizer).save_pretrained(folder / "model")
    (folder / "my_paper.py").write_text(MY_PAPER)
    (folder / "my_task.py").write_text(MY_TASK)
    (folder / "my_judge.py").write_text(MY_JUDGE)
    rows = [{"prompt": f"what is {i % 9}?", "answer": "e"} for i in range(12)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = _first(folder)
    return folder, said


def _first(folder):
    tracking = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(folder / "trackio"), "WANDB_SILENT": "true"}
    os.environ.update(tracking)
    try:
        return outside(
            folder, "train", "my_paper.py", "--task", "problems.jsonl", "--judge", "my_judge.py:score",
            "--model", "model", "--lora", "r=4", "--system", "the answer", "--steps", "2", "--max-tokens", "6",
            "--eval-samples", "4", "--advantage.scale=0.25", "--name", "first", "--track", "tensorboard,wandb,trackio",
        )  # fmt: skip
    finally:
        for name in tracking:
            os.environ.pop(name)


def test_a_users_recipe_model_problems_and_judge_make_a_run(mine):
    folder, said = mine
    assert "mine on problems.jsonl" in said
    assert "note: 3 of the 12 problems repeat an earlier prompt." in said
    about = json.loads((folder / "runs" / "first" / "run.json").read_text())
    assert {row["address"]: row["value"] for row in about["settings"]}["advantage.scale"] == 0.25
    assert about["status"] == "finished"
    rows = Store.open(folder / "runs" / "first").samples(split="train")
    assert rows[0]["prompt"].startswith("<|im_start|>system\nthe answer<|im_end|>\n<|im_start|>user\nwhat is ")
    ended = [row for row in rows if row["pieces"][-1] == "<|im_end|>"]
    assert all(row["mask"][-1] and row["finished"] for row in ended)
    page = (folder / "runs" / "first" / "report.html").read_text()
    assert "the answer\\u003c|im_end|>" in page or "the answer\\u003c|im_end|\\u003e" in page  # the chat is shown


def test_the_trackers_were_told(mine):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = mine
    events = EventAccumulator(str(folder / "runs" / "first" / "tensorboard")).Reload()
    assert [point.step for point in events.Scalars("train/reward")] == [1, 2]
    assert [point.step for point in events.Scalars("held_out/held_out/pass@1")] == [0, 2]
    assert list((folder / "runs" / "first" / "wandb").glob("offline-run-*/*.wandb"))
    database = next((folder / "trackio").glob("*.db"))
    assert b"train/reward" in database.read_bytes() + b"".join(
        p.read_bytes() for p in (folder / "trackio").glob("*.db-wal")
    )


def test_the_run_is_evaluated_exported_with_a_card_and_talked_to(mine):
    from transformers import AutoModelForCausalLM

    folder, _ = mine
    assert "held_out" in whet(folder, "eval", "first", "--samples", "2")
    assert "held_out" in whet(folder, "eval", "model", "--task", "problems.jsonl", "--task.max_tokens=3", "--samples=2")
    whet(folder, "export", "merged", "first")
    assert AutoModelForCausalLM.from_pretrained(folder / "merged", local_files_only=True).config.model_type == "qwen3"
    card = (folder / "merged" / "README.md").read_text()
    for line in ("base_model: \"model\"", "| recipe | `mine`: the sign of the advantage |", "| held_out | pass@1 |",
                 "`advantage.scale` | 0.25", "adapters, r=4", "@misc{", "```bibtex"):  # fmt: skip
        assert line in card, line
    whet(folder, "export", "adapters", "first", "--adapters")
    assert (folder / "adapters" / "adapter_model.safetensors").exists()
    assert "is not empty" in whet(folder, "export", "merged", "first", ok=False)
    answers = whet(folder, "chat", "first", "--max-tokens", "5", stdin="what is 3?\nand 4?\n")
    assert len(answers.splitlines()) >= 2


def test_the_run_is_served_as_a_chat_endpoint(mine):
    folder, _ = mine
    port = 20000 + os.getpid() % 20000
    server = subprocess.Popen(
        [sys.executable, "-c", "from whet.cli import main; main()", "serve", "first", "--port", str(port)],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        named = re.search(r"the model is named (\S+)", server.stdout.readline())
        assert named
        body = {"model": named[1], "max_tokens": 4, "messages": [{"role": "user", "content": "what is 3?"}]}
        said = _post(f"http://127.0.0.1:{port}/v1/chat/completions", body, server)
        assert said["choices"][0]["message"]["role"] == "assistant"
        assert isinstance(said["choices"][0]["message"]["content"], str)
    finally:
        inner = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        server.wait(60)
    assert not any(process.is_running() for process in inner)  # nothing goes on behind its back


def _post(url, body, server, seconds=600):  # a server that imports on a busy machine; a dead one ends it at once
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    deadline = time.time() + seconds
    while True:
        try:
            return json.loads(urllib.request.urlopen(request, timeout=60).read())
        except OSError:
            if time.time() > deadline or server.poll() is not None:
                raise
            time.sleep(0.5)


def readme(heading):
    """The lines of the code block that follows some words of the README."""
    [block] = re.findall(rf"{re.escape(heading)}.*?```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[:1]
    return block.strip().splitlines()


def test_the_three_commands_of_the_readme_work_as_they_stand(tmp_path):
    """Typed into a shell, letter by letter, in an empty folder with a model, problems and a judge.

    Only the length of the training is cut, by options behind the second command.
    """
    from transformers import AutoModelForCausalLM

    commands = readme("**Your own model, problems and judge**")
    assert [line.split()[:2] for line in commands] == [["whet", "check"], ["whet", "train"], ["whet", "export"]]
    place = tmp_path / "path" / "to" / "hf_model"
    tokenizer = chat.bpe()
    tokenizer.save_pretrained(place)
    model = chat.model(tokenizer)
    model.config.max_position_embeddings = 512
    with torch.no_grad():  # the end of a turn is likely, so that responses are short
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("<|im_end|>")] *= 4
    model.save_pretrained(place)
    rows = [{"prompt": f"what is {i}?", "answer": "e"} for i in range(12)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my.py").write_text(MY_JUDGE)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "whet").write_text(f'#!/bin/sh\nexec {sys.executable} -c "from whet.cli import main; main()" "$@"\n')
    (bin_ / "whet").chmod(0o755)
    clean = {"PATH": f"{bin_}:{os.defpath}", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    commands[1] += " --steps 1 --sample.responses=2 --choose.prompts=4 --eval-samples 1"
    said = []
    for command in commands:
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, env=clean)
        assert done.returncode == 0, command + done.stdout + done.stderr
        said.append(done.stdout)
    assert "Finished after 1 updates" in said[1]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "my_model").config.model_type == "qwen3"
    assert "whet" in (tmp_path / "my_model" / "README.md").read_text()


def test_a_users_task_in_a_file_is_trained_and_its_options_are_typed(mine):
    folder, _ = mine
    said = whet(
        folder, "train", "grpo", "--task", "my_task.py:Longer", "--model", "model", "--steps", "1",
        "--eval-samples", "2", "--task.least=2", "--sample.responses=4",
    )  # fmt: skip
    assert "Finished after 1 updates" in said
    assert "has no Shorter" in whet(folder, "train", "grpo", "--task", "my_task.py:Shorter", ok=False)
    assert "no file 'none.py'" in whet(folder, "train", "grpo", "--task", "none.py:X", ok=False)


def test_a_notebook_trains_with_values_and_gets_a_report_that_draws_itself(mine):
    folder, _ = mine
    (folder / "notebook.py").write_text(NOTEBOOK)
    done = subprocess.run(
        [sys.executable, "notebook.py"], cwd=folder, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "api: Finished after 3 updates." in done.stdout
    assert (folder / "exported" / "README.md").exists()
    assert "refused: " in done.stdout  # a recipe that was a value cannot be loaded by its name
