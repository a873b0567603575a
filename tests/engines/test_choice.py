"""Choosing what draws the responses, from what was typed."""

import sys

import pytest

from tests.engines.models import engine
from whet.engines.choice import Choice
from whet.engines.sampler import Own
from whet.refusal import Refused
from whet.train import Run, start_run


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ({"engine": "sglang"}, "there is no engine 'sglang': it is local or vllm"),
        ({"engine": "vllm", "engine.dtyp": "x"}, "no setting 'engine.dtyp'.*engine.dtype, engine.publish_every"),
        ({"engine": "vllm", "engine.engine": "local"}, "no setting 'engine.engine'"),
        (
            {"engine": "vllm", "engine.publish_every": "often"},
            "engine.publish_every is a number, so it cannot be 'often'",
        ),
        ({"engine.dtype": "bfloat16"}, "are of vllm: add --engine vllm"),
    ],
)
def test_what_cannot_be_chosen_is_one_sentence(typed, sentence):
    with pytest.raises(Refused, match=sentence):
        Choice.of(typed)


def test_the_recipe_gets_the_other_settings():
    choice, rest = Choice.of({"engine": "vllm", "engine.dtype": "bfloat16", "loss.high": "0.3"})
    assert (choice.engine, choice.dtype, choice.publish_every) == ("vllm", "bfloat16", 1)
    assert rest == {"loss.high": "0.3"}


def test_without_a_choice_the_policy_draws_by_itself():
    mine = engine()
    assert isinstance(Choice().applied(mine).sampler, Own)


def test_without_vllm_one_sentence_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)  # what Python does when a package is not installed
    with pytest.raises(Refused, match=r"needs vLLM: `pip install vllm`.*make env-vllm"):
        start_run(Run(task="digits", steps=1, out=str(tmp_path), settings={"engine": "vllm"}))
    assert not list(tmp_path.iterdir())  # and no run is left behind
