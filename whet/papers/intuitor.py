"""Intuitor (Zhao et al. 2025): the reward is the model's self-certainty, measured by the policy as it is now.

u_i = 1/|o_i| Σ_t ( log Σ_v e^{z_v} - mean_v z_v )         = mean KL(uniform ‖ π) + log V, and the constant cancels
"""

from functools import partial

from whet import groups
from whet.fields import Mask, PerResponse, PerToken
from whet.papers import grpo, kl_estimators
from whet.recipe import Finding, Paper


def self_certainty(old_certainty: PerToken, mask: Mask) -> PerResponse:
    """The mean self-certainty of the response's tokens.

    >>> self_certainty(tensor([[1.836513, 1.098612]]), torch.ones(1, 2).bool())
    tensor([1.4676])
    """
    return groups.token_mean(old_certainty, mask)


recipe = grpo.recipe.with_(
    name="intuitor",
    findings=(Finding("pass@1", "start", "up", "comparable to GRPO on MATH, without labels", "authors' README"),),
    paper=Paper(
        "Learning to Reason without External Rewards",
        arxiv="2505.19590",
        date="2025-05-26",
        authors="Zhao, Xuandong and Kang, Zhewei and Feng, Aosong and Levine, Sergey and Song, Dawn",
    ),
    new="the policy's own certainty is its reward",
    reward=(self_certainty,),
    penalties=(partial(kl_estimators.k3, beta=0.005),),  # authors' scripts
    shelf="reward",
    claims=("needs_no_labels", "sums_to_zero"),
    departs=(
        "16 responses to each problem; the authors draw 7 or 8. ε is 1e-6, as verl; open-r1 has 1e-4.",
        "It has no labels, and does not learn `digits`.",
    ),
)
