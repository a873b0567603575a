"""ArenaRL (Zhang et al. 2026): the responses to one prompt play a tournament, and the reward is the final place.

    r_i = 1 - place_i / (N - 1),  then A_i = (r_i - mean r) / (std r + ε)
    anchor        everyone beside response 0: N - 1 comparisons
    round robin   everyone beside everyone, a win 1, a tie 1/2: N (N - 1) / 2

`judged[a, b]` is what the judge gives a when it sees a beside b. Knock-outs, the paper's method among them, are in
arena_single.py, and the Swiss system is in arena_swiss.py.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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


def by_points(points: Tensor) -> Tensor:
    """1 for the most points, 0 for the fewest; equal points, equal places, and 0 where all are equal."""
    better = (points > points[:, None]).sum(1).float()
    return (better.max() - better) / better.max().clamp(min=1)


def against_anchor(judged: Tensor) -> Tensor:
    """The points of all beside the first; its own are its mean beside the others."""
    return torch.cat([judged[:1, 1:].mean(1), judged[1:, 0]])


def wins(judged: Tensor) -> Tensor:
    """1 where the row beats the column, 1/2 where they are equal."""
    return (judged > judged.T).float() + 0.5 * (judged == judged.T).float()


def anchor(
    score: PerResponse,
    group: Group,
    texts: Any,
    rng: Any,
    noise: float = 0.0,  # ours: the task's judge is exact
) -> PerResponse:
    """Places by the points beside one response.

    >>> anchor(tensor([5., 7., 7., 2.]), torch.zeros(4).long(), "abcd", None)
    tensor([0.3333, 1.0000, 1.0000, 0.0000])
    """
    return held(lambda judged, _: by_points(against_anchor(judged)), score, group, texts, rng, noise)


def round_robin(
    score: PerResponse,
    group: Group,
    texts: Any,
    rng: Any,
    noise: float = 0.0,  # ours: the task's judge is exact
) -> PerResponse:
    """Places by wins; with an exact judge they are the anchor's.

    >>> round_robin(tensor([5., 7., 7., 2.]), torch.zeros(4).long(), "abcd", None)
    tensor([0.3333, 1.0000, 1.0000, 0.0000])
    """
    return held(lambda judged, _: by_points(wins(judged).sum(1)), score, group, texts, rng, noise)


paper = Paper(
    "ArenaRL: Scaling RL for Open-Ended Agents via Tournament-based Relative Ranking",
    arxiv="2601.06487",
    date="2026-01-10",
    authors="Zhang, Qiang and Chen, Boli and Zhang, Fanrui and Ding, Ruixue and Wang, Shihang and others",
)
departs = (
    "The judge is the task's own score of each response, plus `noise` times a normal draw for each comparison; "
    "the paper asks a language model, in both orders. Without noise all that a tournament adds is ranking.",
    "The first response is one of the sampled ones, not a greedy one.",
    "β stays GRPO's 0.04: the paper's objective has a KL and no number, the released script sets 0.",
)
claims = ("sums_to_zero", "shift_changes_nothing", "scale_changes_nothing")

arena_anchor = grpo.recipe.with_(
    name="arena_anchor", paper=paper, new="the reward is the rank beside one response of the group",
    reward=(anchor,), shelf="reward", claims=("silent_on_equal_rewards", *claims), departs=departs,
)  # fmt: skip
arena_rr = grpo.recipe.with_(
    name="arena_rr", paper=paper, new="the reward is the rank after everyone has met everyone",
    reward=(round_robin,), shelf="reward", claims=("silent_on_equal_rewards", *claims), departs=departs,
)  # fmt: skip
