"""Light-IF (Wang et al. 2025): keep entropy where training would destroy it.

TEA-RL       c_it = (A_it - mean A)(log π_it - mean log π)           the covariance that drives entropy down
             L    = L_GRPO - mean_it H_it · clip( a softmax_t(c_i·), 0, 5 ),  a = 10
Entropy-SFT  mean of -log π(y_t) over the share ρ of tokens with the largest  -log π(y_t) - c H_t;  ρ = c = 0.8
"""

from functools import partial
from typing import Any

import torch

from whet import groups
from whet.fields import Mask, PerToken, Selected
from whet.papers import dapo, kl_estimators, reinforce, rlvr_decomposed
from whet.recipe import Finding, Paper


def above_the_mean(advantage: PerToken, mask: Mask) -> PerToken:
    """The advantage minus its mean over all tokens of the mini-batch.

    >>> above_the_mean(tensor([[1., 1., -2.]]), torch.tensor([[True, True, True]]))
    tensor([[ 1.,  1., -2.]])
    """
    return groups.spread(advantage - groups.batch_mean(advantage, mask), mask)


def adaptive_entropy(
    logp: PerToken,
    selected: Selected,
    entropy: PerToken,
    mask: Mask,
    scale: float = 10.0,  # authors' code: cov_alpha
    bound: float = 5.0,  # authors' code: clip_cov_ub
) -> PerToken:
    """Minus entropy, most where the covariance is large; the coefficients of a response sum to `scale`, and learn too.

    >>> logp, entropy = tensor([[-.1, -2., -.5, -1.]]), tensor([[.3, 1.5, .8, 1.]])
    >>> adaptive_entropy(logp, torch.ones(1, 4), entropy, torch.ones(1, 4).bool())
    tensor([[-1.3474, -1.0077, -2.4086, -1.8261]])
    """
    covariance = torch.where(mask, selected * logp, torch.finfo(logp.dtype).min)
    return -entropy * (scale * covariance.softmax(1)).clamp(0, bound)


def most_surprising(
    mask: Mask,
    old_logp: PerToken,
    old_entropy: PerToken,
    share: float = 0.8,  # run flags: ρ = 0.8; the argument's default is 0.2
    trust: float = 0.8,  # run flags: c = 0.8; the argument's default is 1.0
) -> Mask:
    """The share of all tokens whose surprise most exceeds what the entropy led to expect.

    >>> most_surprising(torch.ones(1, 5).bool(), -tensor([[2., .1, 1., .5, 3.]]), tensor([[2.5, .05, .2, .9, 1.]]))
    tensor([[ True,  True,  True, False,  True]])
    """
    excess = torch.where(mask, -old_logp - trust * old_entropy, -torch.inf)
    count = max(int(share * int(mask.sum())), 1)
    return mask & (excess >= excess.flatten().topk(count).values[-1])


def worked_solutions(draw: Any, problems: Any) -> Any:
    """One worked solution of each problem, and no response."""
    return draw.demonstrations(problems)


_paper = Paper(
    "Light-IF: Endowing LLMs with Generalizable Reasoning via Preview and Self-Checking "
    "for Complex Instruction Following",
    arxiv="2508.03178",
    date="2025-08-05",
    authors="Wang, Chenyang and Wen, Liang and Jia, Shousheng and Zhang, Xiangzheng and Xu, Liang",
)
recipe = dapo.token_mean.with_(
    name="tea_rl",
    findings=(
        Finding("entropy", "token_mean", "up", "the collapse of entropy is prevented; no number", "place not read"),
    ),
    paper=_paper,
    new="a bonus for entropy, token by token, where the covariance of advantage and log π is large",
    select=above_the_mean,
    penalties=(
        partial(kl_estimators.k3, beta=0.001),  # authors' scripts
        adaptive_entropy,
    ),
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "The mean advantage in c is over the mini-batch; the authors' code takes that of the micro-batch, so that its "
        "result depends on the split. The mean of log π is left out: it cancels in the softmax while the tokens of a "
        "response share their advantage.",
        "The authors' released actor never reaches this term; what they ran is plain GRPO.",
        "The coefficients of a response sum to 10 whatever its length, so that on answers of three tokens the bonus "
        "outweighs the reward: it does not learn `digits`; with scale 0.1 it does.",
    ),
)
entropy_sft = reinforce.recipe.with_(
    name="entropy_sft",
    paper=_paper,
    new="imitation of worked solutions, on the tokens that are more surprising than uncertain",
    sample=worked_solutions,
    advantage=rlvr_decomposed.only_up,
    keep=(rlvr_decomposed.right_answers, most_surprising),
    claims=("policy_gradient",),
    shelf="distillation",
    departs=(
        "What is imitated are the task's worked solutions; the paper's are filtered responses of a model, passed over "
        "three times.",
        "Tokens are chosen once for each batch, by the policy at its start.",
    ),
)
