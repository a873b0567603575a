"""ArenaRL (Zhang et al. 2026): knock-out tournaments; the seeded single one is the paper's method.

    single   seeded by the points beside one response, then knocked out: 2N - 2 comparisons
    double   drawn by lot; who loses once goes on among the losers, and their winner meets the winners'

Champion first, then the losers of the last round, of the round before, …; inside a round by mean points. See arena.py.
"""

from typing import Any

import torch
from torch import Tensor

from whet.fields import Group, PerResponse
from whet.papers import arena, grpo


def bracket(players: int) -> list[int]:
    """Seeds in the order of the draw, so that the best meet last; missing seeds are left out.

    >>> bracket(8), bracket(6)
    ([0, 7, 3, 4, 1, 6, 2, 5], [0, 3, 4, 1, 2, 5])
    """
    seeds = [0]
    while len(seeds) < players:
        seeds = [seed for i in seeds for seed in (i, 2 * len(seeds) - 1 - i)]
    return [seed for seed in seeds if seed < players]


def play(players: list[int], judged: Tensor, points: list[list[float]]) -> tuple[list[int], list[int]]:
    """Neighbours play, the first wins a tie; who has no neighbour goes on and stands first. Winners, losers."""
    winners, losers = players[len(players) // 2 * 2 :], []
    for a, b in zip(players[::2], players[1::2], strict=False):
        points[a].append(float(judged[a, b]))
        points[b].append(float(judged[b, a]))
        winners.append(a if judged[a, b] >= judged[b, a] else b)
        losers.append(a + b - winners[-1])
    return winners, losers


def placed(first: list[int], rounds: list[list[int]], points: list[list[float]]) -> Tensor:
    """1 for the champion down to 0 in equal steps."""
    mean = [sum(x) / max(len(x), 1) for x in points]
    rest = [p for losers in reversed(rounds) for p in sorted(losers, key=lambda p: -mean[p])]
    steps = torch.linspace(1, 0, len(points))
    return torch.zeros(len(points)).index_copy(0, torch.tensor([*first, *rest]), steps)


def knock_out(judged: Tensor, rng: Any) -> Tensor:
    """Seeded by the points beside the first seat; equal responses get unequal places."""
    points = [[x] for x in arena.against_anchor(judged).tolist()]
    seeds = sorted(range(len(points)), key=lambda p: -points[p][0])
    players, rounds = [seeds[i] for i in bracket(len(seeds))], []
    while len(players) > 1:
        players, losers = play(players, judged, points)
        rounds.append(losers)
    return placed(players, rounds, points)


def _double(judged: Tensor, rng: Any) -> Tensor:
    points: list[list[float]] = [[] for _ in judged]

    def drawn(players: list[int]) -> tuple[list[int], list[int]]:
        lots = torch.randperm(len(players), generator=rng).tolist()
        return play([players[i] for i in lots], judged, points)

    winners, second = list(range(len(judged))), list[int]()
    drops, rounds = [], []
    while len(winners) > 1:
        winners, losers = drawn(winners)
        drops.append(losers)
    while drops or len(second) > 1:
        second = second + (drops.pop(0) if drops else [])
        if len(second) > 1:
            second, losers = drawn(second)
            rounds.append(losers)
    final, lost = drawn(winners + second)
    return placed(final + lost, rounds, points)


def single_elimination(
    score: PerResponse,
    group: Group,
    texts: Any,
    rng: Any,
    noise: float = 0.0,  # ours: an exact judge, as in arena.py
) -> PerResponse:
    """Places by a seeded knock-out.

    >>> single_elimination(tensor([5., 7., 8., 2.]), torch.zeros(4).long(), "abcd", None)
    tensor([0.3333, 0.6667, 1.0000, 0.0000])
    """
    return arena.held(knock_out, score, group, texts, rng, noise)


def double_elimination(
    score: PerResponse,
    group: Group,
    texts: Any,
    rng: Any,
    noise: float = 0.0,  # ours: an exact judge, as in arena.py
) -> PerResponse:
    """Places by a knock-out in which one defeat is forgiven; the best two of an exact judge are always first.

    >>> double_elimination(tensor([5., 7., 8., 2.]), torch.zeros(4).long(), "abcd", torch.Generator().manual_seed(0))
    tensor([0.3333, 0.6667, 1.0000, 0.0000])
    """
    return arena.held(_double, score, group, texts, rng, noise)


recipe = grpo.recipe.with_(
    name="arena_single", paper=arena.paper, new="the reward is the place in a seeded knock-out tournament",
    reward=(single_elimination,), shelf="reward", claims=arena.claims,
    departs=(*arena.departs, "Equal responses are ranked by their seats, which are drawn: no signal, yet it moves."),
)  # fmt: skip
arena_double = grpo.recipe.with_(
    name="arena_double", paper=arena.paper, new="the reward is the place in a double-elimination tournament",
    reward=(double_elimination,), shelf="reward", claims=arena.claims,
    departs=(*arena.departs, "Equal responses are ranked by lot: no signal, yet it moves."),
)  # fmt: skip
