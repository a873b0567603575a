"""Off-policy sequence mask (DeepSeek-V3.2, 2025): do not learn from a bad response that the policy has left behind.

    k_i = 1/|y_i| Σ_t (log μ - log π)                   μ is what the sampler reported
    M_i = 0 where A_i < 0 and k_i > δ,  1 elsewhere                                        (eq. 9)
    L   = 1/G Σ_i 1/|y_i| Σ_t [ M_i clip(r_t, A_i) + β k3 ]

Good responses are never masked, and the mask follows the policy as it moves within a batch.
"""

from functools import partial

from whet import groups, plain
from whet.fields import Mask, PerToken
from whet.papers import grpo, ppo
from whet.recipe import Paper


def masked_clip(
    logp: PerToken,
    old_logp: PerToken,
    sampled_logp: PerToken,
    advantage: PerToken,
    mask: Mask,
    delta: float = 0.5,  # TRL's advice; the report gives no number, slime has 1e-4
    low: float = 0.2,  # as PPO
    high: float = 0.2,  # as PPO
) -> PerToken:
    """PPO's clip, silent on responses with negative advantage that are much less likely than when they were drawn.

    >>> old, one = tensor([[-1.5, -.9, -1.2]]), torch.ones(1, 3)
    >>> masked_clip(old, old, tensor([[-.3, -.9, -1.2]]), -one, one.bool(), delta=0.1)
    tensor([[0., 0., 0.]])
    """
    left = groups.token_mean(sampled_logp - logp.detach(), mask)[:, None]
    kept = (advantage >= 0) | (left <= delta)
    return kept * ppo.clip(logp, old_logp, advantage, low, high)


recipe = grpo.recipe.with_(
    name="opsm",
    paper=Paper(
        "DeepSeek-V3.2: Pushing the Frontier of Open Large Language Models",
        arxiv="2512.02556",
        date="2025-12-02",
        authors="DeepSeek-AI",
    ),
    new="bad responses that the policy no longer gives are masked",
    loss=masked_clip,
    update=partial(plain.one_pass, minibatches=4),  # ours: so that the policy leaves responses behind
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "Assumed: δ = 0.5, TRL's advice; the report does not say it.",
        "μ is what the sampler reported, as the report and TRL; slime takes the policy at the start of the update.",
        "Not the report's other changes: the KL estimate times the ratio, and keeping routes and sampling masks.",
    ),
)
