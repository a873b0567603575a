import json
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from whet.models import base, load, tiny
from whet.models.base import Lessons, lessons, tensors, train_base
from whet.models.muon import Muon, orthogonal
from whet.tasks import compose, countdown
from whet.tasks.splits import held_out
from whet.tasks.strings import FUNCTIONS, TRAINED

SHIPPED = Path(base.__file__).parent / "base"
FEW = Lessons(examples=3000)


@pytest.fixture(scope="module")
def taught():
    return lessons(FEW)


def is_sum(prompt):
    return prompt.endswith(":")


# --- what is taught ----------------------------------------------------------------------------------------


def test_no_lesson_is_held_out_by_a_task(taught):
    splits = {**compose.Compose().evaluation(), **countdown.Countdown().evaluation()}
    held = {problem.prompt for problems in splits.values() for problem in problems}
    sums = {countdown.given(problem) for name, ps in splits.items() if name.startswith("numbers") for problem in ps}
    for prompt, _ in taught:
        assert prompt not in held
        if is_sum(prompt):
            assert countdown.given(compose.Problem(id="", prompt=prompt, answer="")) not in sums
        else:
            assert not held_out(prompt, compose.HELD_OUT_SHARE)


def test_every_function_is_taught_and_only_trained_ones_are_composed(taught):
    names = {True: set(), False: set()}
    for prompt, _ in taught:
        if not is_sum(prompt):
            calls = compose.parsed(prompt)[1]
            assert len(calls) <= 2
            names[len(calls) == 2] |= {call.name for call in calls}
    assert names[False] == set(FUNCTIONS)
    assert names[True] == set(TRAINED)


def test_the_first_lessons_have_no_mistakes_and_the_others_as_many_as_asked():
    taught = lessons(replace(FEW, level2=0.0, level1=1.0))
    first = int(FEW.first * FEW.examples)

    def wrong(rows):
        found = [compose.values(*compose.parsed(prompt))[-1] != response for prompt, response in rows]
        return sum(found) / len(found)

    assert wrong(taught[:first]) == 0
    assert wrong(taught[first:]) == pytest.approx(FEW.noise, abs=0.04)


def test_the_same_seed_gives_the_same_lessons(taught):
    assert lessons(FEW) == taught
    assert lessons(replace(FEW, seed=1)) != taught


def test_only_the_response_and_its_end_count():
    ids, labels = tensors([([5, 6, 7, 1], 2), ([5, 1], 1)], pad=0)
    assert ids.tolist() == [[5, 6, 7, 1], [5, 1, 0, 0]]
    assert labels.tolist() == [[-100, -100, 7, 1], [-100, 1, -100, -100]]


def test_batches_hold_every_row_once():
    rows = [([0] * random.Random(i).randint(1, 9), i) for i in range(1000)]
    found = [row for batch in base.batches(rows, 16, seed=0) for row in batch]
    assert sorted(place for _, place in found) == list(range(1000))


# --- models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["rot(<a>,2)= ~", "<eos><pad>", "two  spaces \n", ""])
def test_the_tokenizer_gives_text_back_exactly(text):
    tokenizer = tiny.characters()
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_a_character_that_there_is_not_is_unknown():
    tokenizer = tiny.characters()
    assert tokenizer("é")["input_ids"] == [tokenizer.unk_token_id]


def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, other, third = (tiny.micro(seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], third[name]) for name in one)
    assert torch.equal(before, torch.get_rng_state())


def test_tiny_has_08_million_parameters():
    assert 750_000 < tiny.tiny()[0].num_parameters() < 950_000


def test_muon_moves_a_matrix_as_torch_does_but_in_float32():
    start, gradient = torch.randn(24, 40), torch.randn(24, 40)
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    optimizers = (
        Muon([ours], lr=0.01),
        torch.optim.Muon([theirs], lr=0.01, adjust_lr_fn="match_rms_adamw", weight_decay=0),
    )
    for _ in range(3):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved, expected = (ours - start).detach(), (theirs - start).detach()
    assert float((moved * expected).sum() / (moved.norm() * expected.norm())) > 0.99
    assert float(moved.norm()) == pytest.approx(float(expected.norm()), rel=0.02)


def test_muon_treats_tall_and_wide_matrices_alike():
    wide = torch.randn(1, 5, 9, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(orthogonal(wide), orthogonal(wide.mT).mT, atol=1e-5)


# --- the whole of it ---------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(tiny, "tiny", lambda seed: tiny.llama(tiny.characters(), 32, 1, 2, 64, seed))
    monkeypatch.setattr(base, "knows", lambda engine, samples: {"level1": {"pass@1": 0.5, "pass@8": 0.9}})


def test_the_same_seed_gives_the_same_bytes_and_a_model_that_opens(small, tmp_path):
    shares = []
    card = train_base(tmp_path / "one", examples=192, progress=shares.append)
    train_base(tmp_path / "two", examples=192)
    train_base(tmp_path / "three", examples=192, seed=1)
    one, two, three = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert load.card(tmp_path / "one") == card == json.loads((tmp_path / "one" / "whet.json").read_text())
    assert load.model(tmp_path / "one").num_parameters() == card["parameters"]
    assert load.tokenizer(tmp_path / "one").decode(load.tokenizer(tmp_path / "one")("a b")["input_ids"]) == "a b"
    assert "| level1 | 0.500 | 0.900 |" in (tmp_path / "one" / "README.md").read_text()


def test_teaching_lowers_the_loss(small, tmp_path):
    pair = tiny.tiny(0)
    rows = [(pair[1](p + r)["input_ids"] + [1], len(p)) for p, r in lessons(replace(FEW, examples=64, seed=9))]
    ids, labels = tensors(rows, 0)

    def loss():
        with torch.no_grad():
            return pair[0](ids, labels=labels).loss.item()

    before = loss()
    base.fit(pair, replace(FEW, examples=1280), minutes_limit=1.0, progress=lambda share: None)
    assert loss() < before - 0.1


def test_the_time_limit_ends_the_training(small, tmp_path):
    assert train_base(tmp_path / "cut", examples=192, minutes_limit=0.0)["updates"] == 1


# --- the shipped base --------------------------------------------------------------------------------------


def test_the_shipped_base_is_small_and_its_card_names_what_it_knows():
    card = load.card(SHIPPED)
    assert card["lr"] > 0
    assert set(card["knows"]) == {*compose.Compose().evaluation(), *countdown.Countdown().evaluation()}
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 5_000_000
    assert (SHIPPED / "README.md").is_file()


def test_the_shipped_base_leaves_room_to_learn():
    knows = load.card(SHIPPED)["knows"]
    assert 0.4 <= knows["level1"]["pass@1"] <= 0.6
    assert knows["level1"]["pass@8"] > 0.9
    assert 0.05 < knows["level2"]["pass@1"] < 0.3
    assert knows["level3"]["pass@1"] < 0.02


def test_the_card_of_the_shipped_base_tells_how_it_is_taught_today():
    card = load.card(SHIPPED)
    assert card["lessons"] == asdict(Lessons())
    assert card["taught"] == list(base.TAUGHT)
