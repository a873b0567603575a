"""ArenaRL (Zhang et al. 2026): the Swiss system, few rounds between responses that have done equally well.

    ⌈log2 N⌉ rounds; in each, neighbours in the table who have not met: a win 1, a tie 1/2
    final places by points, then by Buchholz: the sum of the opponents' points; exact ties share their rewards

The judge and the other topologies are in arena.py and arena_single.py.
"""

import math
from typing import Any

import torch
from torch import Tensor

from whet.fields import Group, PerResponse
from whet.papers import arena, grpo


def swiss_table(judged: Tensor, rng: Any) -> tuple[Tensor, Tensor]:
    """Points, and the sum of the opponents' points; the last of an odd number gets a point without playing."""
    count, won = len(judged), arena.wins(judged)
    points, met = torch.zeros(count), torch.zeros(count, count)
    for _ in range(min(math.ceil(math.log2(count)), count - 1)):
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


def _swiss(judged: Tensor, rng: Any) -> Tensor:
    points, opponents = swiss_table(judged, rng)
    rank = points * len(points) ** 2 + opponents  # opponents' points are fewer than N²
    ahead, level = (rank > rank[:, None]).sum(1), (rank == rank[:, None]).sum(1)
    return 1 - (ahead + (level - 1) / 2) / max(len(rank) - 1, 1)


def swiss(score: PerResponse, group: Group, texts: Any, rng: Any, noise: float = 0.0) -> PerResponse:  # ours: none
    """Places by points, then by the opponents' points; exact ties share the mean of their rewards.

    >>> swiss(tensor([2., 2., 2., 2.]), torch.zeros(4).long(), "abcd", torch.Generator().manual_seed(0))
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    return arena.held(_swiss, score, group, texts, rng, noise)


recipe = grpo.recipe.with_(
    name="arena_swiss", paper=arena.paper, new="the reward is the place after a Swiss tournament", reward=(swiss,),
    shelf="reward", claims=arena.claims,
    departs=(*arena.departs, "Points go to those who earned them; the official code shuffles them away."),
)  # fmt: skip
