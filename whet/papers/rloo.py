"""Back to basics (Ahmadian et al. 2024): the other answers to the same prompt are the baseline.

A_i = R_i - mean of the other R_j = G/(G-1) · (R_i - mean R)            (section 3.2)
"""

import torch

from whet import groups
from whet.fields import Group, PerResponse
from whet.papers import reinforce
from whet.recipe import Paper


def leave_one_out(reward: PerResponse, group: Group) -> PerResponse:
    """R_i minus the mean of the other responses; 0 for a lone response, as verl's vectorised form.

    >>> leave_one_out(tensor([1., 0., 0., 0.]), tensor([0, 0, 0, 0]))
    tensor([ 1.0000, -0.3333, -0.3333, -0.3333])
    """
    size = groups.size(group)
    return (reward - groups.mean(reward, group)) * size / (size - 1).clamp(min=1)


def leave_one_out_or_itself(reward: PerResponse, group: Group) -> PerResponse:
    """verl's scalar form: a lone response, which has no others, keeps its reward.

    >>> leave_one_out_or_itself(tensor([1., 0., 1.]), tensor([0, 0, 1]))
    tensor([ 1., -1.,  1.])
    """
    return torch.where(groups.size(group) > 1, leave_one_out(reward, group), reward)


recipe = reinforce.recipe.with_(
    name="rloo",
    paper=Paper(
        "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs",
        arxiv="2402.14740",
        date="2024-02-22",
        authors="Ahmadian, Arash and Cremer, Chris and Gallé, Matthias and Fadaee, Marzieh and others",
    ),
    new="a leave-one-out baseline instead of a critic",
    advantage=leave_one_out,
    claims=("unbiased", "policy_gradient", "silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing"),
    departs=(
        "No KL in the reward; add it with rloo+k1_reward.",
        "A lone response gets 0; verl's scalar form gives it its reward: leave_one_out_or_itself.",
    ),
)
