"""Sampling and judging together: what a `sample` part calls."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from whet.batch import Batch
from whet.engines.profile import stage
from whet.recipe import Refused
from whet.tasks import Problem, Verdict


def generator(*seeds: int) -> torch.Generator:
    """A generator for one purpose: the same numbers give the same stream, nearby numbers unrelated ones."""
    mixed = 0x9E3779B97F4A7C15
    for seed in seeds:
        mixed = ((mixed ^ (seed + 0x9E3779B9)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
        mixed ^= mixed >> 31
    return torch.Generator().manual_seed(mixed % 2**63)


@dataclass(frozen=True)
class Draw:
    """What a `sample` part is given: responses to problems, sampled by the engine and judged by the task."""

    engine: Any
    task: Any
    rng: torch.Generator

    def __call__(
        self,
        problems: Sequence[Problem],
        responses: int | Sequence[int],
        temperature: float = 1.0,
        greedy: bool = False,
        top_p: float = 1.0,
    ) -> Batch:
        """`responses` to each problem: a number, or one number for each problem."""
        seed = int(torch.randint(2**62, (), generator=self.rng))
        counts = [responses] * len(problems) if isinstance(responses, int) else list(responses)
        sampled = self.engine.sample(
            problems, counts, temperature=temperature, top_p=top_p, greedy=greedy,
            max_tokens=self.task.max_tokens, seed=seed,
        )  # fmt: skip
        with stage("judge"):
            return judged(sampled, self.task.judge(sampled.problems, sampled.texts))

    def demonstrations(self, problems: Sequence[Problem]) -> Batch:
        """One worked solution of each problem, as a batch whose `demonstration` is True. Nobody sampled them."""
        if not hasattr(self.task, "demonstrate"):
            raise Refused(f"{self.task.name} has no worked solutions, which this recipe learns from.")
        written = self.engine.written(problems, [self.task.demonstrate(problem) for problem in problems])
        batch = judged(written, self.task.judge(written.problems, written.texts))
        return batch.having(demonstration=torch.ones(len(batch), dtype=torch.bool))


def judged(batch: Batch, verdicts: Sequence[Verdict]) -> Batch:
    """The batch with scores; responses of unknown worth leave it, counted by reason.

    Nothing is carried over and nothing is a demonstration until a `sample` part says so.
    """
    known = torch.tensor([verdict.score is not None for verdict in verdicts], dtype=torch.bool)
    unknown = Counter(verdict.reason for verdict in verdicts if verdict.score is None)
    batch = batch.having(
        score=torch.tensor([float(verdict.score or 0.0) for verdict in verdicts]),
        correct=torch.tensor([verdict.correct for verdict in verdicts], dtype=torch.bool),
        demonstration=torch.zeros(len(verdicts), dtype=torch.bool),
        age=torch.zeros(batch["mask"].shape),
    )
    return replace(batch if bool(known.all()) else batch.where(known), unknown=unknown, drawn=len(verdicts))


def with_greedy_score(batch: Batch, draw: Draw) -> Batch:
    """The batch with the score of one greedy response to each of its problems.

    Where that response could not be judged, the problem leaves the batch.
    """
    problems = list({problem.id: problem for problem in batch.problems}.values())
    greedy = draw(problems, 1, greedy=True)
    scores = {problem.id: float(score) for problem, score in zip(greedy.problems, greedy["score"], strict=True)}
    batch = batch.where(torch.tensor([problem.id in scores for problem in batch.problems], dtype=torch.bool))
    return batch.having(greedy_score=torch.tensor([scores[problem.id] for problem in batch.problems]))
