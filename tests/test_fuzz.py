"""Input that was never meant for us: whatever is typed, filed or loaded, the answer is a result or one sentence."""

import json
import math
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from string import ascii_lowercase, digits, printable

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from whet import cli, shelf
from whet.engines.local import LocalEngine
from whet.models import tiny
from whet.prepare import Run, prepared, recipe_of
from whet.recipe import Recipe, Refused
from whet.settings import settings as settings_of
from whet.settings import with_settings
from whet.tasks import Problem
from whet.tasks.data import Data

QUICK = settings(
    max_examples=60, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
FEW = settings(QUICK, max_examples=25)
NAMES = sorted(shelf.every_recipe())
ODD = st.text(st.sampled_from(printable + "אבגد🙂👩‍👩‍👧\u202e\x00\x07\u0301\ufeff"), max_size=12)
TEXTS = ("שלום", "مرحبا 3", "👩‍👩‍👧‍👦 🙂", "\x00\x01\x1b[31m", "a\u202eb", "\ufeff", "\n\n\t", "x" * 40)


TRIED: Counter[str] = Counter()


@pytest.fixture(autouse=True, scope="module")
def _counted():
    """How many bad inputs were tried, for the table of results."""
    yield
    if "WHET_BAD_INPUTS" in os.environ:
        Path(os.environ["WHET_BAD_INPUTS"]).write_text(json.dumps(TRIED))


def one_sentence(refusal):
    """A refusal that a user can read: not empty, one line."""
    said = str(refusal.value if hasattr(refusal, "value") else refusal)
    assert said.strip(), said
    assert len(said.splitlines()) == 1, said
    return True


def or_refused(kind, work):
    """What `work` returns, or None where it refuses in one sentence; any other error is a failure of the test."""
    TRIED[kind] += 1
    try:
        return work()
    except Refused as refusal:
        one_sentence(refusal)
        return None


# --- recipes and settings ----------------------------------------------------------------------------------


@QUICK
@given(st.lists(st.one_of(st.sampled_from(NAMES), ODD), min_size=1, max_size=4).map("+".join))
@example("grpo+")
@example("+")
@example("a.py:b+grpo")
@example("\x00.py")
def test_any_recipe_expression_is_a_recipe_or_one_sentence(expression):
    found = or_refused("recipe expressions", lambda: shelf.load(expression))
    assert found is None or isinstance(found, Recipe)


@QUICK
@given(st.data())
def test_any_setting_is_set_or_refused_in_one_sentence(data):
    recipe = shelf.load(data.draw(st.sampled_from(NAMES)))
    address = data.draw(st.one_of(st.sampled_from(sorted(settings_of(recipe))), ODD))
    value = data.draw(st.one_of(ODD, st.floats().map(str), st.integers().map(str), st.sampled_from(["none", "True"])))
    found = or_refused("settings", lambda: with_settings(recipe, {address: value}))
    if found is not None:
        numbers = [x for x in settings_of(found).values() if isinstance(x, float)]
        before = [x for x in settings_of(recipe).values() if isinstance(x, float)]
        assert sum(map(math.isfinite, numbers)) >= sum(map(math.isfinite, before))


@QUICK
@given(st.lists(ODD, max_size=5))
def test_any_words_behind_a_command_are_read_or_refused(words):
    or_refused("words of a command", lambda: cli.settings_of(words))


def main(*words):
    """The exit status of the command line, in this process."""
    before, sys.argv = sys.argv, ["whet", *words]
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before
    return 0


@FEW
@given(
    recipe=st.sampled_from(["grpo", "ppo", "eframe", "rloo+dapo", "remax"]),
    address=st.sampled_from([
        "choose.prompts", "sample.responses", "sample.temperature", "update.lr", "update.epochs", "update.minibatches",
        "update.clip_norm", "loss.low", "guard.spike", "guard.check", "guard.unknown",
        "guard.window", "guard.memory", "guard.x",
    ]),
    value=st.sampled_from(["0", "-1", "nan", "inf", "-inf", "1e400", "x", "", "none", "1.5", "2", "true", "🙂"]),
)  # fmt: skip
def test_a_run_with_any_setting_ends_well_or_is_refused_with_status_2(tmp_path, capsys, recipe, address, value):
    runs = tmp_path / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    TRIED["whole runs"] += 1
    status = main(
        "train", recipe, "--task", "digits", "--steps", "1", "--eval-samples", "1", "--eval-every", "0",
        "--runs", str(runs), f"--{address}={value}",
    )  # fmt: skip
    said = capsys.readouterr().err
    assert status in (0, 2), said
    assert "Traceback" not in said
    if status == 2:
        assert said.startswith("whet:"), said
        assert not runs.exists(), list(runs.iterdir())


@pytest.mark.parametrize("words", [
    ("--budget", "nanh"), ("--budget", "1e400h"), ("--model", "x" * 300), ("--sample.temperature=0",),
    ("--guard.unknown=2",), ("--guard.window=0",),
])  # fmt: skip
def test_nonsense_is_refused_before_there_is_a_run(tmp_path, capsys, words):
    TRIED["words of a command"] += 1
    assert main("train", "--task", "compose", "--steps", "1", "--runs", str(tmp_path / "runs"), *words) == 2
    assert capsys.readouterr().err.startswith("whet:")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a\x00b", ".", "🙂", " ", "x" * 300])
def test_a_run_cannot_have_a_name_that_is_no_file_name(tmp_path, capsys, name):
    status = main(
        "train", "grpo", "--task", "digits", "--steps", "1", "--eval-samples", "1", "--eval-every", "0",
        "--runs", str(tmp_path / "runs"), "--name", name,
    )  # fmt: skip
    assert status == (2 if name else 0)  # without a name the run gets one
    assert "Traceback" not in capsys.readouterr().err


def test_what_cannot_change_is_refused_beside_resume_and_what_can_is_taken(tmp_path, capsys):
    begun = ("train", "grpo", "--task", "digits", "--eval-samples", "1", "--eval-every", "0", "--runs", str(tmp_path))
    assert main(*begun, "--steps", "1", "--name", "r") == 0
    again = ("train", "grpo", "--runs", str(tmp_path), "--resume", "r", "--steps", "2")
    for more, sentence in ((("--seed", "3"), "seed cannot change"), (("--name", "s"), "name cannot change")):
        assert main(*again, *more) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
    assert main("train", "ppo", *again[2:]) == 2
    assert main(*again, "--update.lr=0.001") == 0


# --- files -------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ODD),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(ODD, inner, max_size=2),
    max_leaves=4,
)
ROWS = st.dictionaries(st.one_of(st.sampled_from(["prompt", "answer"]), ODD), VALUES, max_size=4)


