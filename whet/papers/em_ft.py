"""The unreasonable effectiveness of entropy minimization (Agarwal et al. 2025): learn from one's own certainty alone.

EM-FT           L   = 1/N Σ_i 1/|y_i| Σ_t H_it      gradient through H only, one response each (section 3.1)
EM-RL-token     R_i = -Σ_t H_it                     (eq. 4) with a leave-one-out baseline (section 3.2)
EM-RL-sequence  R_i =  Σ_t log π(y_it)              (eq. 3)
"""

from functools import partial

from whet import groups, plain
from whet.fields import Mask, PerResponse, PerToken
from whet.papers import grpo, kl_estimators, reinforce, rloo
from whet.recipe import Finding, Paper


def entropy_itself(entropy: PerToken) -> PerToken:
    """The entropy of each token, to be made smaller; [.5, 1, .2] have the mean 0.566667.

    >>> entropy_itself(tensor([[0.5, 1.0, 0.2]]))
    tensor([[0.5000, 1.0000, 0.2000]])
    """
    return entropy


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


paper = Paper(
    "The Unreasonable Effectiveness of Entropy Minimization in LLM Reasoning", arxiv="2505.15134", date="2025-05-21",
    authors="Agarwal, Shivam and Zhang, Zimin and Yuan, Lifan and Han, Jiawei and Peng, Hao",
)  # fmt: skip
_by_reward = {
    "paper": paper, "shelf": "reward", "penalties": (partial(kl_estimators.k3, beta=0.001),),  # section 3.3
    "claims": ("needs_no_labels", "sums_to_zero"), "departs": (
        "16 responses to each problem; the paper draws 4. It has no labels, and does not learn `digits`.",
        "Assumed: the KL is k3 in the loss.",
    ),
}  # fmt: skip

recipe = reinforce.recipe.with_(
    name="em_ft", paper=paper, new="the entropy of its own responses is all that is minimised",
    findings=(Finding("pass@1", "start", "up", "24.9 to 40.2, Qwen2.5-7B, without labels", "place not read"),),
    sample=partial(plain.same_number, responses=1),  # table 2: N = 1
    normalise=grpo.over_responses, loss=entropy_itself, claims=("needs_no_labels",),
    departs=(
        "It has no labels, and does not learn `digits`.",
        "Assumed: each response is divided by its length; eq. 2 as printed is a plain sum over its tokens.",
    ),
)  # fmt: skip
token = rloo.recipe.with_(
    name="em_rl", new="minus the entropy of a response is its reward", reward=(minus_total_entropy,), **_by_reward,
    findings=(Finding("pass@1", "start", "up", "42.9, and 42.1 for GRPO with labels", "place not read"),),
)  # fmt: skip
sequence = rloo.recipe.with_(
    name="em_rl_sequence", new="the log-probability of a response is its reward", reward=(total_log_probability,),
    **_by_reward,
)  # fmt: skip
