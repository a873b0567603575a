"""Tournaments: the place of each player from a table of what it is given beside each of the others.

`judged[a, b]` is what the judge gives a when it sees a beside b. Every function returns a reward for each player, from
1 for the first place to 0 for the last. Brackets and the Swiss system are older than any paper that uses them here.
"""

import math
from typing import Any

import torch
from torch import Tensor


def by_points(points: Tensor) -> Tensor:
    """1 for the most points, 0 for the fewest; equal points, equal places, and 0 where all are equal.

    >>> by_points(tensor([5., 7., 7., 2.]))
    tensor([0.3333, 1.0000, 1.0000, 0.0000])
    >>> by_points(tensor([3., 5.]))
    tensor([0., 1.])
    """
    better = (points > points[:, None]).sum(1).to(points.dtype)
    return (better.max() - better) / better.max().clamp(min=1)


def against_first(judged: Tensor) -> Tensor:
    """The points of all beside the first; its own are its mean beside the others, without rounding where all are equal.

    >>> against_first(tensor([[0., 5.], [7., 0.]]))
    tensor([5., 7.])
    """
    last = judged[0, -1:]
    return torch.cat([last + (judged[:1, 1:] - last).mean(1), judged[1:, 0]])


def wins(judged: Tensor) -> Tensor:
    """1 where the row beats the column, 1/2 where they are equal.

    >>> wins(tensor([[0., 5.], [7., 0.]]))
    tensor([[0.5000, 0.0000],
            [1.0000, 0.5000]])
    """
    return ((judged > judged.T) + 0.5 * (judged == judged.T)).to(judged.dtype)


def anchored(judged: Tensor, rng: Any) -> Tensor:
    """Places by the points beside the first player."""
    return by_points(against_first(judged))


def round_robin(judged: Tensor, rng: Any) -> Tensor:
    """Places by wins, when everyone has met everyone."""
    return by_points(wins(judged).sum(1))


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
    """1 for the champion down to 0 in equal steps: the losers of the last round first, in a round by mean points."""
    mean = [sum(x) / max(len(x), 1) for x in points]
    rest = [p for losers in reversed(rounds) for p in sorted(losers, key=lambda p: -mean[p])]
    steps = torch.linspace(1, 0, len(points))
    return torch.zeros(len(points)).index_copy(0, torch.tensor([*first, *rest]), steps)


def knock_out(judged: Tensor, rng: Any) -> Tensor:
    """Seeded by the points beside the first player, then one defeat is the end; equal players get unequal places."""
    points = [[x] for x in against_first(judged).tolist()]
    seeds = sorted(range(len(points)), key=lambda p: -points[p][0])
    players, rounds = [seeds[i] for i in bracket(len(seeds))], []
    while len(players) > 1:
        players, losers = play(players, judged, points)
        rounds.append(losers)
    return placed(players, rounds, points)


def double_knock_out(judged: Tensor, rng: Any) -> Tensor:
    """Drawn by lot; who loses once goes on among the losers, and the best of these meets the best of the others."""
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


def swiss_table(judged: Tensor, rng: Any) -> tuple[Tensor, Tensor]:
    """Points, and the sum of the opponents' points, after ⌈log2 N⌉ rounds between players with equal points.

    The last of an odd number gets a point without playing; who has met does not meet again if it can be helped.
    """
    count, won = len(judged), wins(judged)
    points, met = torch.zeros(count), torch.zeros(count, count)
    for _ in range(math.ceil(math.log2(count))):
        shuffled = torch.randperm(count, generator=rng)
        table = shuffled[points[shuffled].argsort(descending=True, stable=True)].tolist()
        gain = torch.zeros(count)
        if count % 2:
            gain[table.pop()] = 1
        while table:
            a = table.pop(0)
            b = next((p for p in table if not met[a, p]), table[0])
            table.remove(b)
            gain[a], gain[b] = won[a, b], won[b, a]
            met[a, b] = met[b, a] = 1
        points = points + gain
    return points, met @ points


def swiss(judged: Tensor, rng: Any) -> Tensor:
    """Places by points, then by the opponents' points; exact ties share the mean of their rewards."""
    points, opponents = swiss_table(judged, rng)
    rank = points * len(points) ** 2 + opponents  # opponents' points are fewer than N²
    ahead, level = (rank > rank[:, None]).sum(1), (rank == rank[:, None]).sum(1)
    return 1 - (ahead + (level - 1) / 2) / max(len(rank) - 1, 1)
