"""C3PO (Ring team 2025, Ring-lite): every update learns from the same number of tokens.

L = 1/Φ Σ_i Σ_t 1[y_it in Ψ] ( max(-r A, -clip(r) A) + β k3 - 5e-4 H )
Ψ = responses one after another until Φ tokens are full; the last one is cut
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from whet.fields import Mask, PerToken
from whet.papers import adaptive_entropy_control, grpo, kl_estimators
from whet.recipe import Paper


def first_tokens(mask: Mask, order: Tensor, budget: int) -> Mask:
    """The first `budget` tokens that count, when responses are taken one after another in `order`.

    >>> first_tokens(torch.arange(6) < tensor([[5], [4], [6]]), tensor([0, 1, 2]), 11).sum(1)
    tensor([5, 4, 2])
    """
    length = mask.sum(1)[order]
    left = torch.empty_like(length).index_copy(0, order, budget - length.cumsum(0) + length)
    return mask & (mask.cumsum(1) <= left[:, None])


def within_budget(
    mask: Mask,
    texts: Any,
    rng: Any,
    budget: int = 2048,  # ours: about half of a small batch; section 3.2 has 409600
) -> PerToken:
    """1/Φ on Φ tokens, whatever the lengths; the order of the responses is drawn, and is not their place in the batch.

    >>> within_budget(torch.ones(1, 4).bool(), ["one"], None, budget=2)
    tensor([[0.5000, 0.5000, 0.0000, 0.0000]])
    """
    by_text = torch.tensor(sorted(range(len(texts)), key=lambda i: texts[i]))
    return first_tokens(mask, by_text[torch.randperm(len(texts), generator=rng)], budget) / budget


recipe = grpo.recipe.with_(
    name="c3po",
    paper=Paper(
        "Ring-lite: Scalable Reasoning via C3PO-Stabilized Reinforcement Learning for LLMs", arxiv="2506.14731",
        date="2025-06-17", authors="Ring Team and Hu, Bin and Chen, Cai and Zhao, Deng and Liu, Ding and others",
    ),
    new="a fixed budget of tokens for each update, and its number as the divisor", normalise=within_budget,
    penalties=(
        partial(kl_estimators.k3, beta=1e-3),  # the paper's setting
        partial(adaptive_entropy_control.entropy_bonus, coef=5e-4),  # the paper's setting
    ),
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "A batch with fewer than Φ tokens is still divided by Φ, as the equation says. The order is drawn by lot.",
        "The entropy bonus is subtracted; the paper prints a plus. No router losses: there are no experts.",
    ),
)  # fmt: skip
