"""CISPO (MiniMax 2025, MiniMax-M1): clip the weight of a token, never its gradient.

L = -sg( clip(r_t, 1-ε_low, 1+ε_high) ) · A_i · log π(y_t), token mean           (eq. 4, 5)
"""

from functools import partial

from whet import plain
from whet.fields import PerToken
from whet.papers import grpo, ppo
from whet.recipe import Finding, Paper


def clipped_weight(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    low: float = 1.0,  # section 3.1: no lower bound
    high: float = 0.28,  # ours: the report tunes the upper bound and does not say it
) -> PerToken:
    """Policy gradient with a bounded, constant importance weight: no token loses its gradient.

    >>> clipped_weight(tensor([[-1.55]]), tensor([[-2.]]), tensor([[1.]]))
    tensor([[1.9840]])
    """
    weight = ppo.ratio(logp, old_logp).detach().clamp(1 - low, 1 + high)
    return -weight * advantage * logp


def clipped_weight_at_high(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    high: float = 5.0,  # TRL's documentation
) -> PerToken:
    """TRL's and Liger's rule: the bound is ε_high itself, where the report and verl have 1 + ε_high.

    >>> clipped_weight_at_high(tensor([[-1.55]]), tensor([[-2.]]), tensor([[1.]]), high=1.28)
    tensor([[1.9840]])
    """
    return clipped_weight(logp, old_logp, advantage, high=high - 1)


recipe = grpo.recipe.with_(
    name="cispo",
    findings=(Finding("speed", "dapo", "up", "DAPO's accuracy in half the steps", "section 3.1, figure 2"),),
    paper=Paper(
        "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention", arxiv="2506.13585",
        date="2025-06-16", authors="MiniMax",
    ),
    new="the importance weight is clipped and held constant, so that every token keeps its gradient",
    normalise=plain.over_tokens, loss=clipped_weight, penalties=(),
    update=partial(plain.one_pass, minibatches=4),  # ours: the report makes 16 off-policy rounds
    claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero"),
    departs=(
        "The bound is 1 + high, as verl and slime; TRL and Liger clamp at `high` itself: clipped_weight_at_high.",
        "high = 0.28 is an assumption: the report gives no number.",
        "Four mini-batches for each batch, not sixteen.",
    ),
)  # fmt: skip
