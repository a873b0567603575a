"""The entropy mechanism (Cui et al. 2025): entropy falls where advantage and log-probability rise together.
Their covariance is what the entropy loses in a step, and few tokens carry most of it.

    c_it      = (A_it - mean A) (log π_it - mean log π),  means over all tokens of the mini-batch
    Clip-Cov  a random share of the tokens with 1 < c < 5 that PPO does not clip gets no gradient
    KL-Cov    L = -A r, no clip, plus β |log π - log π_old| on the tokens with the largest c
"""

from functools import partial
from typing import Any

import torch

from whet import groups, plain
from whet.fields import Mask, PerToken
from whet.papers import grpo, ppo
from whet.recipe import Finding, Paper


def covariance(advantage: PerToken, logp: PerToken, mask: Mask) -> PerToken:
    """What each token adds to the covariance of advantage and log-probability.

    >>> covariance(tensor([[1., 1., -1., -1.]]), tensor([[-.1, -2., -.5, -3.]]), torch.ones(1, 4).bool())
    tensor([[ 1.3000, -0.6000, -0.9000,  1.6000]])
    """
    a, x = (value - groups.batch_mean(value, mask) for value in (advantage, logp))
    return groups.spread(a * x, mask)


def some_covarying(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    mask: Mask,
    rng: Any,
    share: float = 2e-4,  # the authors' scripts: clip_cov_ratio
    least: float = 1.0,  # the authors' scripts: clip_cov_lb
    most: float = 5.0,  # the authors' scripts: clip_cov_ub
    width: float = 1.0,  # the authors' scripts: ratios within 0 and 2
) -> Mask:
    """A random `share` of all tokens, at least one, among those that covary and are not clipped.

    >>> some_covarying(tensor([[-.2, -3.]]), tensor([[-5., -2.5]]), tensor([[1., -1.]]), torch.ones(1, 2) > 0, None)
    tensor([[False,  True]])
    """
    ratio, c = ppo.ratio(logp, old_logp), covariance(advantage, logp, mask)
    clipped = -advantage * ratio.clamp(1 - width, 1 + width) > -advantage * ratio
    candidates = mask & ~clipped & (c > least) & (c < most)
    ranked = torch.where(candidates, c, -torch.inf).flatten().argsort(descending=True)  # whatever the order of rows
    drawn = torch.randperm(int(candidates.sum()), generator=rng)[: max(int(share * int(mask.sum())), 1)]
    return torch.zeros_like(mask).flatten().index_fill(0, ranked[drawn.to(ranked.device)], True).view_as(mask)


def most_covarying(
    logp: PerToken, advantage: PerToken, mask: Mask,
    share: float = 2e-3,  # the authors' 7B script; 2e-4 for 32B, verl's default
) -> Mask:  # fmt: skip
    """The `share` of all tokens with the largest covariance, at least one; none where all advantages are equal.

    >>> most_covarying(tensor([[-.1, -2., -.5, -3.]]), tensor([[1., 1., -1., -1.]]), torch.ones(1, 4).bool())
    tensor([[False, False, False,  True]])
    """
    tokens, c = int(mask.sum()), torch.where(mask, covariance(advantage, logp, mask), -torch.inf).flatten()
    largest = c.topk(min(max(int(share * tokens), 1), tokens)).indices
    return torch.zeros_like(mask).flatten().index_fill(0, largest, True).view_as(mask) & (c > 0).view_as(mask)


def clip_unless_selected(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    selected: Mask,
    low: float = 1.0,  # the authors' scripts: ratios within 0 and 2
    high: float = 1.0,  # the authors' scripts: ratios within 0 and 2
) -> PerToken:
    """PPO's clip; selected tokens give nothing and stay in the denominator.

    >>> clip_unless_selected(-torch.ones(1, 2), -torch.ones(1, 2), torch.ones(1, 2), tensor([[False, True]]))
    tensor([[-1.,  0.]])
    """
    return torch.where(selected, 0.0, ppo.clip(logp, old_logp, advantage, low, high))


def drift_of_selected(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    selected: Mask,
    beta: float = 1.0,  # the authors' scripts: ppo_kl_coef; a yaml of verl-recipe has 0.1
) -> PerToken:
    """-A r, plus β |log π - log π_old| on the selected tokens: nothing until the policy has moved.

    >>> drift_of_selected(tensor([[-3., -1.]]), tensor([[-2.5, -1.]]), -torch.ones(1, 2), tensor([[True, False]]))
    tensor([[1.1065, 1.0000]])
    """
    return -advantage * ppo.ratio(logp, old_logp) + beta * selected * (logp - old_logp).abs()


_shared = {
    "paper": Paper(
        "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models", arxiv="2505.22617",
        date="2025-05-28", authors="Cui, Ganqu and Zhang, Yuchen and Chen, Jiacheng and Yuan, Lifan and others"),
    "normalise": plain.over_tokens, "penalties": (),
    "update": partial(plain.one_pass, minibatches=4),  # ours: the scripts make 8 updates from 256 prompts
    "departs": ("Groups without signal are kept; the scripts draw them again: add that with +dynamic_sampling. "
                "Where all advantages are equal none is selected; verl's KL-Cov takes the first tokens.",),
}  # fmt: skip

recipe = grpo.recipe.with_(
    name="clip_cov", new="a few tokens of high covariance get no gradient",
    findings=(Finding("pass@1", "grpo", "up", "40.4 against 38.6, 7 benchmarks, 7B", "table 2"),),
    select=some_covarying, loss=clip_unless_selected, claims=grpo.recipe.claims, **_shared,
)  # fmt: skip
kl_cov = grpo.recipe.with_(
    name="kl_cov", new="the tokens of highest covariance pay for leaving the old policy",
    findings=(Finding("entropy", "grpo", "up", "over 10 times GRPO's at its plateau", "section 4.3"),
              Finding("pass@1", "grpo", "up", "40.6 against 38.6, 7 benchmarks, 7B", "table 2")),
    select=most_covarying, loss=drift_of_selected, claims=("policy_gradient", *grpo.recipe.claims), **_shared,
)  # fmt: skip
