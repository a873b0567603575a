"""The chat model that is made from nothing, and what is told of the runs that improve it, on a small scale."""

import json
import shlex

import torch

from examples import showcase
from tests.test_from_outside import whet
from whet.models.chat import Formatter
from whet.runs.store import all_runs
from whet.tasks import compose


def test_the_tokenizer_gives_bytes_back_and_ends_a_turn():
    words = showcase.tokenizer()
    ask = Formatter(words)
    assert len(words) == showcase.VOCABULARY
    assert ask.end_of_turn == words.eos_token_id
    assert words.decode(ask("rot(cab,2)=")) == "<|user|>rot(cab,2)=<|end|><|assistant|>"
    for text in ("Ünïcode 🙂 and\nlines", *(p.prompt + p.answer for p in showcase.problems(1, 50))):
        assert words.decode(ask.plain(text)) == text


def test_the_lessons_are_chats_whose_answers_are_right_and_none_is_held_out():
    words = showcase.tokenizer()
    held = {p.prompt for problems in compose.Compose().evaluation().values() for p in problems}
    for (ids, at), problem in zip(showcase.rows(words, 0, 40, lambda i: 0.0), showcase.problems(0, 40), strict=True):
        assert words.decode(ids[:at]) == f"<|user|>{problem.prompt}<|end|><|assistant|>"
        assert words.decode(ids[at:]) == f"{problem.answer}<|end|>"
        assert problem.prompt not in held


def test_the_large_one_has_twenty_million_weights_of_a_real_architecture():
    with torch.device("meta"):
        made = showcase.model(showcase.tokenizer(), "20m")
    assert made.config.model_type == "qwen3"
    assert 20e6 < made.num_parameters() < 22e6


def test_the_showcase_runs_from_nothing_to_its_page(tmp_path, monkeypatch):
    showcase.base(tmp_path / "made", "2m", examples=128)
    card = json.loads((tmp_path / "made" / "whet.json").read_text())
    assert card["updates"] == 3  # 73 lessons, then 55
    command = shlex.split(showcase.COMMAND.format(folder=tmp_path / "made", engine="local", seed=0))
    short = {"60": "2", "bfloat16": "float32", "--task.count=48": "--task.count=2"}
    assert "Finished after 2 updates" in whet(tmp_path, *(short.get(word, word) for word in command[1:]))
    page = tmp_path / "page.md"
    page.write_text("<!-- showcase -->\n<!-- end of showcase -->\n")
    monkeypatch.setattr(showcase, "PAGE", page)
    monkeypatch.setattr(showcase, "RESULT", tmp_path / "result.json")
    showcase.report(tmp_path / "made-runs")
    [row] = json.loads((tmp_path / "result.json").read_text())["runs"]
    assert (row["engine"], row["seed"], row["updates"], len(row["correct"])) == ("local", 0, 2, 2)
    assert row["sampler_gap_mean"] < 1e-5
    [store] = all_runs(tmp_path / "made-runs")
    assert store.about["run"]["setup"]["lora"] == "r=16"
    assert "| local | 0 |" in page.read_text()


def test_every_update_is_computed_with_the_weights_as_they_are(tmp_path):
    """Autocast keeps copies of the weights unless it is told not to: the first ones would be read for ever."""
    seen = []
    showcase.base(tmp_path, "2m", 64, progress=lambda share: seen.append(torch.is_autocast_cache_enabled()))
    assert seen == [False, False]


def test_the_engines_are_compared_seed_by_seed():
    def run(engine, seed, after):
        return {"engine": engine, "seed": seed, "correct": [0.3] * 10 + [after] * 10, "pass@1": [0.3, after]}

    runs = [run("local", seed, 0.5 + seed / 10) for seed in (0, 1, 2)]
    runs += [run("vllm", seed, 0.52 + seed / 10) for seed in (2, 1, 0)]
    told = showcase.beside(runs)
    assert "| held-out pass@1 after | 60.0 (35.2 to 84.8) | 62.0 (37.2 to 86.8) | +2.0 (+2.0 to +2.0) |" in told
    assert "| pass@1, after less before | +30.0 " in told
    assert showcase.beside(runs[:4]) == ""  # one seed in common
