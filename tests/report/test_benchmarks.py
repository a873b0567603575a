"""The benchmark's own parts: a model in another shape is the same function, and the page says what was missed."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def part(monkeypatch):
    """A module of benchmarks/, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in ("work", "page", "turns", "machine"):
        sys.modules.pop(name, None)


def test_the_base_with_larger_heads_is_the_same_function(part, tmp_path, monkeypatch):
    work = part("work")
    monkeypatch.setattr(work, "PLACE", tmp_path)
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (work.BASE, work.padded()))
    assert (before.config.head_dim, after.config.head_dim) == (16, 32)
    ids = torch.randint(2, 99, (3, 80), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(after(input_ids=ids).logits, before(input_ids=ids).logits, atol=2e-4, rtol=1e-4)


def measured(seconds, tokens=100, peak=1000):
    return [{"seconds": s, "tokens": tokens, "peak_mib": peak} for s in seconds]


def test_the_page_says_what_is_reached_and_what_is_missed(part):
    page = part("page")
    rows = {"whet": measured([1, 2, 1]), "generate": measured([3, 5, 2]), "vllm": measured([1, 2, 1.2])}
    machine = {"processor": "one", "instructions": ["avx2"]}
    made = page.made({"machine": machine, "settings": {"CA": {"rows": rows}}})
    faster, same = (line for line in made.splitlines() if line.startswith("| C."))
    assert faster.endswith("| 2.50 (2.00 to 3.00) | at least 2.50 | yes |")
    assert same.endswith("| 1.00 (1.00 to 1.20) | at least 1.30 | **no** |")
    assert "- CA, tokens/s against vLLM on CPU: 1.00 (1.00 to 1.20), at least 1.30 wanted." in made
    assert "generate`: 2" not in made.split("What is missed")[1]


def test_growth_beyond_linear_is_said(part):
    page = part("page")
    rows = {"1x1": measured([1]), "2x1": measured([3], tokens=200), "4x1": measured([4], tokens=400, peak=2000)}
    made = page.made({"machine": {"instructions": []}, "settings": {"E": {"rows": rows}}})
    assert "- E, 2x1: a token takes 1.50 times as long as at 1 × 1." in made
    assert "E, 4x1" not in made
    assert "- E, memory with responses: 1,000 to 2,000 MiB, the same wanted." in made


def test_a_worker_takes_turns_and_one_that_breaks_says_why(part, tmp_path, monkeypatch):
    turns, work = part("turns"), part("work")
    monkeypatch.setattr(work, "PLACE", tmp_path)
    script = tmp_path / "worker.py"
    script.write_text(
        "import work\n"
        "def take(turn):\n"
        "    print('noise')\n"
        "    return {'tokens': [10, 20, 30][turn]}\n"
        "work.take_turns(take)\n"
    )
    with turns.Worker([sys.executable, str(script)], threads=1) as worker:
        assert [worker.turn(i)["tokens"] for i in (1, 2)] == [20, 30]
        with pytest.raises(SystemExit, match="IndexError"):
            worker.turn(3)


def test_a_setting_of_another_machine_says_so(part):
    page = part("page")
    one, other = ({"processor": name, "instructions": ["avx2"]} for name in ("one", "other"))
    rows = {"whet": measured([1]), "trl": measured([7], peak=4000)}
    made = page.made({"machine": one, "settings": {"B": {"rows": rows}, "B16": {"rows": rows, "machine": other}}})
    assert "\nMeasured on another one: B16. It is: processor other; avx2.\n" in made
    assert "B was measured" not in made


def test_both_sides_of_a_setting_compute_in_its_format(part):
    work = part("work")
    assert work.sized("B16").dtype == "bfloat16"
    assert {work.sized(name).dtype for name in work.SETTINGS if name != "B16"} == {"float32"}
    assert {**vars(work.sized("B16")), "dtype": "float32"} == vars(work.sized("B"))
