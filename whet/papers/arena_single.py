"""ArenaRL (Zhang et al. 2026): the responses to one prompt play a tournament, and the reward is the final place.

    r_i = 1 - place_i / (N - 1),  then A_i = (r_i - mean r) / (std r + ε)
    single        seeded by the points beside one response, then knocked out: 2N - 2 comparisons; the paper's method
    double        drawn by lot; who loses once goes on among the losers, and their winner meets the winners'
    anchor        everyone beside response 0: N - 1 comparisons
    round robin   everyone beside everyone, a win 1, a tie 1/2: N (N - 1) / 2
    Swiss         ⌈log2 N⌉ rounds between responses that have done equally well; ties by the opponents' points

The rules of the tournaments are in whet/tournaments.py.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whet import tournaments
from whet.fields import Group, PerResponse
from whet.papers import grpo
from whet.recipe import Paper


def held(places: Callable[..., Tensor], score: Tensor, group: Tensor, texts: Any, rng: Any, noise: float) -> Tensor:
    """Every group's tournament. Seats are drawn by lot from the sorted texts: a row's place in the batch is nothing."""
    by_text = sorted(range(len(texts)), key=lambda i: texts[i])
    reward, seats = torch.zeros_like(score), [by_text[i] for i in torch.randperm(len(texts), generator=rng).tolist()]
    for one in dict.fromkeys(group[by_text].tolist()):
        rows = [i for i in seats if group[i] == one]
        reward[rows] = places(score[rows, None] + noise * torch.randn(len(rows), len(rows), generator=rng), rng)
    return reward


def anchor(score: PerResponse, group: Group, texts: Any, rng: Any, noise: float = 0.0) -> PerResponse:  # ours: none
    """Places by the points beside one response.

    >>> anchor(tensor([5., 7., 7., 2.]), torch.zeros(4).long(), "abcd", None)
    tensor([0.3333, 1.0000, 1.0000, 0.0000])
    """
    return held(tournaments.anchored, score, group, texts, rng, noise)


def round_robin(
    score: PerResponse, group: Group, texts: Any, rng: Any, noise: float = 0.0  # ours: none
) -> PerResponse:  # fmt: skip
    """Places by wins; with an exact judge they are the anchor's.

    >>> round_robin(tensor([5., 7., 7., 2.]), torch.zeros(4).long(), "abcd", None)
    tensor([0.3333, 1.0000, 1.0000, 0.0000])
    """
    return held(tournaments.round_robin, score, group, texts, rng, noise)


def single_elimination(
    score: PerResponse, group: Group, texts: Any, rng: Any, noise: float = 0.0  # ours: none
) -> PerResponse:  # fmt: skip
    """Places by a seeded knock-out.

    >>> single_elimination(tensor([5., 7., 8., 2.]), torch.zeros(4).long(), "abcd", None)
    tensor([0.3333, 0.6667, 1.0000, 0.0000])
    """
    return held(tournaments.knock_out, score, group, texts, rng, noise)


def double_elimination(
    score: PerResponse, group: Group, texts: Any, rng: Any, noise: float = 0.0  # ours: none
) -> PerResponse:  # fmt: skip
    """Places by a knock-out in which one defeat is forgiven; the best two of an exact judge are always first.

    >>> double_elimination(tensor([5., 7., 8., 2.]), torch.zeros(4).long(), "abcd", torch.Generator().manual_seed(0))
    tensor([0.3333, 0.6667, 1.0000, 0.0000])
    """
    return held(tournaments.double_knock_out, score, group, texts, rng, noise)


def swiss(score: PerResponse, group: Group, texts: Any, rng: Any, noise: float = 0.0) -> PerResponse:  # ours: none
    """Places by points, then by the opponents' points; exact ties share the mean of their rewards.

    >>> swiss(tensor([2., 2., 2., 2.]), torch.zeros(4).long(), "abcd", torch.Generator().manual_seed(0))
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    return held(tournaments.swiss, score, group, texts, rng, noise)


_departs = (
    "The judge is the task's own score of each response, plus `noise` times a normal draw for each comparison; "
    "the paper asks a language model, in both orders. Without noise all that a tournament adds is ranking.",
    "The first response is one of the sampled ones, not a greedy one.",
    "β stays GRPO's 0.04: the paper's objective has a KL and no number, the released script sets 0.",
)
_all = {
    "shelf": "reward", "claims": ("sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    "departs": (*_departs, "Equal responses are ranked by lot: no signal, yet it moves."),
    "paper": Paper(
        "ArenaRL: Scaling RL for Open-Ended Agents via Tournament-based Relative Ranking", arxiv="2601.06487",
        date="2026-01-10",
        authors="Zhang, Qiang and Chen, Boli and Zhang, Fanrui and Ding, Ruixue and Wang, Shihang and others",
    ),
}  # fmt: skip
_by_points = {**_all, "claims": grpo.recipe.claims, "departs": _departs}
_swiss = {**_all, "departs": (*_departs, "Points go to those who earned them; the official code shuffles them away.")}
_with = grpo.recipe.with_

recipe = _with(name="arena_single", new="the reward is the place in a seeded knock-out tournament",
               reward=(single_elimination,), **_all)  # fmt: skip
double = _with(name="arena_double", new="the reward is the place in a double-elimination tournament",
               reward=(double_elimination,), **_all)  # fmt: skip
arena_anchor = _with(name="arena_anchor", new="the reward is the rank beside one response of the group",
                     reward=(anchor,), **_by_points)  # fmt: skip
arena_rr = _with(name="arena_rr", new="the reward is the rank after everyone has met everyone",
                 reward=(round_robin,), **_by_points)  # fmt: skip
arena_swiss = _with(name="arena_swiss", new="the reward is the place after a Swiss tournament",
                    reward=(swiss,), **_swiss)  # fmt: skip
