"""REINFORCE (Williams 1992): make every token of a response as much likelier as the response was rewarded.

L = -R_i · log π(y_it)            no baseline, no ratio; unbiased for one on-policy step
"""

from whet.fields import PerResponse, PerToken
from whet.recipe import Paper, Recipe


def no_baseline(reward: PerResponse) -> PerResponse:
    """The reward itself.

    >>> no_baseline(tensor([1., 0.]))
    tensor([1., 0.])
    """
    return reward


def policy_gradient(logp: PerToken, advantage: PerToken) -> PerToken:
    """-A log π. With rewards 1, -1, -0.5 and 9 tokens, token-mean, the spec's batch has loss -0.011111.

    >>> policy_gradient(tensor([[-0.5]]), tensor([[2.0]]))
    tensor([[1.]])
    """
    return -advantage * logp


recipe = Recipe(
    name="reinforce",
    paper=Paper(
        "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
        date="1992-05-01",
        authors="Williams, Ronald J.",
        url="https://doi.org/10.1007/BF00992696",
    ),
    new="the score-function gradient: reward times the gradient of the log-probability",
    advantage=no_baseline,
    loss=policy_gradient,
    claims=("unbiased", "policy_gradient"),
    departs=("Divided by the tokens of the batch, as TRL and verl do; Williams sums over time. Same direction.",),
)
