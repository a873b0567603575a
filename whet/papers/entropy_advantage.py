"""Reasoning with exploration (Cheng et al. 2025): a token that was hard to choose is worth a little more.

ψ_t  = min( α · sg(H_t), |A_t| / κ )          never more than half of the advantage: κ = 2
A'_t = A_t + ψ_t
"""

import torch

from whet.fields import PerToken
from whet.papers import dapo
from whet.recipe import Finding, Paper


def plus_entropy(
    advantage: PerToken,
    old_entropy: PerToken,
    alpha: float = 0.4,  # section 4: 0.4 for GRPO, 0.1 for PPO
    kappa: float = 2.0,  # section 4: always 2
) -> PerToken:
    """The advantage and a bonus for entropy; κ > 1 keeps its sign, and no advantage means no bonus.

    >>> plus_entropy(tensor([[1.5, -1.5, 0., .5]]), tensor([[1., 4., 2., .1]]))
    tensor([[ 1.9000, -0.7500,  0.0000,  0.5400]])
    """
    return advantage + torch.minimum(alpha * old_entropy, advantage.abs() / kappa)


recipe = dapo.recipe.with_(
    name="entropy_advantage",
    findings=(Finding("pass@64", "grpo", "up", "AIME24 pass@256 56.7, not 46.7", "place not read"),),
    paper=Paper(
        "Reasoning with Exploration: An Entropy Perspective on Reinforcement Learning for LLMs",
        arxiv="2506.14758",
        date="2025-06-17",
        authors="Cheng, Daixuan and Huang, Shaohan and Zhu, Xuekai and Dai, Bo and Zhao, Wayne Xin and others",
    ),
    new="a clipped, gradient-free bonus for entropy in the advantage of each token",
    credit=(plus_entropy,),
    claims=("policy_gradient", "silent_on_equal_rewards", "never_flips_an_advantage"),
    departs=(
        "Entropy is that of the policy at the start of the batch; the paper takes it anew for each mini-batch.",
        "Assumed: the rest is DAPO. The paper names its data, clip-higher and token mean, with rewards 1 and -1.",
        "α is GRPO's; for a critic set credit.plus_entropy.alpha=0.1.",
    ),
)
