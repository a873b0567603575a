"""DRO (Richemond et al. 2024): policy gradient with a quadratic price on leaving the old policy.

    L = -( A_t log π(y_t) - β/2 (log π(y_t) - log π_old(y_t))² )            (verl's token form)
Up to a constant and a factor the paper's ½ (R - V - β log(π / π_ref))², A = R - V, with the log-ratio of one token.
"""

from functools import partial

from whet import groups, plain
from whet.fields import Mask, PerToken
from whet.papers import rloo
from whet.recipe import Paper


def quadratic(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    beta: float = 0.1,  # ours: verl has no default (dro_beta must be given); 0.1 is the spec's vector
) -> PerToken:
    """-A log π plus β/2 times the squared log-ratio of the token.

    >>> quadratic(tensor([[-0.9, -0.8]]), tensor([[-1., -.5]]), tensor([[1., 1.]]))
    tensor([[0.9005, 0.8045]])
    """
    return -advantage * logp + beta / 2 * (logp - old_logp) ** 2


def quadratic_of_response(
    logp: PerToken,
    old_logp: PerToken,
    advantage: PerToken,
    mask: Mask,
    beta: float = 0.1,  # ours: as the token form
) -> PerToken:
    """The paper's form: the log-ratio of the whole response, repeated on its tokens, for a mean over responses.

    >>> quadratic_of_response(tensor([[-0.9, -.8]]), tensor([[-1., -.5]]), tensor([[1., 1.]]), torch.ones(1, 2).bool())
    tensor([[0.2020, 0.2020]])
    """
    x = groups.token_sum(logp - old_logp, mask)[:, None]
    return -advantage * x + beta / 2 * x**2


recipe = rloo.recipe.with_(
    name="dro",
    paper=Paper(
        "Offline Regularised Reinforcement Learning for Large Language Models Alignment", arxiv="2405.19107",
        date="2024-05-29",
        authors="Richemond, Pierre Harvey and Tang, Yunhao and Guo, Daniel and Calandriello, Daniele and others",
    ),
    new="a squared log-ratio instead of a clip: every token keeps its gradient", loss=quadratic,
    update=partial(plain.one_pass, minibatches=4),  # ours: several updates for each batch, so that the square acts
    claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing"),
    departs=(
        "The token form of verl's `dro`; the paper's, for a whole response, is `quadratic_of_response`.",
        "The anchor is the policy at the update's start, as verl; the paper is offline and anchors on the reference.",
        "Assumed: the advantage is RLOO's; the paper learns V.",
    ),
)  # fmt: skip