@QUICK
@given(st.lists(st.one_of(ROWS.map(json.dumps), VALUES.map(json.dumps), ODD), max_size=5), st.booleans())
@example(['{"prompt": "\\ud800", "answer": "1"}', '{"prompt": "b", "answer": "1"}'], False)
@example(['{"prompt": "", "answer": ""}', '{"prompt": " ", "answer": ""}'], False)
@example(['{"prompt": {"\\r": null}}'], False)
@example(["[" * 100_000], False)
@example(['{"prompt": "a", "answer": NaN}', '{"prompt": "b", "answer": 1e999}'], True)
def test_any_jsonl_file_is_a_task_or_one_sentence(tmp_path, lines, feed):
    path = tmp_path / "any.jsonl"
    path.write_bytes(("\r\n" if feed else "\n").join(lines).encode("utf-8", "surrogatepass"))
    task = or_refused("JSONL files", lambda: Data(str(path)))
    if task is not None:
        problems = task.train()
        assert problems
        assert len(task.judge(problems, ["" for _ in problems])) == len(problems)


@FEW
@given(st.binary(max_size=200))
def test_any_bytes_in_a_jsonl_file_are_a_task_or_one_sentence(tmp_path, data):
    path = tmp_path / "any.jsonl"
    path.write_bytes(data)
    or_refused("JSONL files", lambda: Data(str(path)))


# --- tokenizers and models ---------------------------------------------------------------------------------


def byte_level():
    """A tokenizer of bytes, as GPT-2's: anything can be written, and a token may be part of a character."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"<eos>": 0, **{c: i + 1 for i, c in enumerate(alphabet)}}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", model_max_length=64)


def wide(size=200_000):
    """A tokenizer of 200 000 words."""
    words = {"<eos>": 0, "<unk>": 1, **{f"w{i}": i for i in range(2, size)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>", model_max_length=64
    )


def characters():
    tokenizer = tiny.characters(digits + ascii_lowercase)
    tokenizer.model_max_length = 64
    return tokenizer


KINDS = {"byte-level": byte_level, "200 000 words": wide, "characters": characters}


@pytest.fixture(scope="module", params=KINDS)
def loaded(request, tmp_path_factory):
    """An engine from a directory, around each tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    tiny.save(tiny.llama(KINDS[request.param](), hidden=8, layers=1, heads=1, inner=8, seed=0), folder)
    return LocalEngine.load(folder)


