"""The first update of a run is TRL's: the same advantages, loss, gradient and step on the responses that TRL drew."""

import json
import runpy
from pathlib import Path
from string import ascii_lowercase, digits

import pytest
import torch

from tests.test_moving import options
from whet import groups, shelf
from whet.batch import Batch
from whet.engines.local import LocalEngine
from whet.models.tiny import characters
from whet.moving import from_trl
from whet.recipe import call
from whet.settings import with_settings
from whet.step import objective, wanted, weigh
from whet.tasks import Problem

GOLDEN = Path(__file__).parents[2] / "golden"
SCRIPT = runpy.run_path(str(GOLDEN / "trl_update.py"))
RECORDED = json.loads((GOLDEN / "trl_update.json").read_text())
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
STEP = 1e-3  # of the norm: AdamW's first step is nearly a sign, which rounding turns where a gradient is nearly 0


def batch_of(case, pad):
    """TRL's prompts and responses as a batch of whet's."""
    rows, t = case["responses"], max(map(len, case["responses"]))
    names = ["".join(map(chr, prompt)) for prompt in case["prompts"]]
    length = torch.tensor([len(row) for row in rows])
    mask = torch.arange(t) < length[:, None]
    score = torch.tensor([SCRIPT["reward"](row) for row in rows])
    fields = {
        "group": groups.index_of(names), "tokens": torch.tensor([row + [pad] * (t - len(row)) for row in rows]),
        "mask": mask, "length": length, "finished": torch.ones(len(rows), dtype=torch.bool),
        "temperature": torch.ones(len(rows)), "sampled_logp": torch.zeros(mask.shape), "score": score,
        "sampled_entropy": torch.zeros(mask.shape), "age": torch.zeros(mask.shape), "correct": score > 0.5,
        "demonstration": torch.zeros(len(rows), dtype=torch.bool),
    }  # fmt: skip
    problems = tuple(Problem(id=name, prompt=name, answer="") for name in names)
    return Batch(problems, tuple(map(tuple, case["prompts"])), ("",) * len(rows), fields, drawn=len(rows))


def assert_same(found, recorded, share):
    """Norms and products with a wave agree, within a share of the norm."""
    assert set(found) == set(recorded)
    for name, numbers in recorded.items():
        assert found[name] == pytest.approx(numbers, rel=0, abs=share * numbers[0]), name


@pytest.mark.parametrize("kind", RECORDED["cases"])
def test_the_first_update_is_trls(kind, tmp_path):
    case, words = RECORDED["cases"][kind], characters(digits + ascii_lowercase)
    more = "".join(f"{name}: {value}\n" for name, value in SCRIPT["LOSSES"][kind].items())
    (tmp_path / "config.yaml").write_text(
        f"loss_type: {kind}\nnum_generations: 4\nmax_completion_length: 8\nlearning_rate: {RECORDED['lr']}\n{more}"
    )
    moved = from_trl(tmp_path / "config.yaml")  # the command that the converter prints
    recipe = with_settings(shelf.load(moved.words[0]), options(moved))
    mine = LocalEngine(SCRIPT["model"](words), words, lr=RECORDED["lr"])
    before = {name: x.detach().clone() for name, x in mine.model.named_parameters()}
    run = {"max_tokens": 8, "step": 0, "progress": 0.0, "rng": torch.Generator(), "pool": (), "history": {}}
    batch = batch_of(case, words.pad_token_id)
    batch = batch.having(**mine.score(batch, ["ref_logp"])) if recipe.penalties else batch
    batch = weigh(recipe, batch, run, {})
    torch.testing.assert_close(batch["advantage"][:, 0], torch.tensor(case["advantages"]), **CLOSE)
    learner = mine.learner(objective(recipe), wanted(recipe))
    told = learner.gradient(batch)
    assert told["loss"] == pytest.approx(case["loss"], rel=1e-4, abs=1e-6)
    assert_same(SCRIPT["summary"]({name: x.grad for name, x in mine.model.named_parameters()}), case["gradient"], 1e-4)
    call(recipe.update, {**run, "learner": learner, "batch": batch}, {})
    after = dict(mine.model.named_parameters())
    assert_same(SCRIPT["summary"]({name: after[name].detach() - x for name, x in before.items()}), case["step"], STEP)


def test_the_recorded_case_could_not_be_passed_by_an_update_that_does_nothing():
    for case in RECORDED["cases"].values():
        assert len({tuple(row) for row in case["responses"]}) > 8
        assert len({len(row) for row in case["responses"]}) > 1  # so that the three ways to divide differ
        assert max(norm for norm, _ in case["step"].values()) > 1e-2
    assert len({round(case["loss"], 6) for case in RECORDED["cases"].values()}) == 3
