"""VESPO (Shen et al. 2026): weigh a whole response by a smooth bump over its importance ratio.

W    = π(y) / μ(y)  over the whole response, not divided by its length; μ drew it
φ(W) = W^k · exp(λ (1 - W)),   (k, λ) = (2, 3) where A ≥ 0, (3, 2) elsewhere         (section 3.4)
L    = -sg(φ(W)) A_i log π(y_it)
"""

from functools import partial
from math import log

import torch

from whet import groups, plain
from whet.fields import Mask, PerToken
from whet.papers import grpo
from whet.recipe import Paper


def gamma_weighted(
    logp: PerToken,
    sampled_logp: PerToken,
    advantage: PerToken,
    mask: Mask,
    up_power: float = 2.0,  # TRL's paper index: c1 of section 3.4 for A ≥ 0
    up_decay: float = 3.0,  # TRL's paper index: c2 of section 3.4 for A ≥ 0
    down_power: float = 3.0,  # TRL's paper index: c1 of section 3.4 for A < 0
    down_decay: float = 2.0,  # TRL's paper index: c2 of section 3.4 for A < 0
) -> PerToken:
    """-φ A log π, φ held constant; computed in logarithms, log W within log 1e-8 and 20 as TRL.

    >>> gamma_weighted(tensor([[-1.2, -.3]]), tensor([[-.7, -1.6]]), tensor([[-1., -1.]]), torch.ones(1, 2).bool())
    tensor([[-1.1402, -0.2851]])
    """
    steps = (logp - sampled_logp).detach().clamp(-20, 20)
    log_w = groups.token_sum(steps, mask).clamp(log(1e-8), 20)[:, None]
    power = torch.where(advantage >= 0, up_power, down_power)
    decay = torch.where(advantage >= 0, up_decay, down_decay)
    return -torch.exp(power * log_w + decay * (1 - log_w.exp())) * advantage * logp


recipe = grpo.recipe.with_(
    name="vespo",
    paper=Paper(
        "VESPO: Variational Sequence-Level Soft Policy Optimization for Stable Off-Policy LLM Training",
        arxiv="2602.10693",
        date="2026-02-11",
        authors="Shen, Guobin and Zhao, Chenxiao and Cheng, Xiang and Huang, Lei and Yu, Xing",
    ),
    new="a smooth weight on the ratio of the whole response, low on both sides of 1, instead of a clip",
    loss=gamma_weighted,
    normalise=plain.over_tokens,
    penalties=(),
    update=partial(plain.one_pass, minibatches=4),  # ours: the paper goes up to 64
    claims=("policy_gradient", *grpo.recipe.claims),
    departs=(
        "The mean is over the tokens of the batch, as TRL; the paper's gradient is that of a whole response.",
        "μ is what the sampler reported, uncut; TRL cuts each token's π_old/μ at 3 (token_truncate).",
    ),
)
