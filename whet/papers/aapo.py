"""AAPO (Xiong et al. 2025): what a response earns beyond one of the model that the run started from counts too.

A*_i = (R_i - mean R) / (std R + ε) + clip( R_i - R_i^ref, -0.2, 0.28 )      R^ref: the reference model's i-th answer
L    = - mean over tokens of A* log π                                         no ratio, no clip of it, no KL

A group whose rewards are all equal still learns, as long as the reference model does not do as well.
"""

from whet import plain
from whet.fields import Group, PerResponse
from whet.papers import grpo, reinforce
from whet.recipe import Finding, Paper


def with_momentum(
    reward: PerResponse,
    ref_score: PerResponse,
    group: Group,
    low: float = 0.2,  # the authors' code
    high: float = 0.28,  # the authors' code
    epsilon: float = 1e-4,  # the authors' code
) -> PerResponse:
    """GRPO's advantage plus the gain over the reference model's response, within bounds.

    >>> with_momentum(tensor([1., 1., 0., 0.]), tensor([0., 1., 1., 0.]), tensor([0, 0, 0, 0]))
    tensor([ 1.1459,  0.8659, -1.0659, -0.8659])
    >>> with_momentum(tensor([1., 1., 1., 1.]), tensor([0., 1., 1., 0.]), tensor([0, 0, 0, 0]))
    tensor([0.2800, 0.0000, 0.0000, 0.2800])
    """
    return grpo.z_score(reward, group, epsilon) + (reward - ref_score).clamp(-low, high)


recipe = grpo.recipe.with_(
    name="aapo",
    findings=(
        Finding("silent_groups", "grpo", "down", "groups of equal rewards still learn; no number", "place not read"),
    ),
    paper=Paper(
        "AAPO: Enhance the Reasoning Capabilities of LLMs with Advantage Momentum",
        arxiv="2505.14264",
        date="2025-05-20",
        authors="Xiong, Jian and Zhou, Jingbo and Ye, Jingyong and Huang, Qiang and Dou, Dejing",
    ),
    new="the gain over a response of the reference model is added to the advantage",
    advantage=with_momentum,
    normalise=plain.over_tokens,
    loss=reinforce.policy_gradient,
    penalties=(),
    claims=("policy_gradient",),
    departs=(
        "A reference response is paired with one to the same problem; among them the order has no meaning.",
        "16 responses to 16 prompts at temperature 1; the paper draws 6, at 0.7 for the smaller model.",
        "R^ref is the judge's score: reward parts that a sum of recipes adds are not in it.",
    ),
)
