"""Judging goes on while other responses are still being written, and changes no verdict."""

import time

import pytest
import torch

from tests.engines.models import engine, problems
from whet.beside import Beside
from whet.draw import Draw, generator
from whet.tasks import Verdict


class Slow:
    """Judges in `seconds` a call, and keeps when it was asked and for how many."""

    name, max_tokens = "slow", 40

    def __init__(self, apart, seconds=0.0):
        self.judges_apart, self.seconds, self.asked = apart, seconds, []

    def judge(self, problems, texts):
        self.asked.append(list(texts))
        time.sleep(self.seconds)
        return [Verdict(None, reason="odd") if len(t) % 5 == 4 else Verdict(float(len(t)), len(t) > 3) for t in texts]


def drawn(apart, **options):
    task = Slow(apart)
    mine = Draw(engine(**options), task, generator(1))
    return mine(problems(), 8), task


def test_judging_beside_gives_the_batch_of_judging_behind():
    ours, beside = drawn(True, max_rows=8)
    theirs, behind = drawn(False, max_rows=8)
    assert ours.texts == theirs.texts
    assert ours.unknown == theirs.unknown
    assert len(ours.unknown) == 1
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs.fields)
    assert len(behind.asked) == 1
    assert len(beside.asked) > 1
    assert sorted(text for texts in beside.asked for text in texts) == sorted(behind.asked[0])


def test_a_problem_is_judged_before_the_last_response_to_another_has_ended():
    events = []
    mine = engine(max_rows=8)
    told = Slow(True)
    judge = told.judge
    told.judge = lambda p, t: events.append("judge") or judge(p, t)
    write = mine.sampler.draw

    def watched(*values):
        found = write(*values)
        until = time.monotonic() + 20  # the judge is quick: what it is asked before this returns, it is asked beside
        while not events and time.monotonic() < until:
            time.sleep(0.01)
        events.append("written")
        return found

    mine.sampler.draw = watched
    Draw(mine, told, generator(1))(problems(), 8)
    assert "judge" in events[: events.index("written")]


def test_a_problem_is_judged_whole():
    with Beside(task := Slow(True), problems("a", "b"), [2, 1]) as beside:
        beside.ended([0], ["x"])
        assert not beside.asked
        beside.ended([2, 1], ["z", "yyyy"])
        verdicts = beside.of(["x", "yyyy", "z"])
    assert [verdict.score for verdict in verdicts] == [1.0, None, 1.0]
    assert task.asked == [["x", "yyyy", "z"]]


def test_what_a_judge_raises_is_raised_where_the_batch_is_wanted():
    task = Slow(True)
    task.judge = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        Draw(engine(), task, generator(1))(problems(), 2)


def test_a_sampler_that_tells_nothing_is_judged_at_the_end():
    mine = engine()
    write = mine.sampler.draw
    mine.sampler.draw = lambda prompts, how, seed, ended=None: write(prompts, how, seed)
    task = Slow(True)
    batch = Draw(mine, task, generator(1))(problems(), 4)
    assert len(task.asked) == 1
    assert len(batch) + sum(batch.unknown.values()) == 20
