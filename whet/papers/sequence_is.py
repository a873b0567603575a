"""When speed kills stability (Liu et al. 2025): the mismatch of sampler and policy, corrected for whole responses.

    ρ(y) = Π_t π_old(y_t) / π_sampler(y_t)                     unbiased; the ratio of a single token is not
    truncated  min(ρ, C)      masked  ρ · 1[ρ ≤ C]      geometric filter  1[lo ≤ ρ^(1/|y|) ≤ hi]

The weight is a constant; a response of weight 0 stays in the denominator.
"""

from whet import groups
from whet.fields import Mask, PerResponse, PerToken
from whet.papers import dapo
from whet.recipe import Paper


def response_ratio(old_logp: PerToken, sampled_logp: PerToken, mask: Mask) -> PerResponse:
    """The product of the ratios of a response, its logarithm within ±20 as verl.

    >>> response_ratio(tensor([[-1.5, -.9, -1.2]]), tensor([[-.3, -.9, -1.2]]), torch.ones(1, 3).bool())
    tensor([0.3012])
    """
    return groups.token_sum(old_logp - sampled_logp, mask).clamp(-20, 20).exp()


def sequence_truncated(
    old_logp: PerToken,
    sampled_logp: PerToken,
    mask: Mask,
    upper: float = 2.0,  # verl rollout_is_threshold; typical 2 to 10 for responses
) -> PerResponse:
    """The ratio of the whole response, at most C.

    >>> sequence_truncated(tensor([[-1., -2.]]), tensor([[-1., -2.9]]), torch.ones(1, 2).bool())
    tensor([2.])
    """
    return response_ratio(old_logp, sampled_logp, mask).clamp(max=upper)


def sequence_masked(
    old_logp: PerToken,
    sampled_logp: PerToken,
    mask: Mask,
    lower: float = 0.0,  # TRL vllm_importance_sampling_clip_min: none
    upper: float = 3.0,  # TRL vllm_importance_sampling_clip_max
) -> PerResponse:
    """The ratio of the whole response, 0 outside the bounds: what TRL does unless told otherwise.

    >>> sequence_masked(tensor([[-1., -2.]]), tensor([[-1., -2.9]]), torch.ones(1, 2).bool(), upper=2.0)
    tensor([0.])
    """
    rho = response_ratio(old_logp, sampled_logp, mask)
    return rho * ((rho >= lower) & (rho <= upper))


def geometric_filter(
    old_logp: PerToken,
    sampled_logp: PerToken,
    mask: Mask,
    lower: float = 0.999,  # verl rollout_corr_math.md 3.3.3: typical "0.999_1.001"
    upper: float = 1.001,  # verl rollout_corr_math.md 3.3.3: typical "0.999_1.001"
) -> PerResponse:
    """1 where the geometric mean of the ratios is within the bounds, 0 elsewhere, so that length does not matter.

    >>> geometric_filter(tensor([[-1., -2.], [-.7, -1.6]]), tensor([[-1., -2.9], [-.6, -1.7]]), torch.ones(2, 2).bool())
    tensor([0., 1.])
    """
    mean = groups.token_mean(old_logp - sampled_logp, mask).exp()
    return ((mean >= lower) & (mean <= upper)).float()


recipe = dapo.recipe.with_(
    name="sequence_is",
    paper=Paper(
        "When Speed Kills Stability: Demystifying RL Collapse from the Training-Inference Mismatch",
        date="2025-09",
        authors="Liu, Jiacai and Li, Yingru and Fu, Yuqian and Wang, Jiawei and Liu, Qian and Shen, Yu",
        url="https://richardli.xyz/rl-collapse",
    ),
    new="each response is weighed by policy over sampler, at most 2",
    weights=(sequence_truncated,),
    claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero"),
    departs=("The weight also multiplies penalties, where a recipe has some; verl and TRL add their KL unweighted.",),
)
