"""Confucius3-Math (Wu et al. 2025): hard problems weigh more, entropy has a target, surplus groups are not thrown away.

PSHW  A_i = (R_i - μ) D(μ),   D(μ) = 1.256 - 0.256 μ,   R = ±1, μ = mean R
TER   L  += λ |H - H*|,   H* = 0.55, λ = 0.001,   H the policy's mean entropy
RSR   mixed groups beyond the batch go first in the next one, as they are
"""

from typing import Any

import torch

from whet import groups, plain
from whet.batch import Batch, join
from whet.fields import Flag, Group, Mask, PerResponse, PerToken
from whet.papers import dapo, dr_grpo
from whet.recipe import Finding, Paper, Remembers


def hardness_weighted(
    correct: Flag,
    group: Group,
    slope: float = -0.256,  # the paper's α
    offset: float = 1.256,  # the paper's
) -> PerResponse:
    """±1 for right and wrong, minus the group's mean, times a weight that grows as the group fails.

    >>> hardness_weighted(tensor([True] + [False] * 7), torch.zeros(8).long())[:2]
    tensor([ 2.5340, -0.3620])
    """
    sign = 2 * correct.float() - 1
    mean = groups.mean(sign, group)
    return (sign - mean) * (slope * mean + offset)


def entropy_above(entropy: PerToken, mask: Mask, target: float = 0.55) -> Mask:  # the paper's H*
    """Every token where the mean entropy of the mini-batch is above the target, none where it is below.

    >>> entropy_above(tensor([[1.0, 0.2]]), torch.ones(1, 2).bool())
    tensor([[True, True]])
    """
    return mask & (groups.batch_mean(entropy, mask) > target)


def entropy_to_target(
    entropy: PerToken,
    selected: Mask,
    target: float = 0.55,  # the paper's H*
    coef: float = 0.001,  # the paper's λ
) -> PerToken:
    """λ (H - H*) where the entropy is above its target, λ (H* - H) where it is below: its mean is λ |H - H*|.

    >>> entropy_to_target(tensor([[1.0, 0.2]]), tensor([[True, False]]), coef=1.0)
    tensor([[0.4500, 0.3500]])
    """
    return coef * torch.where(selected, 1.0, -1.0) * (entropy - target)


def surplus_first(
    draw: Any,
    problems: Any,
    pool: Any,
    rng: Any,
    memory: Any,
    responses: int = 16,  # DAPO, section 4.1
    temperature: float = 1.0,  # DAPO, section 4.1
    rounds: int = 4,  # ours: the paper draws until the batch is full
) -> tuple[Batch, dict[str, Any]]:
    """Whole rounds of problems are drawn until the batch is full; mixed groups left over are the memory."""
    wanted, found = len(problems), [_taken_up(memory, pool)] if memory else []
    asked = {problem.id for part in found for problem in part.problems}
    fresh = [problem for problem in problems if problem.id not in asked]
    while fresh and rounds > 0 and sum(len(part["group"].unique()) for part in found) < wanted:
        batch = draw(fresh, responses, temperature)
        found.append(batch.where(groups.mixed(batch["correct"].float(), batch["group"])))
        asked |= {problem.id for problem in fresh}
        order = torch.randperm(len(pool), generator=rng).tolist()
        fresh, rounds = [pool[i] for i in order if pool[i].id not in asked][:wanted], rounds - 1
    both = join(found)
    return both.where(both["group"] < wanted), _put_away(both.where(both["group"] >= wanted))


def _put_away(rest: Batch) -> dict[str, Any]:
    ids = [problem.id for problem in rest.problems]
    fields = {**rest.fields, "age": rest["age"] + 1}
    return {"ids": ids, "prompts": rest.prompts, "texts": rest.texts, "fields": fields}


def _taken_up(memory: dict[str, Any], pool: Any) -> Batch:
    known = {problem.id: problem for problem in pool}
    return Batch(tuple(known[i] for i in memory["ids"]), memory["prompts"], memory["texts"], memory["fields"])


paper = Paper(
    "Confucius3-Math: A Lightweight High-Performance Reasoning LLM for Chinese K-12 Mathematics Learning",
    arxiv="2506.18330",
    date="2025-06-23",
    authors="Wu, Lixin and Cai, Na and Cheng, Qiao and Wang, Jiachen and Duan, Yitao",
)

recipe = dapo.recipe.with_(
    name="confucius_pshw", paper=paper, new="a problem weighs more the more often the policy fails at it",
    reward=(plain.task_score,), advantage=hardness_weighted, normalise=dr_grpo.over_constant_length,
    claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero"),
    departs=("Divided by a constant length after the sum over tokens, so that the learning rate keeps its meaning.",),
)  # fmt: skip
ter = dapo.recipe.with_(
    name="confucius_ter", paper=paper, new="the mean entropy is drawn to a target from both sides",
    findings=(Finding("entropy", "dapo", "up", "stays near 0.55 instead of collapsing", "place not read"),),
    select=entropy_above, penalties=(entropy_to_target,), claims=("silent_on_equal_rewards", "sums_to_zero"),
    departs=("H is the mean over the tokens of a mini-batch. Exactly on the target it counts as below.",),
)  # fmt: skip
rsr = dapo.recipe.with_(
    name="confucius_rsr", paper=paper, new="surplus groups with spread go first in the next batch",
    sample=Remembers(surplus_first, start={}), claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero"),
    shelf="sampling",
    departs=("At most one batch less one group is left over, so that no response waits more than one step.",),
)  # fmt: skip
