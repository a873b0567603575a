"""Dual-clip PPO (Ye et al. 2019): a bound on the loss of bad responses whose ratio has exploded.

where A < 0:  L = min(L_ppo, -A c),  c > 1                  (eq. 5)
"""

import torch

from whet.fields import PerToken
from whet.papers import ppo
from whet.recipe import Paper, Refused


def dual_clip(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    low: float = 0.2,  # as PPO
    high: float = 0.2,  # as PPO
    bound: float = 3.0,  # section 5.1: c = 3
) -> PerToken:
    """PPO's clip, and for A < 0 no more than -A c.

    >>> dual_clip(tensor([[-0.3]]), tensor([[-1.6]]), tensor([[-1.]]))
    tensor([[3.]])
    """
    if bound <= 1:
        raise Refused(f"loss.bound is {bound}; dual-clip needs a bound above 1, the ratio of an unmoved policy.")
    clipped = ppo.clip(logp, old_logp, advantage, low, high)
    return torch.where(advantage < 0, torch.minimum(clipped, -advantage * bound), clipped)


recipe = ppo.recipe.with_(
    name="dual_clip",
    paper=Paper(
        "Mastering Complex Control in MOBA Games with Deep Reinforcement Learning",
        arxiv="1912.09729",
        date="2019-12-20",
        authors="Ye, Deheng and Liu, Zhao and Sun, Mingfei and Shi, Bei and others",
    ),
    new="a second clip, from above, on the loss of tokens with negative advantage",
    loss=dual_clip,
    claims=("policy_gradient",),
)
