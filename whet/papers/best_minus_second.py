"""Inference-time objectives (Tang et al. 2025): only the best response is pushed, by what it adds to the best of k.

A_i = max_j R_j - max_{j≠i} R_j                  R_1st - R_2nd for the best, else 0

With rewards of 0 and 1 it teaches only where exactly one response is right.
"""

import torch

from whet import groups
from whet.fields import Group, PerResponse
from whet.papers import grpo
from whet.recipe import Paper


def best_minus_second(reward: PerResponse, group: Group) -> PerResponse:
    """How far the best response of a group is ahead; 0 for the others, when the best are tied, and for a lone one.

    >>> best_minus_second(tensor([.2, .9, .5, .1]), tensor([0, 0, 0, 0]))
    tensor([0.0000, 0.4000, 0.0000, 0.0000])
    """
    best = reward == groups.largest(reward, group)
    second = groups.largest(torch.where(best, -torch.inf, reward), group)
    ahead = best & (groups.total(best.float(), group) == 1) & second.isfinite()
    return torch.where(ahead, reward - second, 0.0)


def best_minus_second_in_stds(reward: PerResponse, group: Group, epsilon: float = 1e-6) -> PerResponse:  # verl
    """verl's default: the same in standard deviations of the group.

    >>> best_minus_second_in_stds(tensor([.2, .9, .5, .1]), tensor([0, 0, 0, 0]))
    tensor([0.0000, 1.1130, 0.0000, 0.0000])
    """
    return best_minus_second(reward, group) / (groups.std(reward, group) + epsilon)


recipe = grpo.recipe.with_(
    name="best_minus_second",
    paper=Paper(
        "Optimizing Language Models for Inference Time Objectives using Reinforcement Learning",
        arxiv="2503.19595",
        date="2025-03",
        authors="Tang, Yunhao and Zheng, Kunhao and Synnaeve, Gabriel and Munos, Rémi",
    ),
    new="only the best response of a group has an advantage: its lead over the second",
    advantage=best_minus_second,
    claims=("silent_on_equal_rewards", "shift_changes_nothing"),
    departs=(
        "Assumed: no division by the spread, since the leave-one-out estimate is unbiased without it; verl divides"
        " by default (best_minus_second_in_stds).",
        "A lone response gets 0; verl refuses groups of one.",
        "It does not learn `digits`, where seldom exactly one response is right.",
    ),
)
