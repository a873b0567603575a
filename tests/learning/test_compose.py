"""Every recipe on the shipped base and task, in small batches: long, so only `make learn` runs it."""

import math

import pytest
import torch

from tests.learning.base import RECIPES
from whet.engines.local import LocalEngine
from whet.prepare import BASE
from whet.settings import settings, with_settings
from whet.step import State, step
from whet.tasks.shelf import make

STEPS = 30
SMALL = {"choose.prompts": 4, "sample.responses": 8}


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_thirty_steps_of_compose_stay_finite(name):
    engine, task = LocalEngine.load(BASE, "cpu"), make("compose")
    known = settings(RECIPES[name])
    state = State(with_settings(RECIPES[name], {address: n for address, n in SMALL.items() if address in known}))
    pool = list(task.train())
    for i in range(STEPS):
        state, batch = step(engine, task, pool, state, seed=0, progress=i / STEPS)
        assert all(math.isfinite(batch.told.get(name, 0.0)) for name in ("loss", "grad_norm")), f"step {i}"
    assert all(bool(torch.isfinite(p).all()) for p in engine.model.parameters())
