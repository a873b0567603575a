"""Recipes whose `sample` or `update` does something unusual, on a real engine: what the laws cannot see."""

import itertools

import torch

from tests.learning.base import POOL, TASK, base
from whet import shelf
from whet.settings import with_settings
from whet.step import State, step


def test_hora_without_a_budget_beyond_its_first_responses_draws_those_alone():
    few = {"sample.responses": "4", "choose.prompts": "2"}
    _, batch = step(base(), TASK, POOL, State(with_settings(shelf.load("hora"), few)), seed=0)
    assert len(batch) == 8


SMALL = {"sample.responses": "8", "choose.prompts": "4"}


def test_poets_has_members_that_part_and_one_of_them_acts():
    """Each has weights and moments of its own, and the policy is the one whose turn it is."""
    engine, state, acted = base(), State(with_settings(shelf.load("poets"), SMALL)), []
    for _ in range(6):
        state, batch = step(engine, TASK, POOL, state, seed=0)
        memory, now = state.memories["ensemble"], engine.state()
        for kind in ("weights", "optimizer"):
            mine = memory["members"][memory["acting"]][kind]
            assert all(torch.equal(x, mine[name]) for name, x in now[kind].items()), kind
        assert batch.told["sampler_gap"] < 1e-4  # the metrics are those of the member that drew the batch
        acted.append(memory["acting"])
    assert len(set(acted)) > 1
    for one, other in itertools.combinations(memory["members"], 2):
        for kind in ("weights", "optimizer"):
            assert any(not torch.equal(x, other[kind][name]) for name, x in one[kind].items() if "step" not in name)
    counts = {float(x) for member in memory["members"] for name, x in member["optimizer"].items() if "step/" in name}
    assert counts == {6.0}  # every member learns from every batch
