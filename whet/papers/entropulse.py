"""ComputerRL (Lai et al. 2025), Entropulse: between two phases of RL, imitate what RL once solved; entropy comes back.

RL, keeping the successes  →  SFT on one success of each solved problem  →  RL
"""

from functools import partial
from typing import Any

import torch

from whet.batch import Batch, join
from whet.papers import amft_controller, grpo
from whet.recipe import Finding, Paper, Remembers


def one_of_each(batch: Any, rng: Any) -> Any:
    """One row of each problem, by lot."""
    lots = torch.randperm(len(batch), generator=rng).tolist()
    return batch.rows(sorted({batch.problems[i].id: i for i in lots}.values()))


def pulsed(
    draw: Any,
    problems: Any,
    progress: float,
    rng: Any,
    memory: Any,
    responses: int = 16,  # ours: as plain.same_number
    temperature: float = 1.0,  # the policy itself is what is sampled
    begin: float = 0.5,  # ours: the paper does not say when
    end: float = 0.6,  # ours: the paper does not say for how long
) -> tuple[Any, Any]:
    """Draws as usual and keeps a success of each problem; between `begin` and `end` it returns those instead."""
    if memory is not None and begin <= progress < end:
        some = memory.rows(torch.randperm(len(memory), generator=rng)[: responses * len(problems)])
        shown = Batch(some.problems, some.prompts, some.texts, some.fields)
        return shown.having(demonstration=torch.ones(len(shown), dtype=torch.bool)), memory
    batch = draw(problems, responses, temperature)
    right = batch.where(batch["correct"])
    if len(right):
        memory = one_of_each(right if memory is None else join([memory, right]), rng)
    return batch, memory


recipe = grpo.recipe.with_(
    name="entropulse",
    findings=(Finding("entropy", "grpo", "up", "higher after the phase of imitation", "ablation, Qwen2.5-14B"),),
    paper=Paper(
        "ComputerRL: Scaling End-to-End Online Reinforcement Learning for Computer Use Agents", arxiv="2508.14040",
        date="2025-08-19",
        authors="Lai, Hanyu and Liu, Xiao and Zhao, Yanxiao and Xu, Han and Zhang, Hanchen and others",
    ),
    new="a phase of imitating one's own successes between two phases of RL", sample=Remembers(pulsed, start=None),
    credit=(partial(amft_controller.imitated, strength=1.0),), shelf="distillation",  # strength: the likelihood itself
    departs=(
        "Assumed: imitation takes the sixth tenth of the run, at the same learning rate; the paper gives neither.",
        "One success of each problem is kept, by lot between the kept one and the new ones.",
        "GRPO on whole responses; the paper's RL compares the steps of an agent.",
    ),
)  # fmt: skip
