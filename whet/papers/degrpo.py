"""Thinkless (Fang et al. 2025): the first token, which chooses between thinking and a short answer, has its own mean.

L = α · mean_i l_i0 + mean of all other l_it,   α = 0.001
A = R - mean R,   R = 1 right and short, 0.5 right after thinking, -1 wrong
"""

from functools import partial
from typing import Any

import torch

from whet.fields import Flag, Mask, PerResponse, PerToken
from whet.papers import dr_grpo, grpo, kl_estimators
from whet.recipe import Paper


def shorter_is_better(
    correct: Flag,
    texts: Any,
    short: float = 1.0,  # the authors' code
    thinking: float = 0.5,  # the authors' code; 1 - γ in the paper
    wrong: float = -1.0,  # the authors' code
) -> PerResponse:
    """A right answer is worth more when it begins with <short>.

    >>> shorter_is_better(tensor([True, True, False]), ["<short>7", "<think>so 7", "<short>8"])
    tensor([ 1.0000,  0.5000, -1.0000])
    """
    chose_short = torch.tensor([text.lstrip().startswith("<short>") for text in texts])
    return torch.where(correct, torch.where(chose_short, short, thinking), wrong)


def control_token_apart(mask: Mask, alpha: float = 0.001) -> PerToken:  # the authors' code
    """α / the number of first tokens on each of them, 1 / the number of all later tokens on those.

    >>> control_token_apart(tensor([[True, True, True, False]]), alpha=0.5)
    tensor([[0.5000, 0.5000, 0.5000, 0.0000]])
    """
    first = mask & (torch.arange(mask.shape[1], device=mask.device) == 0)
    later = mask & ~first
    return alpha * first / first.sum().clamp(min=1) + later / later.sum().clamp(min=1)


recipe = grpo.recipe.with_(
    name="degrpo",
    paper=Paper(
        "Thinkless: LLM Learns When to Think", arxiv="2505.13379", date="2025-05-19",
        authors="Fang, Gongfan and Ma, Xinyin and Wang, Xinchao",
    ),
    new="the token that chooses how to answer has its own mean, and right short answers earn more",
    reward=(shorter_is_better,), advantage=dr_grpo.centred, normalise=control_token_apart,
    penalties=(partial(kl_estimators.k3, beta=0.001),),  # the authors' script
    claims=("silent_on_equal_rewards", "sums_to_zero"),
    departs=(
        "Where the model does not know the word <short>, which the paper teaches first, every right answer is thought.",
        "It does not learn `digits`, whose answer is the first token: that one counts a thousandth.",
        "Assumed: the KL estimate is k3.",
    ),
)  # fmt: skip
