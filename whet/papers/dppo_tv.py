"""DPPO (Qi et al. 2026): bound how far a token's probability moves, not the ratio of its probabilities.

    v_t = 0 where A > 0 and π - μ > δ_high,  or A ≤ 0 and π - μ < -δ_low;   1 elsewhere
    L   = -A_i · sg(min(π/μ, C)) · v_t · log π(y_t)

|π - μ| is the total variation of "this token or another", so a rare token may move by a large factor, which PPO
forbids, and a frequent one may not move by a large share, which PPO allows. μ is the policy that drew the response.
"""

from functools import partial

import torch

from whet import plain
from whet.fields import PerToken
from whet.papers import dr_grpo, ppo
from whet.recipe import Paper


def within_variation(
    logp: PerToken,
    sampled_logp: PerToken,
    advantage: PerToken,
    low: float = 0.15,  # verl examples/dppo_trainer: 0.15 for both
    high: float = 0.15,  # verl examples/dppo_trainer: 0.15 for both
    cap: float = 20.0,  # verl clip_ratio_c; section 5.4 asks for a large one
) -> PerToken:
    """Policy gradient with a capped, constant weight, silent where the probability has moved far enough.

    >>> within_variation(tensor([[-0.9, -0.3]]), tensor([[-1., -1.6]]), tensor([[1., 1.]]))
    tensor([[0.9947, 0.0000]])
    """
    weight = ppo.ratio(logp, sampled_logp).detach().clamp(max=cap)
    moved = (logp.exp() - sampled_logp.exp()).detach()
    valid = torch.where(advantage > 0, moved <= high, moved >= -low)
    return -weight * valid * advantage * logp


recipe = dr_grpo.recipe.with_(
    name="dppo_tv",
    paper=Paper(
        "Rethinking the Trust Region in LLM Reinforcement Learning",
        arxiv="2602.04879",
        date="2026-02-04",
        authors="Qi, Penghui and Zhou, Xiangxin and Liu, Zichen and Pang, Tianyu and Du, Chao and others",
    ),
    new="a token is silenced by how far its probability has moved, not by its ratio",
    loss=within_variation,
    update=partial(plain.one_pass, minibatches=4),  # ours: verl's script makes 8 updates from 256 prompts
    claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing"),
    departs=(
        "The binary total variation only; the paper also has a KL form and a top-K approximation.",
        "The anchor is what the sampler reported, as the paper; verl's loss is given the policy at the update's start.",
        "Advantage and normalisation are Dr. GRPO's, as in verl's script; the card names neither.",
    ),
)
