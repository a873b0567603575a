"""Generalized advantage estimation (Schulman et al. 2015): a critic's forecast replaces the raw return.

δ_t = r_t + γ V_{t+1} - V_t
A_t = δ_t + γλ A_{t+1}                                     (eq. 16)
A  ← (A - mean) / std  over all tokens of the batch         (every PPO implementation does it)
critic: ½ max((V - G)², (clip(V, V_old ± c) - G)²),  G = A + V_old
"""

import torch
from torch import Tensor

from whet import groups
from whet.fields import Mask, PerResponse, PerToken
from whet.papers import reinforce
from whet.recipe import Paper


def generalized_advantage(
    token_reward: PerToken,
    value: PerToken,
    mask: Mask,
    gamma: float = 1.0,  # verl and TRL: 1.0 for language
    lam: float | PerResponse = 0.95,  # section 6.1: best between 0.92 and 0.98
) -> PerToken:
    """Backwards over the response tokens; masked positions carry the value and the advantage unchanged.

    >>> generalized_advantage(tensor([[0., 0., 0., 1.]]), tensor([[.1, .2, .3, .4]]), torch.ones(1, 4).bool())
    tensor([[0.7997, 0.7365, 0.6700, 0.6000]])
    """
    ahead = next_value = token_reward.new_zeros(len(token_reward))
    columns: list[Tensor] = []
    for t in range(mask.shape[1] - 1, -1, -1):
        delta = token_reward[:, t] + gamma * next_value - value[:, t]
        ahead = torch.where(mask[:, t], delta + gamma * lam * ahead, ahead)
        next_value = torch.where(mask[:, t], value[:, t], next_value)
        columns.append(ahead)
    return groups.spread(torch.stack(columns[::-1], 1), mask)


def whitened(advantage: PerToken, mask: Mask) -> PerToken:
    """Mean 0 and sample variance 1 over all tokens of the batch.

    >>> whitened(tensor([[0.799675, 0.7365, 0.67, 0.6]]), torch.ones(1, 4).bool())
    tensor([[ 1.1418,  0.4067, -0.3670, -1.1815]])
    """
    centred = advantage - groups.batch_mean(advantage, mask)
    variance = groups.spread(centred**2, mask).sum() / (mask.sum() - 1).clamp(min=1)
    return centred * torch.rsqrt(variance + 1e-8)  # verl masked_whiten: 1e-8 inside the root


def critic_loss(
    new_value: PerToken,
    value: PerToken,
    token_reward: PerToken,
    mask: Mask,
    gamma: float = 1.0,  # as the advantage
    lam: float = 0.95,  # as the advantage
    clip: float = 0.5,  # verl cliprange_value
) -> PerToken:
    """Half the squared error to the returns, the critic's own move clipped.

    >>> critic_loss(tensor([[1.5]]), tensor([[.4]]), tensor([[1.]]), torch.tensor([[True]])).round(decimals=4)
    tensor([[0.1250]])
    """
    returns = generalized_advantage(token_reward, value, mask, gamma, lam) + value
    near = value + (new_value - value).clamp(-clip, clip)
    return 0.5 * torch.maximum((new_value - returns) ** 2, (near - returns) ** 2)


recipe = reinforce.recipe.with_(
    name="gae",
    paper=Paper(
        "High-Dimensional Continuous Control Using Generalized Advantage Estimation",
        arxiv="1506.02438",
        date="2015-06-08",
        authors="Schulman, John and Moritz, Philipp and Levine, Sergey and Jordan, Michael and Abbeel, Pieter",
    ),
    new="a critic, and an exponential mean of its n-step advantages",
    advantage=generalized_advantage,
    credit=(whitened,),
    penalties=(critic_loss,),
    claims=("policy_gradient",),
    departs=("The critic steps with the policy's optimiser and rate; the paper fits it apart, in a trust region.",),
)
