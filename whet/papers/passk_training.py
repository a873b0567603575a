"""Pass@k training (Chen et al. 2025): GRPO on groups of k tries, each rewarded when one of them is right.

R̄   = 1 - C(n_wrong, k) / C(n, k),   σ = √(R̄ (1 - R̄))
A⁺  = (1 - R̄) / σ
A⁻  = (1 - R̄ - C(n_wrong - 1, k-1) / C(n - 1, k-1)) / σ
"""

import torch
from torch import Tensor

from whet import groups
from whet.fields import Flag, Group, PerResponse
from whet.papers import grpo
from whet.recipe import Paper


def pass_at_k(correct: Flag, group: Group, k: int = 4) -> PerResponse:  # ours: the k of the spec's test vector
    """The advantage of each response in a group of k tries, averaged over all such groups; 0 if they never differ.

    >>> pass_at_k(tensor([True] * 2 + [False] * 6), torch.zeros(8).long())[1:3]
    tensor([ 0.5222, -0.1741])
    """
    size, wrong = groups.size(group), groups.total((~correct).float(), group)
    missed = _all_wrong(wrong, size, k)
    spread = (missed * (1 - missed)).sqrt()
    gained = missed - torch.where(correct, 0.0, _all_wrong(wrong - 1, size - 1, k - 1))
    return torch.where(spread < 1e-6, 0.0, gained / spread.clamp(min=1e-6))


def _all_wrong(wrong: Tensor, size: Tensor, k: int) -> Tensor:
    """C(wrong, k) / C(size, k): the chance that k of the responses are all wrong; 0 where there are not k."""
    chance = torch.ones_like(size)
    for j in range(k):
        chance = chance * (wrong - j).clamp(min=0) / (size - j).clamp(min=1)
    return chance


recipe = grpo.recipe.with_(
    name="passk_training",
    paper=Paper(
        "Pass@k Training for Adaptively Balancing Exploration and Exploitation of Large Reasoning Models",
        arxiv="2508.10751",
        date="2025-08-14",
        authors="Chen, Zhipeng and others",
    ),
    new="the advantage of a group of k tries that is right when one of them is, in closed form",
    advantage=pass_at_k,
    claims=("silent_on_equal_rewards", "sums_to_zero"),
    departs=(
        "Reads whether an answer is right, so that other reward parts do not enter; the paper's reward is 0 or 1.",
        "The spread of all subsets is their population one, as the derivation has it; GRPO's is the sample one.",
        "A problem with fewer than k responses gets 0.",
    ),
)
