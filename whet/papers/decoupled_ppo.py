"""Batch size-invariance (Hilton et al. 2021): clip against one policy, weigh by the one that drew the data.

    w_t = π_prox / μ                       μ drew the token, π_prox is the policy at the start of the update
    L   = w_t · max(-A r_t, -A clip(r_t, 1-ε, 1+ε)),   r_t = π / π_prox

With fresh data μ = π_prox and it is PPO. It keeps stale data usable: asynchronous training (AReaL, 2505.24298) uses it.
"""

from whet.fields import PerToken
from whet.papers import ppo
from whet.recipe import Paper


def decoupled_clip(
    logp: PerToken,
    old_logp: PerToken,
    sampled_logp: PerToken,
    advantage: PerToken,
    low: float = 0.2,  # as PPO
    high: float = 0.2,  # as PPO
) -> PerToken:
    """PPO's clip against the proximal policy, weighed by how much likelier that one makes the token than μ did.

    >>> decoupled_clip(tensor([[-0.9, -.8]]), tensor([[-.95, -.65]]), tensor([[-1., -.5]]), tensor([[1., 1.]]))
    tensor([[-1.1052, -0.7408]])
    """
    return ppo.ratio(old_logp, sampled_logp) * ppo.clip(logp, old_logp, advantage, low, high)


def decoupled_clip_within(
    logp: PerToken,
    old_logp: PerToken,
    sampled_logp: PerToken,
    advantage: PerToken,
    low: float = 0.2,  # as PPO
    high: float = 0.2,  # as PPO
    upper: float = 5.0,  # AReaL's RejectionSamplingConfig, action "mask"
) -> PerToken:
    """AReaL's rule: a token whose weight is above `upper` is silent, and stays in the denominator.

    >>> two = tensor([[-1., -1.]])
    >>> decoupled_clip_within(two, two, tensor([[-1., -3.]]), tensor([[1., 1.]]))
    tensor([[-1., -0.]])
    """
    kept = ppo.ratio(old_logp, sampled_logp) <= upper
    return kept * decoupled_clip(logp, old_logp, sampled_logp, advantage, low, high)


def interpolated(
    logp: PerToken,
    sampled_logp: PerToken,
    share: float = 0.5,  # AReaL: (v_prox - v_μ) / (v_θ - v_μ), versions counted in updates
) -> PerToken:
    """AReaL's log π_prox without a forward pass: on the line from μ to the detached π.

    >>> interpolated(tensor([[-0.6]]), tensor([[-1.]]))
    tensor([[-0.8000]])
    """
    return sampled_logp + share * (logp.detach() - sampled_logp)


recipe = ppo.recipe.with_(
    name="decoupled_ppo",
    paper=Paper(
        "Batch size-invariance for policy optimization",
        arxiv="2110.00641",
        date="2021-10-01",
        authors="Hilton, Jacob and Cobbe, Karl and Schulman, John",
    ),
    new="clip against a recent policy, and weigh by the policy that drew the data",
    loss=decoupled_clip,
    claims=("policy_gradient",),
    departs=(
        "The proximal policy is the one at the start of the update, as AReaL; the paper's PPO-EWMA averages weights.",
        "The weight is not bounded, as the paper; AReaL's `mask` at 5 is `decoupled_clip_within`, and its default of "
        "today (rejection_sampling=None) leaves the weight out, which is `ppo.clip`.",
        "Not the paper's other half: rescaling learning rate and averaging so that the batch size stops to matter.",
    ),
)