@FEW
@given(st.lists(st.one_of(ODD, st.sampled_from(TEXTS), st.text(max_size=20)), min_size=1, max_size=3))
@example([""])
@example(["x" * 1000])
@example(["a", "", "b"])
@example(["\ud800"])
def test_any_prompts_are_answered_or_refused_in_one_sentence(loaded, prompts):
    problems = [Problem(id=str(i), prompt=prompt, answer="") for i, prompt in enumerate(prompts)]
    batch = or_refused("prompts", lambda: loaded.sample(problems, [2] * len(problems), max_tokens=4, seed=0))
    if batch is not None:
        assert len(batch) == 2 * len(prompts)
        assert [len(words) for words in loaded.pieces(batch)] == batch["length"].tolist()
        assert torch.isfinite(loaded.score(batch, ["old_logp"])["old_logp"]).all()


@pytest.fixture
def folder(tmp_path):
    """A sound model directory, to be spoiled."""
    tiny.save(tiny.micro(0), tmp_path / "model")
    return tmp_path / "model"


@FEW
@given(
    file=st.sampled_from(["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "whet.json"]),
    data=st.one_of(st.binary(max_size=60), VALUES.map(lambda value: json.dumps(value).encode())),
)
def test_a_spoiled_model_directory_opens_or_is_refused_in_one_sentence(tmp_path, file, data):
    place = tmp_path / "model"
    shutil.rmtree(place, ignore_errors=True)
    tiny.save(tiny.micro(0), place)
    (place / file).write_bytes(data)
    run = Run(recipe="grpo", task="digits", model=str(place))
    or_refused("model directories", lambda: prepared(run, recipe_of(run)))


@pytest.mark.parametrize(
    ("file", "changes", "status"),
    [
        ("config.json", {"vocab_size": "many"}, 2),
        ("config.json", {"hidden_size": -32}, 2),
        ("config.json", {"text_config": 3}, None),
        ("config.json", {"num_hidden_layers": None}, None),
        ("config.json", [], 2),
        ("config.json", "x", 2),
        ("generation_config.json", {"eos_token_id": "x"}, 2),
        ("generation_config.json", {"eos_token_id": [1, None]}, 2),
        # As Llama 2 has it: transformers reads such a file and does not write it.
        ("generation_config.json", {"do_sample": False, "temperature": 0.9, "top_p": 0.6}, 0),
        ("generation_config.json", {"temperature": -1, "top_p": 7}, 0),
        ("whet.json", {"taught": "x"}, 2),
        ("whet.json", {"taught": [3, None]}, 2),
        ("whet.json", {"taught": ["no task of this name"]}, 2),
    ],
)
def test_a_whole_run_on_a_strange_model_directory_ends_well_or_is_refused(folder, capsys, file, changes, status):
    TRIED["model directories"] += 1
    place = folder / file
    before = json.loads(place.read_text()) if place.is_file() else {}
    place.write_text(json.dumps({**before, **changes} if isinstance(changes, dict) else changes))
    runs = folder.parent / "runs"
    rows = [{"prompt": f"{i}1", "answer": "1"} for i in range(9)]
    (folder.parent / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = main(
        "train", "--model", str(folder), "--task", str(folder.parent / "a.jsonl"), "--runs", str(runs), "--steps", "1",
        "--max-tokens", "2", "--eval-samples", "1", "--eval-every", "0",
    )  # fmt: skip
    said = capsys.readouterr().err
    assert found in ((0, 2) if status is None else (status,)), said
    assert "Traceback" not in said
    if found == 2:
        assert said.startswith("whet:"), said
        assert not runs.exists()


def edited(path: Path, **changes):
    row = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in row.items() if value is not None}))


@pytest.mark.parametrize(
    ("what", "sentence"),
    [("no pad", ""), ("no eos", "names no end token"), ("pickle", "pickled weights are not opened unasked"),
     ("code", "asks for code of its own"), ("lr", "whet.json"), ("vocabulary", "do not match")],
)  # fmt: skip
def test_directories_that_lack_something(folder, what, sentence):
    if what in ("no pad", "no eos"):
        edited(folder / "tokenizer_config.json", **{f"{what[3:]}_token": None})
    if what == "pickle":
        (folder / "model.safetensors").unlink()
        torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
    if what == "code":
        (folder / "evil.py").write_text("raise SystemExit('ran')")
        edited(folder / "config.json", model_type="evil", auto_map={"AutoModelForCausalLM": "evil.Evil"})
    if what == "lr":
        (folder / "whet.json").write_text('{"lr": "fast"}')
    if what == "vocabulary":
        tiny.characters().save_pretrained(folder)
    if not sentence:
        engine = LocalEngine.load(folder)
        assert len(engine.sample([Problem("a", "a1", ""), Problem("b", "b", "")], [1, 1], max_tokens=2, seed=0)) == 2
        return
    with pytest.raises(Refused, match=sentence) as refusal:
        LocalEngine.load(folder)
    assert one_sentence(refusal)
