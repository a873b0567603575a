"""GPG (Chu et al. 2025): the plain policy gradient on centred rewards, scaled up for the groups that say nothing.

A_i = α (R_i - mean R),   α = N / (N - M)        (eq. 7; M of N without spread)
L   = -A_i log π(y_it), token mean               (eq. 5; no ratio, no clip, no KL)
"""

from whet import groups
from whet.fields import Group, PerResponse
from whet.papers import reinforce
from whet.recipe import Paper


def scaled_by_mixed(reward: PerResponse, group: Group) -> PerResponse:
    """The centred reward, times all responses over those whose group has spread.

    >>> scaled_by_mixed(tensor([1., 0., 0., 0., 1., 1., 1., 1.]), tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    tensor([ 1.5000, -0.5000, -0.5000, -0.5000,  0.0000,  0.0000,  0.0000,  0.0000])
    """
    mixed = groups.mixed(reward, group).sum().clamp(min=1)
    return (reward - groups.mean(reward, group)) * len(reward) / mixed


def scaled_by_nonzero(reward: PerResponse, group: Group) -> PerResponse:
    """verl's rule: the centred reward, times all responses over those with a reward that is not 0.

    >>> scaled_by_nonzero(tensor([1., 0., 0., 0., 1., 1., 1., 1.]), tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    tensor([ 1.2000, -0.4000, -0.4000, -0.4000,  0.0000,  0.0000,  0.0000,  0.0000])
    """
    return (reward - groups.mean(reward, group)) * len(reward) / (reward != 0).sum().clamp(min=1)


recipe = reinforce.recipe.with_(
    name="gpg",
    paper=Paper(
        "GPG: A Simple and Strong Reinforcement Learning Baseline for Model Reasoning",
        arxiv="2504.02546",
        date="2025-04-03",
        authors="Chu, Xiangxiang and Huang, Hailang and Zhang, Xiao and Wei, Fei and Wang, Yong",
    ),
    new="centred rewards in the plain policy gradient, scaled up by the share of groups without spread",
    advantage=scaled_by_mixed,
    claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing"),
    departs=(
        "verl counts responses with a reward that is not 0 instead of responses in mixed groups: scaled_by_nonzero.",
        "No resampling while too few groups have spread; add it with gpg+dynamic_sampling.",
    ),
)
