"""Fine-tuning from human preferences (Ziegler et al. 2019): a KL price in the reward that follows a target.

    r_it = R_i · [t = last] - β log(π / π_ref)                                           (eq. 2)
    β    ← β (1 + K e),   e = clip( KL / KL_target - 1, -0.2, 0.2 )                      (section 2.2)

K is the share of a horizon that a batch is: responses / horizon.
"""

from whet import groups, plain
from whet.fields import Mask, PerToken
from whet.papers import ppo
from whet.recipe import Paper, Remembers


def next_price(beta: float, kl: float, responses: int, target: float, horizon: float) -> float:
    """β after a batch with this KL: up where it was above its target, down below, by a fifth of the share at most.

    >>> [round(next_price(0.001, kl, 5000, target=0.1, horizon=10_000), 5) for kl in (0.2, 0.05, 0.11)]
    [0.0011, 0.0009, 0.00105]
    """
    return beta * (1 + min(max(kl / target - 1, -0.2), 0.2) * responses / horizon)


def minus_steered_k1(
    old_logp: PerToken, ref_logp: PerToken, mask: Mask, memory: float,
    target: float = 0.1,  # verl, nats per token; the paper's is 6 to 10 nats per response
    horizon: float = 10_000,  # verl and the authors' code, in responses
) -> tuple[PerToken, float]:  # fmt: skip
    """-β log(π / π_ref) on each token; `memory` is β, which this batch's KL moves for the next.

    >>> minus_steered_k1(tensor([[-1.]]), tensor([[-1.2]]), tensor([[True]]), 1.0, horizon=1)
    (tensor([[-0.2000]]), 1.2)
    """
    drift = groups.spread((old_logp - ref_logp).clamp(-20, 20), mask)
    kl = float(groups.token_mean(drift, mask).mean())
    return -memory * drift, next_price(memory, kl, len(mask), target, horizon)


recipe = ppo.recipe.with_(
    name="adaptive_kl",
    paper=Paper(
        "Fine-Tuning Language Models from Human Preferences", arxiv="1909.08593", date="2019-09-18",
        authors="Ziegler, Daniel M. and Stiennon, Nisan and Wu, Jeffrey and Brown, Tom B. and Radford, Alec and others",
    ),
    new="a KL price in the reward that rises and falls so that the KL stays at a target",
    reward=(plain.task_score, Remembers(minus_steered_k1, start=0.001)),  # verl: kl_coef
    claims=("policy_gradient",),
    departs=(
        "The target is for one token, as in verl, so that it does not depend on the length of the responses.",
        "The clip, the critic and the updates are PPO's of this shelf; the reward is the task's, not a learned one.",
    ),
)  # fmt: skip
