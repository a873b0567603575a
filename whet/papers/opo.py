"""OPO (Hao et al. 2025): the baseline with the least variance, when gradients grow with length.

b   = Σ_j |y_j| R_j / Σ_j |y_j|                             (eq. 8)
A_i = R_i - b                                               exact on-policy, no KL, no std
"""

from whet import groups
from whet.fields import Count, Group, PerResponse
from whet.papers import grpo
from whet.recipe import Finding, Paper


def length_weighted(reward: PerResponse, group: Group, length: Count) -> PerResponse:
    """The reward minus the group's mean reward, each response counted by its length.

    >>> length_weighted(tensor([2., 1., 0.]), tensor([0, 0, 0]), tensor([10, 20, 30]))
    tensor([ 1.3333,  0.3333, -0.6667])
    """
    tokens, centred = length.float(), reward - groups.mean(reward, group)  # so that equal rewards are exactly 0
    return centred - groups.total(tokens * centred, group) / groups.total(tokens, group).clamp(min=1)


recipe = grpo.recipe.with_(
    name="opo",
    findings=(
        Finding("kl", "grpo", "down", "less drift at similar reward; no number", "verl's page"),
        Finding("entropy", "grpo", "up", "higher; no number", "verl's page"),
    ),
    paper=Paper(
        "On-Policy RL with Optimal Reward Baseline",
        arxiv="2505.23585",
        date="2025-05-29",
        authors="Hao, Yaru and Dong, Li and Wu, Xun and Huang, Shaohan and Chi, Zewen and Wei, Furu",
    ),
    new="a length-weighted baseline that minimises the variance of the gradient",
    advantage=length_weighted,
    penalties=(),
    claims=("silent_on_equal_rewards", "shift_changes_nothing"),
    departs=("A lone response gets 0; verl gives it a baseline of 0 and so its reward.",),
)
