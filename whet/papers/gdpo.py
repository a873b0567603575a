"""GDPO (Liu et al. 2026): each reward is compared within its own group before they are added up.

z_k = (r_k - mean r_k) / (std r_k + ε)           each part by itself, in the group
A   = (S - mean S) / (std S + ε),   S = Σ_k z_k  over the responses of the batch
"""

import torch

from whet import groups
from whet.fields import Group, PerPart, PerResponse
from whet.papers import grpo
from whet.recipe import Paper


def decoupled(rewards: PerPart, group: Group, epsilon: float = 1e-6) -> PerResponse:  # verl
    """The sum over reward parts of each part's z-score in the group.

    >>> decoupled(tensor([[1., 0.], [1., 10.], [0., 0.], [0., 10.]]), tensor([0, 0, 0, 0])).round(decimals=3) + 0
    tensor([ 0.0000,  1.7320, -1.7320,  0.0000])
    """
    return torch.stack([grpo.z_score(part, group, epsilon) for part in rewards.unbind(1)]).sum(0)


def decoupled_over_batch(
    rewards: PerPart,
    group: Group,
    epsilon: float = 1e-6,  # verl
    batch_epsilon: float = 1e-4,  # TRL
) -> PerResponse:
    """The sum of z-scores, then in standard deviations from its mean over the responses of the batch.

    That mean is 0, since the z-scores of a group are; its rounding would give a silent group a sign.

    >>> decoupled_over_batch(tensor([[0., 1.], [2., 3.]]), tensor([0, 0]))
    tensor([-0.7071,  0.7071])
    """
    score = decoupled(rewards, group, epsilon)
    return score / (groups.std(score, torch.zeros_like(group)) + batch_epsilon)


recipe = grpo.recipe.with_(
    name="gdpo",
    paper=Paper(
        "GDPO: Group reward-Decoupled Normalization Policy Optimization for Multi-reward RL Optimization",
        arxiv="2601.05242",
        date="2026-01-08",
        authors="Liu, Shih-Yang and Dong, Xin and Lu, Ximing and Diao, Shizhe and Belcak, Peter and others",
    ),
    new="each reward part is normalised in its group by itself, then the sum over the batch",
    advantage=decoupled_over_batch,
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "Every reward part has weight 1; the paper has a weight for each.",
        "Normalised over the responses of the batch, as TRL; verl whitens over its tokens (decoupled + gae.whitened).",
        "With one reward part it differs from GRPO only in the scale over the batch: overlong+gdpo has two.",
    ),
)
