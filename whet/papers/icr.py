"""ICR (Wang et al. 2026): where longer answers are more often wrong, imitate the group's shortest right answer.

L += λ · 1/|y*| Σ_t -log π(y*_t)     y* the shortest right answer, where Cov(L, right) < 0: right ones are shorter
"""

import torch

from whet import groups
from whet.fields import Count, Flag, Group, Mask, PerResponse, PerToken
from whet.papers import grpo
from whet.recipe import Finding, Paper


def covariance(length: Count, correct: Flag, group: Group) -> PerResponse:
    """Population covariance of length and being right, over the responses to the same problem.

    >>> covariance(tensor([4, 6, 8, 10]), tensor([True, True, False, True]), torch.zeros(4).long())
    tensor([-0.2500, -0.2500, -0.2500, -0.2500])
    """
    tokens, right = length.float(), correct.float()
    return groups.mean((tokens - groups.mean(tokens, group)) * (right - groups.mean(right, group)), group)


def shortest_right(length: Count, correct: Flag, group: Group, mask: Mask) -> Mask:
    """The tokens of the shortest right answer, in groups whose longer answers are more often wrong.

    >>> shortest_right(tensor([4, 6, 8]), tensor([True, True, False]), tensor([0, 0, 0]), torch.ones(3, 1).bool()).T
    tensor([[ True, False, False]])
    """
    shortest = -groups.largest(torch.where(correct, -length.float(), -torch.inf), group)
    return mask & (correct & (length == shortest) & (covariance(length, correct, group) < 0))[:, None]


def likelihood_of_selected(logp: PerToken, selected: Mask, coef: float = 0.05) -> PerToken:  # ours: no λ is published
    """-λ log π on the selected tokens.

    >>> likelihood_of_selected(tensor([[-2.0, -1.0]]), tensor([[True, False]]))
    tensor([[0.1000, 0.0000]])
    """
    return -coef * logp * selected


recipe = grpo.recipe.with_(
    name="icr",
    findings=(Finding("length", "grpo", "down", "a better front of length and accuracy", "abstract, as digested"),),
    paper=Paper(
        "Implicit Compression Regularization: Concise Reasoning via Internal Shorter Distributions in RL Post-Training",
        arxiv="2605.07316", date="2026-05",
        authors="Wang, Chen and Deng, Hexuan and Zhang, Yining and Zhang, Yuchen and Bai, Jionghao and others",
    ),
    new="the likelihood of the shortest right answer, where long answers are more often wrong", select=shortest_right,
    penalties=(*grpo.recipe.penalties, likelihood_of_selected),
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "Assumed: the likelihood as the loss, each group's own covariance as the gate: the abstract gives neither.",
        "Assumed: averaged over all responses as the rest of the loss is. Equally short ones are all imitated.",
    ),
)  # fmt: skip
