"""SAPO (Gao et al. 2025): a soft gate on the token ratio instead of a hard clip.

    f(r) = 4/τ · sigmoid(τ (r - 1)),   τ = τ_pos where A > 0, τ_neg elsewhere
    L    = 1/G Σ_i 1/|y_i| Σ_t -f(r_it) A_it

The gradient of f is 4 s (1 - s) r, which is 1 on policy and fades on both sides; the value on policy is 2/τ, not 1.
"""

from functools import partial

import torch

from whet import plain
from whet.fields import PerToken
from whet.papers import grpo, ppo
from whet.recipe import Paper


def soft_gate(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    positive: float = 1.0,  # TRL's paper index and verl: τ_pos = 1.0
    negative: float = 1.05,  # TRL's paper index and verl: τ_neg = 1.05, so that pushing down fades sooner
) -> PerToken:
    """-A times a sigmoid of the ratio, steeper where the advantage is not positive.

    >>> soft_gate(tensor([[-0.9, -1.2]]), tensor([[-1., -.7]]), tensor([[1., -1.]]))
    tensor([[-2.1051,  1.5168]])
    """
    tau = torch.where(advantage > 0, positive, negative)
    return -advantage * torch.sigmoid(tau * (ppo.ratio(logp, old_logp) - 1)) * 4 / tau


recipe = grpo.recipe.with_(
    name="sapo",
    paper=Paper(
        "Soft Adaptive Policy Optimization",
        arxiv="2511.20347",
        date="2025-11-25",
        authors="Gao, Chang and Zheng, Chujie and Chen, Xiong-Hui and Dang, Kai and Liu, Shixuan and others",
    ),
    new="a smooth gate on the ratio, steeper for negative advantages, instead of a clip",
    loss=soft_gate,
    penalties=(),
    update=partial(plain.one_pass, minibatches=4),  # ours: several updates for each batch, as GSPO
    claims=("policy_gradient", *grpo.recipe.claims),
    departs=("Responses count the same (verl and the paper); AReaL takes the mean over the tokens of the batch.",),
)
