"""GSPO (Zheng et al. 2025): one ratio for a whole response, because the reward is for a whole response.

    s_i  = exp( 1/|y_i| Σ_t (log π - log π_old) )                (eq. 7)
    L    = 1/G Σ_i max(-A_i s_i, -A_i clip(s_i, 1-ε_low, 1+ε_high))
    s_it = sg(s_i) · π(y_it) / sg(π(y_it))                       (section 4.3, GSPO-token, with an advantage A_it)

The two have the same value, and the same gradient where the tokens of a response share their advantage.
"""

from functools import partial

import torch

from whet import groups, plain
from whet.fields import Mask, PerResponse, PerToken
from whet.papers import grpo
from whet.recipe import Finding, Paper


def sequence_ratio(logp: PerToken, old_logp: PerToken, mask: Mask) -> PerResponse:
    """The geometric mean of the token ratios of a response.

    >>> sequence_ratio(tensor([[-1.2, -.3]]), tensor([[-.7, -1.6]]), torch.ones(1, 2).bool())
    tensor([1.4918])
    """
    return torch.exp(groups.token_mean(logp - old_logp, mask).clamp(-20, 20))


def sequence_clip(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    mask: Mask,
    low: float = 3e-4,  # section 5.1
    high: float = 4e-4,  # section 5.1
) -> PerToken:
    """PPO's clip on the length-normalised ratio of the response, repeated on its tokens.

    >>> sequence_clip(tensor([[-1.2, -.3]]), tensor([[-.7, -1.6]]), tensor([[-1., -1.]]), torch.ones(1, 2).bool())
    tensor([[1.4918, 1.4918]])
    """
    s = sequence_ratio(logp, old_logp, mask)[:, None]
    return torch.maximum(-advantage * s, -advantage * s.clamp(1 - low, 1 + high))


def sequence_clip_by_token(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    mask: Mask,
    low: float = 3e-4,  # section 5.1
    high: float = 4e-4,  # section 5.1
) -> PerToken:
    """The same clip on the ratio of the response, but each token has the gradient of its own advantage.

    >>> one = torch.ones(1, 2)
    >>> sequence_clip_by_token(tensor([[-1.2, -.3]]), tensor([[-.7, -1.6]]), -one, one.bool())
    tensor([[1.4918, 1.4918]])
    """
    s = sequence_ratio(logp, old_logp, mask).detach()[:, None] * torch.exp(logp - logp.detach())
    return torch.maximum(-advantage * s, -advantage * s.clamp(1 - low, 1 + high))


recipe = grpo.recipe.with_(
    name="gspo",
    findings=(
        Finding("clip_fraction", "grpo", "up", "two orders of magnitude more", "section 5.2, figure 2"),
        Finding("speed", "grpo", "up", "more efficient at equal compute", "section 5.1, figure 1"),
    ),
    paper=Paper(
        "Group Sequence Policy Optimization",
        arxiv="2507.18071",
        date="2025-07-24",
        authors="Zheng, Chujie and Liu, Shixuan and Li, Mingze and Chen, Xiong-Hui and Yu, Bowen and others",
    ),
    new="a length-normalised ratio of the whole response, clipped as one",
    loss=sequence_clip,
    penalties=(),
    update=partial(plain.one_pass, minibatches=4),  # section 5.1: four mini-batches for each batch of rollouts
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
)

gspo_token = recipe.with_(
    name="gspo_token",
    paper=recipe.paper,
    new="the ratio of the whole response with an advantage for each token",
    loss=sequence_clip_by_token,
    claims=("policy_gradient", *recipe.claims),
    departs=("The same as gspo until a `credit` part gives the tokens of a response unlike advantages.",),
)
