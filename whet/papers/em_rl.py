"""The unreasonable effectiveness of entropy minimization (Agarwal et al. 2025): certainty is the only reward.

EM-RL-token     R_i = -Σ_t H_it                      (eq. 4) with a leave-one-out baseline (section 3.2)
EM-RL-sequence  R_i =  Σ_t log π(y_it)               (eq. 3)
"""

from functools import partial

from whet import groups
from whet.fields import Mask, PerResponse, PerToken
from whet.papers import em_ft, kl_estimators, rloo
from whet.recipe import Finding


def minus_total_entropy(sampled_entropy: PerToken, mask: Mask) -> PerResponse:
    """Minus the sum of the tokens' entropies: short, certain responses win.

    >>> minus_total_entropy(tensor([[.5, .7], [2., 9.]]), tensor([[True, True], [True, False]]))
    tensor([-1.2000, -2.0000])
    """
    return -groups.token_sum(sampled_entropy, mask)


def total_log_probability(sampled_logp: PerToken, mask: Mask) -> PerResponse:
    """The log-probability of the whole response.

    >>> total_log_probability(tensor([[-1., -2.], [-5., 9.]]), tensor([[True, True], [True, False]]))
    tensor([-3., -5.])
    """
    return groups.token_sum(sampled_logp, mask)


recipe = rloo.recipe.with_(
    name="em_rl",
    findings=(Finding("pass@1", "start", "up", "42.9, and 42.1 for GRPO with labels", "place not read"),),
    paper=em_ft.paper,
    new="minus the entropy of a response is its reward",
    reward=(minus_total_entropy,),
    penalties=(partial(kl_estimators.k3, beta=0.001),),  # section 3.3
    claims=("needs_no_labels", "sums_to_zero"),
    shelf="reward",
    departs=(
        "16 responses to each problem; the paper draws 4. It has no labels, and does not learn `digits`.",
        "Assumed: the KL is k3 in the loss. EM-RL-sequence is `total_log_probability` as the reward.",
    ),
)
