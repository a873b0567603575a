"""GMPO (Zhao et al. 2025): the geometric mean of the token ratios, which one outlier cannot carry away.

    x_t  = log π - log π_old,   s = sign A_i
    x'_t = s · min(s x_t, s clip(x_t, -ε, ε))                    cut only where that lowers the objective
    L    = 1/G Σ_i -A_i exp( 1/|o_i| Σ_t x'_t )

The cut comes before the mean; GSPO cuts after it.
"""

from functools import partial

import torch

from whet import groups, plain
from whet.fields import Mask, PerToken
from whet.papers import grpo
from whet.recipe import Paper


def geometric_mean(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    mask: Mask,
    width: float = 0.4,  # section 4: ratios within e^-0.4 and e^0.4
) -> PerToken:
    """-A times the geometric mean of the clipped ratios, repeated on the tokens.

    >>> geometric_mean(tensor([[-1.2, -.3]]), tensor([[-.7, -1.6]]), tensor([[-1., -1.]]), torch.ones(1, 2).bool())
    tensor([[1.5683, 1.5683]])
    """
    x, sign = (logp - old_logp).clamp(-20, 20), advantage.sign()
    pessimistic = sign * torch.minimum(sign * x, sign * x.clamp(-width, width))
    return -advantage * groups.token_mean(pessimistic, mask).exp()[:, None]


recipe = grpo.recipe.with_(
    name="gmpo",
    paper=Paper(
        "Geometric-Mean Policy Optimization",
        arxiv="2507.20673",
        date="2025-07-28",
        authors="Zhao, Yuzhong and Liu, Yue and Liu, Junpeng and Chen, Jingye and Wu, Xun and others",
    ),
    new="the geometric mean of the token ratios instead of the arithmetic one, with a wider clip",
    loss=geometric_mean,
    penalties=(),
    update=partial(plain.one_pass, minibatches=4),  # ours: several updates for each batch, so that the ratios move
    claims=("policy_gradient", *grpo.recipe.claims),
    departs=(
        "verl's default puts clip_ratio = 0.2 where the paper has 0.4 in log space; ours is the paper's.",
        "Where the tokens of a response have unlike advantages each keeps its own; verl takes their mean.",
    ),
)
