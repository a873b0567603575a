"""Fields that only some recipes ask for: the starting model's score, labels of statements, responses in segments."""

from types import SimpleNamespace

import pytest
import torch

from whet.draw import Draw, generator, with_labels, with_ref_score
from whet.engines.local import LocalEngine
from whet.models import tiny
from whet.papers import ulorl_dmmpt, vapo
from whet.refusal import Refused
from whet.settings import with_settings
from whet.step import State, step
from whet.tasks import Problem
from whet.tasks.countdown import Countdown
from whet.tasks.digits import Digits


@pytest.fixture
def micro():
    return LocalEngine(*tiny.micro(0), lr=1e-2)


def test_the_starting_models_score_stays_its_own(micro):
    batch = Draw(micro, Digits(), generator(0))(Digits().train()[:8], 16)
    before = with_ref_score(batch, Draw(micro, Digits(), generator(1)))
    with torch.no_grad():
        for x in micro.model.parameters():
            x.mul_(-2)
    after = with_ref_score(batch, Draw(micro, Digits(), generator(1)))
    assert torch.equal(before["ref_score"], after["ref_score"])
    assert len(before) == len(batch)
    assert 0 < float(before["ref_score"].mean()) < 0.5


def test_a_starting_response_answers_the_problem_beside_it(micro):
    """A judge that knows who asked: whatever the order of rows, the score is that of the row's own problem."""

    class Which(Digits):
        def judge(self, problems, texts):
            verdicts = super().judge(problems, texts)
            return [type(v)(float(problem.answer)) for v, problem in zip(verdicts, problems, strict=True)]

    batch = Draw(micro, Which(), generator(0))(Digits().train()[::7], 3)
    batch = batch.rows(torch.randperm(len(batch), generator=generator(2)))
    batch = batch.having(temperature=torch.where(torch.arange(len(batch)) % 2 == 0, 1.0, 0.5))
    found = with_ref_score(batch, Draw(micro, Which(), generator(1)))
    assert found["ref_score"].tolist() == [float(problem.answer) for problem in found.problems]


def test_a_label_stands_on_the_tokens_of_its_statement(micro):
    batch = Draw(micro, Digits(), generator(0))(Digits().train(), 4)
    found = with_labels(batch, Draw(micro, Digits(), generator(1)))["label"]
    for problem, pieces, row in zip(batch.problems, micro.pieces(batch), found.tolist(), strict=True):
        said = [0 if not c.isdigit() else 1 if c == problem.answer else -1 for c in pieces]
        assert row[: len(said)] == said
        assert not any(row[len(said) :])
    assert set(found.unique().tolist()) == {-1, 0, 1}


def test_a_task_without_labels_is_refused_in_one_sentence(micro):
    with pytest.raises(Refused, match="mine does not say which statements"):
        with_labels(
            Draw(micro, Digits(), generator(0))(Digits().train()[:1], 1),
            Draw(micro, SimpleNamespace(name="mine"), generator(1)),
        )


def test_countdown_labels_the_numbers_that_were_given():
    problem = Problem("p", "14 from 2,3,4:", "(3+4)*2")
    assert Countdown().label([problem] * 2, ["(3+4)*2=14", "2*2"]) == [
        [(1, 2, 1), (3, 4, 1), (6, 7, 1)],
        [(0, 1, 1), (2, 3, -1)],
    ]


def in_segments(micro, seeds, segments, memory=None, pool=None):
    """The batches and the memories of some steps."""
    pool, found = pool or Digits().train(), []
    for seed in seeds:
        draw, problems = Draw(micro, Digits(), generator(seed)), pool[4 * seed : 4 * seed + 4]
        batch, memory = ulorl_dmmpt.in_segments(draw, problems, 3, memory, responses=4, segments=segments)
        found.append((batch, memory))
    return found


def test_one_segment_is_an_ordinary_rollout(micro):
    ((batch, memory),) = in_segments(micro, [0], segments=1)
    whole = Draw(micro, Digits(), generator(0))(Digits().train()[:4], 4, 0.85)
    assert len(memory) == 0
    assert all(torch.equal(batch[name], whole[name]) for name in ("tokens", "sampled_logp", "score", "length"))


def test_segments_come_back_until_their_problem_is_complete(micro):
    steps = in_segments(micro, range(4), segments=3)
    for batch, memory in steps:
        assert not {p.id for p in batch.problems} & {p.id for p in memory.problems}
        for part in (batch, memory):
            assert set(part["group"].bincount().tolist()) <= {4}
        assert bool((batch["finished"] | (batch["length"] == 3)).all())
    assert [len(batch) for batch, _ in steps] == [0, 0, 16, 16]  # the micro model hardly ever ends by itself
    batch = steps[2][0]
    assert batch["age"][batch["length"] == 3].unique(dim=0).tolist() == [[2, 1, 0]]


def test_segments_survive_a_learning_policy(micro):
    recipe = with_settings(ulorl_dmmpt.sais, {"sample.segments": "3"})
    state, sizes = State(recipe), []
    for _ in range(5):
        state, batch = step(micro, Digits(), Digits().train(), state, seed=0)
        sizes.append(len(batch))
    assert sizes[:2] == [0, 0]
    assert min(sizes[2:]) > 0
    old = batch["age"] > 0
    read = batch["mask"] & ~batch["logp"].isnan()  # what the learner had a use for
    gap = (batch["logp"] - batch["sampled_logp"]).abs()
    assert bool((old & read).any())
    assert float(gap[old & read].max()) > 1e-3  # the policy has moved since, and the ratio knows
    assert float(gap[~old & read].max()) < 1e-4


def test_the_critic_learns_alone_before_the_policy_moves(micro):
    recipe = with_settings(vapo.recipe, {"update.warmup": "1"})
    start = [x.detach().clone() for x in micro.model.parameters()]
    state, _ = step(micro, Digits(), Digits().train(), State(recipe), seed=0)
    assert all(torch.equal(x, y) for x, y in zip(start, micro.model.parameters(), strict=True))
    assert bool((micro.critic.head.weight != 0).any())
    step(micro, Digits(), Digits().train(), state, seed=0)
    assert not all(torch.equal(x, y) for x, y in zip(start, micro.model.parameters(), strict=True))


def test_resumed_responses_stay_within_the_tasks_bound(micro):
    task = SimpleNamespace(name="short", max_tokens=7)
    draw = Draw(micro, task, generator(0))
    begun = draw.begin(Digits().train()[:4], 8, 1.0, tokens=3)
    assert int(begun["length"].max()) == 3
    longer = draw.resume(begun, tokens=100)
    assert bool((longer["finished"] | (longer["length"] == 7)).all())
    assert int(longer["length"].max()) <= 7
    assert sum(draw.tokens) == int(longer["length"].sum())


def test_worked_solutions_come_from_the_task_or_are_refused(micro):
    task = Digits()
    shown = Draw(micro, task, generator(0)).demonstrations(task.train()[:4])
    assert bool(shown["demonstration"].all())
    assert bool(shown["correct"].all())
    without = SimpleNamespace(name="bare", max_tokens=7, judge=task.judge)
    with pytest.raises(Refused, match="bare has no worked solutions"):
        Draw(micro, without, generator(0)).demonstrations(task.train()[:4])
