"""TOPR (Le Roux et al. 2025): off policy, push a wrong answer down only as far as the policy still gives it.

    w_i = 1 where R_i > 0,   clip(π(y_i) / μ(y_i), 0, 1) where R_i < 0,   over the whole response    (eq. 7, 8)
    L   = 1/G Σ_i 1/|y_i| Σ_t -sg(w_i) R_i log π(y_it)

μ is the policy that drew the responses. The reward is 1 or -1, without a baseline and without KL.
"""

from functools import partial

import torch

from whet import groups, plain
from whet.fields import Flag, Mask, PerResponse, PerToken
from whet.papers import grpo, reinforce
from whet.recipe import Paper


def plus_minus(correct: Flag) -> PerResponse:
    """1 for a right answer, -1 for a wrong one.

    >>> plus_minus(tensor([True, False]))
    tensor([ 1., -1.])
    """
    return 2 * correct.float() - 1


def tapered(
    logp: PerToken,
    sampled_logp: PerToken,
    advantage: PerToken,
    mask: Mask,
    lower: float = 0.0,  # eq. 8: the limits of the ratio are [0, 1]
    upper: float = 1.0,  # eq. 8: the limits of the ratio are [0, 1]
) -> PerToken:
    """-w A log π; w is the ratio of the whole response, clipped, where A < 0, and 1 elsewhere.

    >>> tapered(torch.full((1, 4), -1.5), torch.full((1, 4), -1.), -torch.ones(1, 4), torch.ones(1, 4).bool())
    tensor([[-0.2030, -0.2030, -0.2030, -0.2030]])
    """
    ratio = groups.token_sum((logp - sampled_logp).detach(), mask).exp()[:, None]
    return -torch.where(advantage >= 0, 1.0, ratio.clamp(lower, upper)) * advantage * logp


def tapered_by_length(
    logp: PerToken,
    sampled_logp: PerToken,
    advantage: PerToken,
    mask: Mask,
    lower: float = 0.0,  # verl: topr_negative_ratio_lower
    upper: float = 1.0,  # verl: topr_negative_ratio_upper
) -> PerToken:
    """verl's rule: the ratio is the geometric mean over the tokens of the response.

    >>> tapered_by_length(torch.full((1, 2), -1.5), torch.full((1, 2), -1.), -torch.ones(1, 2), torch.ones(1, 2).bool())
    tensor([[-0.9098, -0.9098]])
    """
    ratio = groups.token_mean((logp - sampled_logp).detach(), mask).exp()[:, None]
    return -torch.where(advantage >= 0, 1.0, ratio.clamp(lower, upper)) * advantage * logp


recipe = reinforce.recipe.with_(
    name="topr",
    paper=Paper(
        "Tapered Off-Policy REINFORCE: Stable and efficient reinforcement learning for LLMs",
        arxiv="2503.14286",
        date="2025-03-18",
        authors="Le Roux, Nicolas and Bellemare, Marc G. and Lebensold, Jonathan and Bergeron, Arnaud and others",
    ),
    new="the importance weight of a wrong answer is cut at 1, that of a right one is left out",
    reward=(plus_minus,),
    loss=tapered,
    normalise=grpo.over_responses,
    update=partial(plain.one_pass, minibatches=4),  # ours: the paper trains on a fixed set of responses, far off policy
    claims=("policy_gradient",),
    departs=(
        "The ratio is of the whole response, as the paper; verl takes its geometric mean (`tapered_by_length`), ROLL "
        "the ratio it is configured for.",
        "μ is what the sampler reported; verl takes the policy at the start of the update.",
        "Online, four mini-batches for each batch; the paper draws once and trains on it many times.",
    ),
)
