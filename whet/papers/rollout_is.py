"""Truncated importance sampling (Yao et al. 2025): the sampler is not quite the policy, so weigh by their ratio.

    ρ_t = π_old(y_t) / π_sampler(y_t)       the same weights, computed by two engines
    L   = min(ρ_t, C) · max(-A r_t, -A clip(r_t)),   C = 2

The weight is a constant, set after the clip, and a token of weight 0 stays in the denominator. Other ways to bound it
are here as parts: masking instead of truncating (IcePop with both bounds), and scaling to mean 1.
"""

from whet import groups
from whet.fields import Mask, PerToken
from whet.papers import dapo, ppo
from whet.recipe import Paper


def truncated(
    old_logp: PerToken,
    sampled_logp: PerToken,
    upper: float = 2.0,  # verl rollout_is_threshold; open-instruct too
) -> PerToken:
    """The ratio of each token, at most C.

    >>> truncated(tensor([[-1., -.5, -2.]]), tensor([[-1., -.48, -2.9]]))
    tensor([[1.0000, 0.9802, 2.0000]])
    """
    return ppo.ratio(old_logp, sampled_logp).clamp(max=upper)


def masked(
    old_logp: PerToken,
    sampled_logp: PerToken,
    lower: float = 0.0,  # no lower bound; IcePop has 0.5 (verl "0.5_5.0")
    upper: float = 2.0,  # verl rollout_is_threshold; IcePop has 5.0 (verl "0.5_5.0")
) -> PerToken:
    """The ratio of each token, 0 outside the bounds.

    >>> masked(tensor([[-1., -.5, -2.]]), tensor([[-1., -.48, -2.9]]))
    tensor([[1.0000, 0.9802, 0.0000]])
    """
    rho = ppo.ratio(old_logp, sampled_logp)
    return rho * ((rho >= lower) & (rho <= upper))


def icepop(
    old_logp: PerToken,
    sampled_logp: PerToken,
    lower: float = 0.5,  # verl "0.5_5.0"
    upper: float = 5.0,  # verl "0.5_5.0"
) -> PerToken:
    """IcePop (Ring team 2025): masked on both sides.

    >>> icepop(tensor([[-1.5, -.5, -2.]]), tensor([[-.3, -.48, -2.9]]))
    tensor([[0.0000, 0.9802, 2.4596]])
    """
    return masked(old_logp, sampled_logp, lower, upper)


def mean_one(
    old_logp: PerToken,
    sampled_logp: PerToken,
    mask: Mask,
    upper: float = 2.0,  # verl rollout_is_threshold
) -> PerToken:
    """Truncated, then divided by the mean over the tokens of the batch (verl rollout_is_batch_normalize).

    >>> mean_one(tensor([[-1., -2.]]), tensor([[-1., -2.9]]), torch.ones(1, 2).bool())
    tensor([[0.6667, 1.3333]])
    """
    rho = truncated(old_logp, sampled_logp, upper)
    return rho / groups.batch_mean(rho, mask)


recipe = dapo.recipe.with_(
    name="rollout_is",
    paper=Paper(
        "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training",
        date="2025-08",
        authors="Yao, Feng and Liu, Liyuan and Zhang, Dinghuai and Dong, Chengyu and Shang, Jingbo and Gao, Jianfeng",
        url="https://fengyao.notion.site/off-policy-rl",
    ),
    new="each token is weighed by policy over sampler, at most 2",
    weights=(truncated,),
    claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero"),
    departs=(
        "The weight also multiplies penalties, where a recipe has some; verl and TRL add their KL unweighted.",
        "C = 2 on each token is verl's; TRL's is 3 on the whole response, masked: `sequence_is.sequence_masked`.",
    ),
)
