"""Sampling and judging together: what a `sample` part calls."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from whet.batch import Batch
from whet.tasks import Problem, Verdict

Draw = Callable[..., Batch]


def generator(*seeds: int) -> torch.Generator:
    """A generator for one purpose: the same numbers give the same stream, nearby numbers unrelated ones."""
    mixed = 0x9E3779B97F4A7C15
    for seed in seeds:
        mixed = ((mixed ^ (seed + 0x9E3779B9)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
        mixed ^= mixed >> 31
    return torch.Generator().manual_seed(mixed % 2**63)


def drawing(engine: Any, task: Any, rng: torch.Generator) -> Draw:
    """`draw(problems, responses, temperature, greedy)` for one step: sample with the engine, judge with the task.

    `responses` is a number, or one number for each problem.
    """

    def draw(
        problems: Sequence[Problem],
        responses: Any,
        temperature: float = 1.0,
        greedy: bool = False,
        top_p: float = 1.0,
    ) -> Batch:
        seed = int(torch.randint(2**62, (), generator=rng))
        counts = [responses] * len(problems) if isinstance(responses, int) else list(responses)
        sampled = engine.sample(
            problems, counts, temperature=temperature, top_p=top_p, greedy=greedy,
            max_tokens=task.max_tokens, seed=seed,
        )  # fmt: skip
        return judged(sampled, task.judge(sampled.problems, sampled.texts))

    return draw


def judged(batch: Batch, verdicts: Sequence[Verdict]) -> Batch:
    """The batch with scores; responses of unknown worth leave it, counted by reason."""
    known = torch.tensor([verdict.score is not None for verdict in verdicts], dtype=torch.bool)
    unknown = Counter(verdict.reason for verdict in verdicts if verdict.score is None)
    batch = batch.having(
        score=torch.tensor([float(verdict.score or 0.0) for verdict in verdicts]),
        correct=torch.tensor([verdict.correct for verdict in verdicts], dtype=torch.bool),
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
