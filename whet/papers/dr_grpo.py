"""Dr. GRPO (Liu et al. 2025): GRPO without the two divisions that favour long wrong answers and easy prompts.

A_i = R_i - mean R
L   = 1/(n L_max) Σ_i Σ_t clip(r_t, A_i)                    (section 3.2; L_max is a constant)
"""

from typing import Any

from whet import groups
from whet.fields import Group, Mask, PerResponse, PerToken
from whet.papers import grpo
from whet.recipe import Finding, Paper


def centred(reward: PerResponse, group: Group) -> PerResponse:
    """The reward minus its group's mean.

    >>> centred(tensor([1., 0., 0., 0.]), tensor([0, 0, 0, 0]))
    tensor([ 0.7500, -0.2500, -0.2500, -0.2500])
    """
    return reward - groups.mean(reward, group)


def over_constant_length(mask: Mask, max_tokens: Any) -> PerToken:
    """1 / (responses × the longest length allowed): no response is divided by its own length.

    >>> over_constant_length(tensor([[True, True], [True, False]]), 4)
    tensor([[0.1250, 0.1250],
            [0.1250, 0.0000]])
    """
    return mask / (mask.any(1).sum().clamp(min=1) * max_tokens)


recipe = grpo.recipe.with_(
    name="dr_grpo",
    findings=(Finding("length", "grpo", "down", "wrong answers stop growing", "section 3.2, figure 5"),),
    paper=Paper(
        "Understanding R1-Zero-Like Training: A Critical Perspective",
        arxiv="2503.20783",
        date="2025-03-26",
        authors="Liu, Zichen and Chen, Changyu and Li, Wenjun and Qi, Penghui and Pang, Tianyu and others",
    ),
    new="no division by the group's standard deviation or by the response's length",
    advantage=centred,
    normalise=over_constant_length,
    penalties=(),
    claims=("unbiased", "policy_gradient", "silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing"),
)
