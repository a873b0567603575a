"""CTPO (Zhang et al. 2026): weigh a token by the ratio of everything up to it, and let the clip widen as that grows.

    log ρ_t = sg(Σ_{s≤t} (log π - log π_old)),  its gradient that of log π(y_t) alone
    ρ'_t    = ρ_t clipped to exp(-lo √t) .. exp(hi √t)
    L       = max(-A ρ_t, -A ρ'_t);   where A < 0 at most -A exp(c √t);   mean over tokens

The ratio of one token ignores that its prefix was drawn from another policy; the product up to it is unbiased.
"""

from functools import partial

import torch

from whet import groups, plain
from whet.fields import Mask, PerToken
from whet.papers import grpo
from whet.recipe import Finding, Paper


def cumulative_log_ratio(logp: PerToken, old_logp: PerToken, mask: Mask) -> PerToken:
    """Σ_{s≤t} of the log-ratios, with the gradient of the last one only; at most 10.

    >>> cumulative_log_ratio(tensor([[-0.9, -.8, -1.55]]), tensor([[-1., -.5, -2.]]), torch.ones(1, 3).bool())
    tensor([[ 0.1000, -0.2000,  0.2500]])
    """
    steps = groups.spread((logp - old_logp).detach().clamp(-20, 20), mask)
    return (steps.cumsum(1) + logp - logp.detach()).clamp(max=10)


def widening_clip(
    logp: PerToken, old_logp: PerToken, advantage: PerToken, mask: Mask,
    low: float = 0.025, high: float = 0.05, bound: float = 0.05,  # ctpo.sh: la_clip_low, la_clip_high, la_clip_c; nats
    power: float = 0.5,  # ctpo.sh: la_power; its yaml default is 0
) -> PerToken:  # fmt: skip
    """Dual-clip PPO on the cumulative ratio, all bounds in log space and growing with t^power.

    >>> widening_clip(tensor([[-1.2, -.3]]), tensor([[-.7, -1.6]]), tensor([[-1., -1.]]), torch.ones(1, 2).bool())
    tensor([[0.9753, 1.0733]])
    """
    x = cumulative_log_ratio(logp, old_logp, mask)
    width = mask.cumsum(1).clamp(min=1) ** power
    clipped = torch.minimum(torch.maximum(x, -low * width), high * width)
    loss = torch.maximum(-advantage * x.exp(), -advantage * clipped.exp())
    return torch.where(advantage < 0, torch.minimum(loss, -advantage * torch.exp(bound * width)), loss)


recipe = grpo.recipe.with_(
    name="ctpo", claims=("policy_gradient", *grpo.recipe.claims), loss=widening_clip, penalties=(),
    findings=(Finding("pass@1", "grpo", "up", "the best average on both scales", "abstract, as digested"),),
    paper=Paper(
        "Rethinking Importance Sampling in LLM Policy Optimization: A Cumulative Token Perspective",
        arxiv="2605.07331", date="2026-05-08", authors="Zhang, Yuheng and Ye, Chenlu and Jin, Shuowei and others",
    ),
    new="the product of all ratios up to a token, clipped in log space with bounds that grow as the square root of t",
    normalise=plain.over_tokens, update=partial(plain.one_pass, minibatches=4),  # ours: the script makes 16 updates
    departs=(
        "Without the script's weight of at most 5 for a response against the sampler: add it with ctpo+sequence_is.",
        "The product only; the authors' code also has the geometric mean of the ratios so far.",
    ),
)  # fmt: skip
