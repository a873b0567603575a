"""Approximating KL divergence (Schulman 2020): three one-sample estimates of KL(π ‖ π_ref), x = log π - log π_ref.

    k1 = x (unbiased)    k2 = x²/2 (biased, low variance)    k3 = e^-x - 1 + x (unbiased, low variance, never negative)

Where an estimate is put decides what is optimised. As a *loss*: E∇k1 = 0, E∇k2 = ∇KL(π ‖ π_ref), E∇k3 = ∇KL(π_ref ‖ π).
As a *reward*: -β k1 gives the gradient of KL(π ‖ π_ref), and -β k3 does not.
"""

import torch

from whet import plain
from whet.fields import Mask, PerToken
from whet.papers import reinforce
from whet.recipe import Paper


def log_ratio(logp: PerToken, ref_logp: PerToken) -> PerToken:
    """x = log π - log π_ref, kept within ±20 so that e^-x stays finite (as verl does)."""
    return (logp - ref_logp).clamp(-20, 20)


def k1(logp: PerToken, ref_logp: PerToken, beta: float = 0.04) -> PerToken:  # GRPO's 0.04
    """β x. As a loss its expected gradient is zero: it does nothing but add noise.

    >>> k1(tensor([[-1.0]]), tensor([[-1.5]]), beta=1.0)
    tensor([[0.5000]])
    """
    return beta * log_ratio(logp, ref_logp)


def k2(logp: PerToken, ref_logp: PerToken, beta: float = 0.04) -> PerToken:  # GRPO's 0.04
    """β x²/2.

    >>> k2(tensor([[-1.0]]), tensor([[-1.5]]), beta=1.0)
    tensor([[0.1250]])
    """
    return beta * log_ratio(logp, ref_logp) ** 2 / 2


def k3(logp: PerToken, ref_logp: PerToken, beta: float = 0.04) -> PerToken:  # GRPO's 0.04
    """β (e^-x - 1 + x).

    >>> k3(tensor([[-1.0]]), tensor([[-1.5]]), beta=1.0)
    tensor([[0.1065]])
    """
    x = log_ratio(logp, ref_logp)
    return beta * (torch.exp(-x) - 1 + x)


def minus_k1(
    old_logp: PerToken,
    ref_logp: PerToken,
    mask: Mask,
    beta: float = 0.04,  # as in the loss: GRPO's 0.04
) -> PerToken:
    """-β k1 on each token, as a reward.

    >>> minus_k1(tensor([[-1.0]]), tensor([[-1.5]]), torch.tensor([[True]]), beta=1.0)
    tensor([[-0.5000]])
    """
    return -k1(old_logp, ref_logp, beta) * mask


def minus_k2(
    old_logp: PerToken,
    ref_logp: PerToken,
    mask: Mask,
    beta: float = 0.04,  # as in the loss: GRPO's 0.04
) -> PerToken:
    """-β k2 on each token, as a reward.

    >>> minus_k2(tensor([[-1.0]]), tensor([[-1.5]]), torch.tensor([[True]]), beta=1.0)
    tensor([[-0.1250]])
    """
    return -k2(old_logp, ref_logp, beta) * mask


def minus_k3(
    old_logp: PerToken,
    ref_logp: PerToken,
    mask: Mask,
    beta: float = 0.04,  # as in the loss: GRPO's 0.04
) -> PerToken:
    """-β k3 on each token, as a reward: not the gradient of KL(π ‖ π_ref).

    >>> minus_k3(tensor([[-1.0]]), tensor([[-1.5]]), torch.tensor([[True]]), beta=1.0)
    tensor([[-0.1065]])
    """
    return -k3(old_logp, ref_logp, beta) * mask


paper = Paper(
    "Approximating KL Divergence",
    date="2020-03-07",
    authors="Schulman, John",
    url="http://joschu.net/blog/kl-approx.html",
)
_shared = {"paper": paper, "departs": ("β is 0.04 after GRPO; the note names no coefficient.",)}
_with = reinforce.recipe.with_

k1_loss = _with(name="k1_loss", new="k1 in the loss", penalties=(k1,), **_shared)
k2_loss = _with(name="k2_loss", new="k2 in the loss", penalties=(k2,), **_shared)
k3_loss = _with(name="k3_loss", new="k3 in the loss", penalties=(k3,), **_shared)
k1_reward = _with(name="k1_reward", new="k1 in the reward", reward=(plain.task_score, minus_k1), **_shared)
k2_reward = _with(name="k2_reward", new="k2 in the reward", reward=(plain.task_score, minus_k2), **_shared)
k3_reward = _with(name="k3_reward", new="k3 in the reward", reward=(plain.task_score, minus_k3), **_shared)
