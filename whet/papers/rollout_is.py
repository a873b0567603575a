"""Rollout correction (Yao et al. 2025 and others): the sampler is not quite the policy, so weigh by their ratio.

    ρ_t = π_old(y_t) / π_sampler(y_t)        the same weights, computed by two engines
    TIS (truncated)      min(ρ_t, C)                               masked, IcePop   ρ_t · 1[lo ≤ ρ_t ≤ C]
    sequence             Π_t ρ_t instead of ρ_t                    geometric        1[lo ≤ (Π ρ_t)^(1/|y|) ≤ hi]

ρ is a constant and multiplies the loss after its clip; a token with weight 0 stays in the denominator.
"""

from whet import groups
from whet.fields import Mask, PerResponse, PerToken
from whet.papers import dapo, ppo
from whet.recipe import Paper


def truncated(
    old_logp: PerToken,
    sampled_logp: PerToken,
    upper: float = 2.0,  # verl rollout_is_threshold; open-instruct too
) -> PerToken:
    """TIS: the ratio of each token, at most C.

    >>> truncated(tensor([[-1., -.5, -2.]]), tensor([[-1., -.48, -2.9]]))
    tensor([[1.0000, 0.9802, 2.0000]])
    """
    return ppo.ratio(old_logp, sampled_logp).clamp(max=upper)


def masked(
    old_logp: PerToken,
    sampled_logp: PerToken,
    lower: float = 0.0,  # no lower bound; IcePop has 0.5 (verl, "0.5_5.0")
    upper: float = 2.0,  # verl rollout_is_threshold; IcePop has 5.0 (verl, "0.5_5.0")
) -> PerToken:
    """The ratio of each token, 0 outside the bounds; with both bounds it is IcePop.

    >>> masked(tensor([[-1.5, -.5, -2.]]), tensor([[-.3, -.48, -2.9]]), lower=0.5)
    tensor([[0.0000, 0.9802, 0.0000]])
    """
    rho = ppo.ratio(old_logp, sampled_logp)
    return rho * ((rho >= lower) & (rho <= upper))


def _of_response(old_logp: PerToken, sampled_logp: PerToken, mask: Mask) -> PerResponse:
    return groups.token_sum(old_logp - sampled_logp, mask).clamp(-20, 20).exp()


def sequence_truncated(
    old_logp: PerToken,
    sampled_logp: PerToken,
    mask: Mask,
    upper: float = 2.0,  # verl rollout_is_threshold; the CTPO script has 5.0
) -> PerResponse:
    """The ratio of the whole response, at most C: unbiased but for the truncation.

    >>> sequence_truncated(tensor([[-1., -2.]]), tensor([[-1., -2.9]]), torch.ones(1, 2).bool())
    tensor([2.])
    """
    return _of_response(old_logp, sampled_logp, mask).clamp(max=upper)


def sequence_masked(
    old_logp: PerToken,
    sampled_logp: PerToken,
    mask: Mask,
    lower: float = 0.0,  # TRL: no lower bound
    upper: float = 3.0,  # TRL vllm_importance_sampling_clip_max
) -> PerResponse:
    """TRL's default: the ratio of the whole response, 0 outside the bounds.

    >>> sequence_masked(tensor([[-1., -2.], [-1.5, -.9]]), tensor([[-1., -3.9], [-.3, -.9]]), torch.ones(2, 2).bool())
    tensor([0.0000, 0.3012])
    """
    rho = _of_response(old_logp, sampled_logp, mask)
    return rho * ((rho >= lower) & (rho <= upper))


def geometric_filter(
    old_logp: PerToken,
    sampled_logp: PerToken,
    mask: Mask,
    lower: float = 0.999,  # verl, rollout_corr_math.md: typical bounds "0.999_1.001"
    upper: float = 1.001,  # verl, rollout_corr_math.md: typical bounds "0.999_1.001"
) -> PerResponse:
    """1 where the geometric mean of the ratios is within the bounds, 0 elsewhere: long responses are not punished.

    >>> geometric_filter(tensor([[-1., -2.], [-.7, -1.6]]), tensor([[-1., -2.9], [-.6, -1.7]]), torch.ones(2, 2).bool())
    tensor([0., 1.])
    """
    mean = groups.token_mean(old_logp - sampled_logp, mask).exp()
    return ((mean >= lower) & (mean <= upper)).float()


def mean_one(
    old_logp: PerToken,
    sampled_logp: PerToken,
    mask: Mask,
    upper: float = 2.0,  # verl rollout_is_threshold
) -> PerToken:
    """TIS divided by its mean over the tokens of the batch (verl rollout_is_batch_normalize).

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
    claims=("silent_on_equal_rewards", "sums_to_zero"),
    departs=(
        "The weight also multiplies penalties, where a recipe has some; verl and TRL add their KL unweighted.",
        "C = 2 is verl's; TRL has 3 on the whole response, masked (`sequence_masked`).",
    ),
)
sequence_is = dapo.recipe.with_(
    name="sequence_is",
    paper=Paper(
        "When Speed Kills Stability: Demystifying RL Collapse from the Training-Inference Mismatch",
        date="2025-09",
        authors="Liu, Jiacai and Li, Yingru and others",
        url="https://richardli.xyz/rl-collapse",
    ),
    new="each response is weighed by policy over sampler, at most 2",
    weights=(sequence_truncated,),
    claims=("silent_on_equal_rewards", "sums_to_zero"),
    departs=recipe.departs,
)
