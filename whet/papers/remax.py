"""ReMax (Li et al. 2023): the greedy response to the same prompt is the baseline.

A_i = R_i - R(greedy response)                              (eq. 4)
"""

from whet.fields import PerResponse
from whet.papers import reinforce
from whet.recipe import Paper


def against_greedy(reward: PerResponse, greedy_score: PerResponse) -> PerResponse:
    """The reward minus what the most likely response earned: one extra response for each prompt.

    >>> against_greedy(tensor([1., 0.]), tensor([1., 1.]))
    tensor([ 0., -1.])
    """
    return reward - greedy_score


recipe = reinforce.recipe.with_(
    name="remax",
    paper=Paper(
        "ReMax: A Simple, Effective, and Efficient Reinforcement Learning Method for Aligning Large Language Models",
        arxiv="2310.10505",
        date="2023-10-16",
        authors="Li, Ziniu and Xu, Tian and Zhang, Yushun and Lin, Zhihang and Yu, Yang and others",
    ),
    new="the greedy response's reward as the baseline, instead of a critic",
    advantage=against_greedy,
    claims=("unbiased", "policy_gradient"),
    departs=(
        "The whole return of a response on each token; with rewards in time (+k1_reward) the paper has what is to go.",
    ),
)
