"""GRPO (Shao et al. 2024, DeepSeekMath): compare the responses to one prompt in units of their spread.

A_i = (R_i - mean R) / (std R + ε)                          (section 4.1.2; sample std, ε = 1e-6 as verl)
L   = 1/G Σ_i 1/|o_i| Σ_t [ clip(r_t, A_i) + β k3 ]         (eq. 3)
"""

import torch

from whet import groups
from whet.fields import Group, Mask, PerResponse, PerToken
from whet.papers import kl_estimators, ppo, reinforce
from whet.recipe import Finding, Paper


def z_score(reward: PerResponse, group: Group, epsilon: float = 1e-6) -> PerResponse:  # verl; TRL 1e-4, OpenRLHF 1e-9
    """The reward in standard deviations from its group's mean; 0 where all rewards are equal.

    >>> z_score(tensor([1., 0., 0., 0.]), tensor([0, 0, 0, 0]))
    tensor([ 1.5000, -0.5000, -0.5000, -0.5000])
    """
    return (reward - groups.mean(reward, group)) / (groups.std(reward, group) + epsilon)


def z_score_or_itself(reward: PerResponse, group: Group, epsilon: float = 1e-6) -> PerResponse:  # verl
    """verl's rule for a lone response: a mean of 0 and a spread of 1, so that it keeps its reward.

    >>> z_score_or_itself(tensor([1., 0., 1.]), tensor([0, 0, 1]))
    tensor([ 0.7071, -0.7071,  1.0000])
    """
    return torch.where(groups.size(group) > 1, z_score(reward, group, epsilon), reward / (1 + epsilon))


def over_responses(mask: Mask) -> PerToken:
    """1 / the number of responses, then 1 / their own length: every response counts the same.

    >>> over_responses(tensor([[True, True], [True, False]]))
    tensor([[0.2500, 0.2500],
            [0.5000, 0.0000]])
    """
    length = groups.length(mask)
    return groups.spread(1 / length.clamp(min=1), mask) / (length > 0).sum().clamp(min=1)


recipe = reinforce.recipe.with_(
    name="grpo",
    findings=(Finding("pass@1", "start", "up", "MATH 46.8 to 51.7, 7B", "table 5"),),
    paper=Paper(
        "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", arxiv="2402.03300",
        date="2024-02-05",
        authors="Shao, Zhihong and Wang, Peiyi and Zhu, Qihao and Xu, Runxin and Song, Junxiao and others",
    ),
    new="the group's mean and standard deviation instead of a critic, and KL in the loss", advantage=z_score,
    normalise=over_responses, loss=ppo.clip,
    penalties=(kl_estimators.k3,),  # section 4.2: β = 0.04
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=("16 responses to 16 prompts; the paper draws 64 for each. One update for each batch, as the paper.",),
)  # fmt: skip
