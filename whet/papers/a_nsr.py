"""Adaptive negative reinforcement (2605.07137): the push away from wrong answers fades, or follows their confidence.

A-NSR   A = λ for right, -β(t) for wrong,   β falls from 1 to 0.1 over the run
CW-NSR  A = -w_i for wrong,  w_i = exp(1/|y_i| Σ_t log π_old(y_it))
"""

from math import cos, pi
from typing import Any

import torch

from whet import groups
from whet.fields import Flag, Mask, PerResponse, PerToken
from whet.papers import rlvr_decomposed
from whet.recipe import Finding, Paper


def fading(
    correct: Flag,
    progress: Any,
    right: float = 0.1,  # W-REINFORCE's λ
    start: float = 1.0,  # ours: W-REINFORCE's weight
    end: float = 0.1,  # ours: as much as a right answer
) -> PerResponse:
    """λ for a right answer; for a wrong one -β, which falls in a straight line over the run.

    >>> fading(tensor([True, False]), 0.25)
    tensor([ 0.1000, -0.7750])
    """
    return torch.where(correct, right, -(start + (end - start) * progress))


def fading_by_cosine(
    correct: Flag,
    progress: Any,
    right: float = 0.1,  # W-REINFORCE's λ
    start: float = 1.0,  # ours: W-REINFORCE's weight
    end: float = 0.1,  # ours: as much as a right answer
) -> PerResponse:
    """The same with a β that falls along half a cosine.

    >>> fading_by_cosine(tensor([True, False]), 0.25)
    tensor([ 0.1000, -0.8682])
    """
    return torch.where(correct, right, -(end + (start - end) * (1 + cos(pi * progress)) / 2))


def fading_by_powers(
    correct: Flag,
    progress: Any,
    right: float = 0.1,  # W-REINFORCE's λ
    start: float = 1.0,  # ours: W-REINFORCE's weight
    end: float = 0.1,  # ours: as much as a right answer
) -> PerResponse:
    """The same with a β that falls by equal factors.

    >>> fading_by_powers(tensor([True, False]), 0.25)
    tensor([ 0.1000, -0.5623])
    """
    return torch.where(correct, right, -start * (end / start) ** progress)


def by_confidence(correct: Flag, sampled_logp: PerToken, mask: Mask) -> PerResponse:
    """For a wrong answer minus its probability per token (geometric mean), 0 for a right one.

    >>> by_confidence(tensor([False, False, True]), tensor([[-.2], [-1.], [-1.]]), torch.ones(3, 1).bool())
    tensor([-0.8187, -0.3679, -0.0000])
    """
    return -torch.exp(groups.token_mean(sampled_logp, mask)) * ~correct


def by_relative_confidence(correct: Flag, sampled_logp: PerToken, mask: Mask) -> PerResponse:
    """The same divided by its mean over all wrong answers, so that their mean push is 1.

    >>> by_relative_confidence(tensor([False] * 3), tensor([[-.2], [-1.], [-2.5]]), torch.ones(3, 1).bool())
    tensor([-1.9360, -0.8699, -0.1941])
    """
    push = by_confidence(correct, sampled_logp, mask)
    return push * (~correct).sum() / push.abs().sum().clamp(min=1e-6)


paper = Paper(
    "Adaptive Negative Reinforcement for LLM Reasoning: Dynamically Balancing Correction and Diversity in RLVR",
    arxiv="2605.07137",
    date="2026-05",
    authors="Ingle, Yash and Chauhan, Jaival and Yadav, Ankit and Mishra, Sudhakar",
)

recipe = rlvr_decomposed.w_reinforce.with_(
    name="a_nsr", paper=paper, new="the push away from wrong answers fades over the run", advantage=fading,
    findings=(Finding("pass@64", "grpo", "up", "a better balance over k, 3 benchmarks", "abstract, as digested"),),
    claims=("policy_gradient",),
    departs=(
        "Assumed: a straight line from 1 to 0.1 with a constant λ = 0.1; the abstract names schedules without numbers"
        " (fading_by_cosine and fading_by_powers are here too).",
    ),
)  # fmt: skip
cw_nsr = rlvr_decomposed.nsr.with_(
    name="cw_nsr", paper=paper, new="a wrong answer is pushed away by as much as it was believed",
    advantage=by_confidence, claims=("policy_gradient",),
    departs=(
        "Assumed: the weight is the length-normalised likelihood itself; by_relative_confidence divides by its mean.",
        "The likelihood is the sampler's, so that no extra forward pass is needed.",
    ),
)  # fmt: skip
