"""REINFORCE++ (Hu et al. 2025): PPO's clip and whitening without its critic; the whole batch is the baseline.

    r_t = score at the last token, minus β k1 on every token
    R_t = Σ_{k≥t} γ^{k-t} r_k
    A_t = (R_t - mean) / std      over all response tokens of the batch

With a baseline (OpenRLHF, 2025-02-11): R - mean of its group is what is whitened, and the KL (k2) is in the loss.
"""

from functools import partial

import torch

from whet import groups, plain
from whet.fields import Group, Mask, PerResponse, PerToken
from whet.papers import gae, kl_estimators, ppo
from whet.recipe import Paper


def return_to_go(token_reward: PerToken, mask: Mask, gamma: float = 1.0) -> PerToken:  # OpenRLHF
    """Discounted rewards from each token to the end; masked positions do not advance time, as in verl since 2026.

    >>> return_to_go(tensor([[0., 0., 0., 1.]]), torch.ones(1, 4).bool(), gamma=0.9)
    tensor([[0.7290, 0.8100, 0.9000, 1.0000]])
    """
    return groups.to_go(token_reward, mask, gamma)


def above_group_mean(
    token_reward: PerToken,
    reward: PerResponse,
    group: Group,
    mask: Mask,
    gamma: float = 1.0,  # OpenRLHF
) -> PerToken:
    """The return of each token minus the mean reward of its group; no division by the group's spread.

    >>> above_group_mean(tensor([[0., 1.], [0., 0.]]), tensor([1., 0.]), tensor([0, 0]), torch.ones(2, 2).bool())
    tensor([[ 0.5000,  0.5000],
            [-0.5000, -0.5000]])
    """
    return return_to_go(token_reward, mask, gamma) - groups.mean(reward, group)[:, None]


def whitened_by_population(advantage: PerToken, mask: Mask) -> PerToken:
    """OpenRLHF's whitening: the population variance, at least 1e-8; `gae.whitened` is verl's.

    >>> whitened_by_population(tensor([[0., 1., 2.]]), torch.ones(1, 3).bool())
    tensor([[-1.2247,  0.0000,  1.2247]])
    """
    centred = advantage - groups.batch_mean(advantage, mask)
    return centred * torch.rsqrt(groups.batch_mean(centred**2, mask).clamp(min=1e-8))


paper = Paper(
    "REINFORCE++: A Simple and Efficient Approach for Aligning Large Language Models",
    arxiv="2501.03262",
    date="2025-01-04",
    authors="Hu, Jian and others",
)
_conflict = "Whitens with the sample variance, as verl; OpenRLHF's population variance is whitened_by_population."

recipe = ppo.recipe.with_(
    name="reinforce_pp",
    paper=paper,
    new="no critic: returns are whitened over all tokens of the batch, with the KL in the reward",
    reward=(
        plain.task_score,
        partial(kl_estimators.minus_k1, beta=0.01),  # OpenRLHF's default; the paper's own value is not known to us
    ),
    advantage=return_to_go,
    penalties=(),
    claims=("policy_gradient",),
    departs=(_conflict,),
)
baseline = recipe.with_(
    name="reinforce_pp_baseline",
    paper=paper,
    new="the group's mean is subtracted before the whitening over the batch; the KL is in the loss",
    reward=(plain.task_score,),
    advantage=above_group_mean,
    credit=(gae.whitened,),
    penalties=(partial(kl_estimators.k2, beta=0.01),),  # OpenRLHF's default; the paper's own value is not known to us
    claims=("silent_on_equal_rewards", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        _conflict,
        "A group without spread is not silent beside others: long responses pull the batch's mean away from 0.",
        "A lone response gets a baseline equal to its reward; verl's baseline is then 0.",
    ),
)
