"""The run of planted bugs itself: nobody waits for a worker that died."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests import mutants
from tests.spoiled import Mutant, mutants_of

THREE = [Mutant("whet/papers/grpo.py", line, "a bug", "") for line in (1, 2, 3)]


def dies_once(link):
    """A worker that is killed over the second bug, the first time that it is tried."""
    for mutant in iter(link.recv, None):
        if mutant.line == 2 and not FLAG.exists():
            FLAG.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        link.send(mutant.line == 3)


def dies_always(link):
    """A worker that no bug leaves alive."""
    link.recv()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bug_whose_worker_dies_is_tried_again(tmp_path, monkeypatch, workers):
    monkeypatch.setitem(globals(), "FLAG", tmp_path / "died")
    found = dict(mutants.judged(THREE, workers, dies_once))
    assert found == {mutant: mutant.line == 3 for mutant in THREE}
    assert FLAG.exists()


def test_a_bug_that_kills_every_worker_ends_the_run_in_a_sentence():
    began = time.monotonic()
    with pytest.raises(SystemExit, match=r"grpo.py:1: a bug.*leave that bug out"):
        list(mutants.judged(THREE[:1], 1, dies_always))
    assert time.monotonic() - began < 30


def test_the_engine_is_spoiled_too():
    for name in mutants.ENGINE:
        path = mutants.ROOT / "whet" / f"{name}.py"
        assert mutants.of_spine(path) == name
        assert len(mutants_of(path)) > 20
        assert all((mutants.ROOT / test).is_file() for test in mutants.TESTS_OF[name])
    assert not mutants.of_spine(Path("whet/papers/grpo.py"))


FLAG = Path("nowhere")
