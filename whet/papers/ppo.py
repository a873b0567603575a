"""Proximal policy optimisation (Schulman et al. 2017): stop pushing a token once its ratio has moved far enough.

r_t = π(y_t) / π_old(y_t)
L   = max(-A r_t, -A clip(r_t, 1-ε_low, 1+ε_high))          (eq. 7)
"""

from functools import partial

import torch

from whet import plain
from whet.fields import PerToken
from whet.papers import gae
from whet.recipe import Paper


def ratio(logp: PerToken, old_logp: PerToken) -> PerToken:
    """π / π_old of each token; the exponent is kept within ±20 so that it stays finite (as verl does).

    >>> ratio(tensor([[-0.9]]), tensor([[-1.0]]))
    tensor([[1.1052]])
    """
    return torch.exp((logp - old_logp).clamp(-20, 20))


def clip(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    low: float = 0.2,  # section 6.1: ε = 0.2
    high: float = 0.2,  # section 6.1: ε = 0.2
) -> PerToken:
    """The pessimistic of the plain and the clipped surrogate.

    >>> clip(tensor([[-1.55, -0.3]]), tensor([[-2., -1.6]]), tensor([[1., -1.]])).round(decimals=4)
    tensor([[-1.2000,  3.6693]])
    """
    r = ratio(logp, old_logp)
    return torch.maximum(-advantage * r, -advantage * r.clamp(1 - low, 1 + high))


recipe = gae.recipe.with_(
    name="ppo",
    paper=Paper(
        "Proximal Policy Optimization Algorithms",
        arxiv="1707.06347",
        date="2017-07-20",
        authors="Schulman, John and Wolski, Filip and Dhariwal, Prafulla and Radford, Alec and Klimov, Oleg",
    ),
    new="a clipped ratio, so that one batch can be used for several updates",
    loss=clip,
    update=partial(plain.one_pass, minibatches=4),  # verl: 1024 prompts in mini-batches of 256
    claims=("policy_gradient",),
    departs=("One pass of four mini-batches, as in language-model practice; the paper makes 3 to 15 passes.",),
)
