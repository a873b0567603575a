"""PKPO (Walder and Karkhanis 2025): a response is worth what it does for the best of k.

    pkpo  s_i = 1/C(n,k) Σ_{S∋i, |S|=k}  max_S R                   unbiased for max@k
    sloo  s_i = 1/C(n,k) Σ_{S∋i, |S|=k} (max_S R - max_{S\\i} R)   less variance

With R sorted upwards, the j-th of n (from 0) is the best of C(j, k-1) subsets, so neither sum is enumerated.
"""

from collections.abc import Callable
from math import comb

import torch
from torch import Tensor

from whet import groups
from whet.fields import Group, PerResponse
from whet.papers import reinforce
from whet.recipe import Paper, Refused


def unbiased_weight(
    reward: PerResponse,
    group: Group,
    k: int = 4,  # ours: the paper trains for several k with 16 responses
) -> PerResponse:
    """The mean over all subsets of k of the subset's best reward, where the response is in it; 0 elsewhere.

    >>> unbiased_weight(tensor([.1, .7, .4, .9]), tensor([0, 0, 0, 0]), k=2)
    tensor([0.3333, 0.3833, 0.3333, 0.4500])
    """

    def weight(ranked: Tensor) -> Tensor:
        best = _among(ranked, k, 1) * ranked
        beaten = ranked.new_ones(len(ranked), len(ranked)).triu(1) @ (_among(ranked, k, 2).roll(1) * ranked)
        return best + beaten  # beaten by j: k-2 others lie below j besides i

    return _by_rank(reward, group, k, weight)


def marginal(
    reward: PerResponse,
    group: Group,
    k: int = 4,  # ours: the paper trains for several k with 16 responses
) -> PerResponse:
    """The mean over all subsets of k of what the response adds to the subset's best reward: Σ_{j<i} (R_i - R_j).

    >>> marginal(tensor([.1, .7, .4, .9]), tensor([0, 0, 0, 0]), k=2)
    tensor([0.0000, 0.1500, 0.0500, 0.2500])
    """
    if k < 2:
        raise Refused(f"advantage.k is {k}; what a response adds to the best of k needs k of 2 or more: use pkpo.")

    def weight(ranked: Tensor) -> Tensor:
        ahead = (ranked[:, None] - ranked).tril()
        return ahead @ _among(ranked, k, 2)

    return _by_rank(reward, group, k, weight)


def _among(ranked: Tensor, k: int, fixed: int) -> Tensor:
    """C(j, k - fixed) / C(n, k) for j = 0 … n-1: subsets of k whose other members lie below the j-th."""
    n = len(ranked)
    return ranked.new_tensor([comb(j, k - fixed) / comb(n, k) if k >= fixed else 0.0 for j in range(n)])


def _by_rank(reward: PerResponse, group: Group, k: int, weight: Callable[[Tensor], Tensor]) -> PerResponse:
    """What `weight` gives to the sorted rewards of each group, put back in place; 0 in a group of fewer than k."""
    if not (groups.size(group) >= k).any():
        raise Refused(f"advantage.k is {k}, and no problem has as many responses: lower it or raise sample.responses.")
    found = torch.zeros_like(reward)
    for problem in group.unique():
        rows = (group == problem).nonzero()[:, 0]
        ranked, order = reward[rows].sort()
        found[rows[order]] = weight(ranked) if len(rows) >= k else 0.0
    return found


paper = Paper(
    "Pass@K Policy Optimization: Solving Harder Reinforcement Learning Problems",
    arxiv="2505.15201",
    date="2025-05-21",
    authors="Walder, Christian and Karkhanis, Deep",
)
_departs = (
    "The paper sums over the responses of a problem; here, as everywhere, the loss is their mean.",
    "A problem with fewer than k responses gets 0.",
)

recipe = reinforce.recipe.with_(
    name="pkpo", paper=paper, new="rewards are turned into unbiased weights for the best of k",
    advantage=unbiased_weight, claims=("policy_gradient", "unbiased_for_the_best_of_k",),
    departs=(*_departs, "For the best of 4 and without a baseline it does not learn `digits` in time; sloo does."),
)  # fmt: skip
sloo = reinforce.recipe.with_(
    name="sloo", paper=paper, new="a response's weight is what it adds to the best of k", advantage=marginal,
    claims=("policy_gradient", "unbiased_for_the_best_of_k", "silent_on_equal_rewards", "shift_changes_nothing"),
    departs=_departs,
)  # fmt: skip
