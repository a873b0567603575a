"""The profile's seconds add up, its products are those that torch counts, and it is silent where nobody asks for it."""

import io
import re
import threading
import time

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from tests.engines.models import engine, sampled
from tests.engines.test_learner import WANTED, ready, surrogate
from whet import closely
from whet.engines import forward, profile
from whet.engines.profile import Profiler, stage

MEGABYTES = 2**18  # numbers of four bytes


def test_time_inside_another_stage_is_counted_once(monkeypatch):
    hours = iter([0, 1, 3, 8, 10, 17])
    monkeypatch.setattr(profile, "_clock", lambda device: next(hours))
    seen = profile.Profile()
    with profile.profiling(seen), stage("forward"), stage("backward"):
        pass
    found = {name: spent.seconds for name, spent in seen.spent.items() if spent.seconds}
    assert found == {"other": 1 + 7, "forward": 2 + 2, "backward": 5}
    assert seen.seconds == 17


def stepped():
    """A profiler that has seen sampling, a gradient, a step and scoring; and bounds on the seconds that it took."""
    mine, profiler = engine(), Profiler()
    with profiler.measuring(mine):
        pass
    before = profiler.profile.seconds
    first = time.perf_counter()
    with profiler.measuring(mine):
        second = time.perf_counter()
        batch = ready(mine)
        learner = mine.learner(surrogate, WANTED)
        learner.gradient(batch)
        learner.step(None, 1.0)
        mine.score(batch, ["ref_logp"])
        third = time.perf_counter()
    return profiler, batch, (third - second + before, time.perf_counter() - first + before)


def test_a_step_is_told_stage_by_stage_and_the_parts_add_up():
    profiler, batch, (least, most) = stepped()
    rows = {row[0]: row for row in profiler.rows()}
    assert set(rows) == {"prefill", "decode", "score", "forward", "backward", "optimiser", "other", "step"}
    spent = profiler.profile.spent
    assert least <= sum(x.seconds for x in spent.values()) <= most
    assert spent["decode"].tokens == int(batch["length"].sum())
    said = int(batch["length"].sum())
    each, once = (said + sum(map(len, prompts)) for prompts in (batch.prompts, set(batch.prompts)))
    # A prompt may be read once for all of its responses, and their last tokens, which predict nothing, not at all.
    for name in ("forward", "backward", "score"):
        assert once - len(batch) <= spent[name].tokens <= each
        assert spent[name].tokens <= spent[name].padded
    assert spent["backward"].flops == 2 * spent["forward"].flops > 0
    assert all(x.peak > 2**20 for x in spent.values() if x.seconds)


def test_the_table_says_what_it_shows():
    profiler, _, _ = stepped()
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(profiler.table())
    said = console.export_text().splitlines()
    assert said[0].split() == ["stage", "s/step", "share", "tokens/s", "padding", "matmul", "memory", "peak", "MiB"]
    assert [line.split()[0] for line in said[1:9]] == [row[0] for row in profiler.rows()]
    assert re.search(r"GFLOP/s in float32 and [\d.]+ GB/s", " ".join(" ".join(said).split()))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_products_counted_are_those_that_torch_counts(family):
    mine = engine(family)
    batch = sampled(mine)
    rows = max(forward.micro_batches(batch, 10**6, mine.device), key=lambda rows: rows.ids.numel())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward.policy(mine.model, rows)
    told = counter.get_flop_counts()["Global"]
    products = sum(n for name, n in told.items() if "attention" not in str(name))
    assert forward.flops(mine.model, rows) == pytest.approx(products, rel=0.05)


def test_a_stage_has_its_own_peak_and_the_run_keeps_the_highest():
    seen, before = profile.Profile(), closely.peak_memory(None) * 2**20
    with profile.profiling(seen):
        with stage("forward"):
            most = torch.ones(int(before / 2**20 + 300) * MEGABYTES)
            with stage("backward"):
                pass
            del most
        with stage("optimiser"):
            pass
    assert seen.spent["forward"].peak > before + 200 * 2**20
    if seen.spent["optimiser"].peak < seen.spent["forward"].peak:  # a kernel that forgets
        assert seen.spent["optimiser"].peak < seen.spent["forward"].peak - 200 * 2**20
    assert closely.peak_memory(None) * 2**20 >= seen.spent["forward"].peak


def test_what_a_step_waits_for_beside_it_is_its_own():
    """Another thread's stages are not the step's time: it may judge while the step samples."""

    def judging():
        with stage("judge"):
            time.sleep(0.05)

    seen = profile.Profile()
    with profile.profiling(seen), stage("decode"):
        other = threading.Thread(target=judging)
        other.start()
        time.sleep(0.02)
        other.join()
    assert seen.spent["judge"].seconds == 0
    assert seen.spent["decode"].seconds >= 0.05


def test_nobody_asks_and_nothing_is_kept():
    sampled(engine())
    assert profile._now.get() is None
