"""The profile's seconds add up, and it is silent where nobody asks for it."""

import time

import pytest

from tests.engines.models import engine, sampled
from tests.engines.test_learner import WANTED, ready, surrogate
from whet.engines import profile
from whet.engines.profile import Profiler, stage


def test_time_inside_another_stage_is_counted_once():
    seen = profile.Profile()
    with profile.profiling(seen), stage("forward"):
        time.sleep(0.02)
        with stage("backward"):
            time.sleep(0.05)
    assert seen.spent["forward"].seconds == pytest.approx(0.02, abs=0.015)
    assert seen.spent["backward"].seconds == pytest.approx(0.05, abs=0.02)


def test_a_step_is_told_stage_by_stage():
    mine, profiler = engine(), Profiler()
    with profiler.measuring(mine):
        batch = ready(mine)
        learner = mine.learner(surrogate, WANTED)
        learner.gradient(batch)
        learner.step(None, 1.0)
        mine.score(batch, ["ref_logp"])
    rows = {row[0]: row for row in profiler.rows()}
    assert set(rows) == {"prefill", "decode", "score", "forward", "backward", "optimiser", "other"}
    spent = profiler.profile.spent
    assert sum(x.seconds for x in spent.values()) == pytest.approx(profiler.seconds)
    assert spent["decode"].tokens == int(batch["length"].sum())
    whole = int(batch["length"].sum()) + sum(map(len, batch.prompts))
    assert whole / 2 < spent["forward"].tokens == spent["score"].tokens < whole  # prompts are read once
    assert spent["backward"].flops == 2 * spent["forward"].flops > 0
    assert all(x.peak > 2**20 for name, x in spent.items() if x.seconds and name != "other")
    assert "of matmul" in [column.header for column in profiler.table().columns]


def test_nobody_asks_and_nothing_is_kept():
    sampled(engine())
    assert profile._now.get() is None
