"""SRFT (Fu et al. 2025): imitate demonstrations and explore in one stage, weighed by the policy's entropy H.

A       z-score over the responses and the demonstration together
L_SFT   = 0.5 e^-H · E_demo[-log π]
L_demo  = -E_demo[π A]                             the ratio π / 1: nobody knows how it was sampled; no clip
L_self  = 0.1 e^H · E_right[-log π] + E_wrong[log π]
"""

import math
from typing import Any

import torch

from whet import groups
from whet.batch import join
from whet.fields import Flag, Mask, PerResponse, PerToken
from whet.papers import grpo
from whet.recipe import Finding, Paper


def with_demonstrations(
    draw: Any,
    problems: Any,
    responses: int = 8,  # the paper: 8 rollouts
    temperature: float = 1.0,  # the policy itself is what is sampled
) -> Any:
    """Responses and one demonstration for each problem; a demonstration has the responses' mean entropy."""
    own, shown = draw(problems, responses, temperature), draw.demonstrations(problems)
    entropy = groups.batch_mean(own["sampled_entropy"], own["mask"])
    return join([own, shown.having(sampled_entropy=entropy * shown["mask"])])


def by_kind(
    mask: Mask,
    sampled_entropy: PerToken,
    demonstration: Flag,
    correct: Flag,
    right: float = 0.1,  # the paper
) -> PerResponse:
    """Demonstrations, right and wrong responses each have a mean of their own; the right one counts 0.1 e^H.

    >>> by_kind(torch.ones(4, 1).bool(), torch.full((4, 1), .5), tensor([True, False, False, False]),
    ...         tensor([True, True, True, False]))
    tensor([4.0000, 0.3297, 0.3297, 4.0000])
    """
    kind = torch.where(demonstration, 2, correct.long())
    there = mask.any(1).float()
    size = groups.total(there, kind).clamp(min=1)
    entropy = float(groups.batch_mean(sampled_entropy, mask))
    return there.sum() / size * torch.where(kind == 1, right * math.exp(entropy), 1.0)


def imitation_and_exploration(
    logp: PerToken,
    advantage: PerToken,
    sampled_entropy: PerToken,
    demonstration: Flag,
    correct: Flag,
    imitation: float = 0.5,  # the paper
) -> PerToken:
    """-w_SFT log π - π A on a demonstration, -log π on a right response, log π on a wrong one.

    >>> imitation_and_exploration(tensor([[-4.], [-3.], [-5.]]), tensor([[.57735], [0.], [0.]]),
    ...     torch.full((3, 1), .5), tensor([True, False, False]), tensor([True, True, False]))
    tensor([[ 1.2025],
            [ 3.0000],
            [-5.0000]])
    """
    demo = -imitation * torch.exp(-sampled_entropy) * logp - torch.exp(logp) * advantage
    own = torch.where(correct[:, None], -logp, logp)
    return torch.where(demonstration[:, None], demo, own)


recipe = grpo.recipe.with_(
    name="srft",
    findings=(Finding("pass@1", "grpo", "up", "59.1 on average, 9.0 points over RL alone", "abstract"),),
    paper=Paper(
        "SRFT: A Single-Stage Method with Supervised and Reinforcement Fine-Tuning for Reasoning",
        arxiv="2506.19767",
        date="2025-06-24",
        authors="Fu, Yuqian and Chen, Tinghong and Chai, Jiajun and Wang, Xihuai and Tu, Songjun and others",
    ),
    new="demonstrations beside the responses, and entropy decides how much each of them counts",
    sample=with_demonstrations,
    weights=(by_kind,),
    loss=imitation_and_exploration,
    penalties=(),
    shelf="distillation",
    departs=(
        "Assumed: the sample standard deviation, as verl; with the population's, A is larger by √(n/(n-1)).",
        "Assumed: the ratio π / 1 is of each token, not of the whole demonstration, which would be 0 in practice.",
        "Assumed: each of the three expectations is a mean over the batch's responses of that kind and their tokens.",
        "H is the mean entropy of the batch as it was sampled.",
    ),
)
