"""Comparing the whole next-token distributions of a problem's responses, position by position.

Both numbers belong to a problem and a position t of its responses, and stand on the token t of each of them. One
problem is in memory at a time: a table of [longest response, vocabulary].
"""

from collections.abc import Iterator
from math import log
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whet import groups
from whet.batch import Batch
from whet.engines import forward

BOUND = 11.0  # TW-GRPO, the authors' code: |D| is kept below this


def divergence(model: Any, batch: Batch, budget: int, device: Any, logs: bool = False) -> Float[Tensor, "n t"]:
    """KL of each response's distribution to the mean of those that have a token at t, and the mean of that.

    With `logs`, TW-GRPO's: Σ_v (e^D - D - 1), D = mean log π - log π, where a response that has no token at t counts
    as uniform; and the mean of that over all responses of the problem.
    """
    found = torch.zeros(batch["mask"].shape)
    for group in batch["group"].unique():
        mine = batch["group"] == group
        part = batch.where(mine)
        time = (_of_logs if logs else _of_means)(model, part, budget, device)
        found[mine] = groups.spread(time.cpu().expand(len(part), -1), part["mask"])
    return found


def _of_means(model: Any, part: Batch, budget: int, device: Any) -> Float[Tensor, "t"]:
    mean = torch.zeros(part["mask"].shape[1], _vocabulary(model), device=device)
    entropy = mean.new_zeros(len(mean))
    for t, logp in _distributions(model, part, budget, device):
        mean.index_add_(0, t, logp.exp())
        entropy.index_add_(0, t, -(logp.exp() * logp).sum(-1))
    present = part["mask"].sum(0).clamp(min=1).to(device)
    # the mean KL to the mean is the entropy of the mean less the mean entropy
    return (torch.special.entr(mean / present[:, None]).sum(-1) - entropy / present).clamp(min=0)


def _of_logs(model: Any, part: Batch, budget: int, device: Any) -> Float[Tensor, "t"]:
    missing, vocabulary = (~part["mask"]).sum(0).float().to(device), _vocabulary(model)
    mean = (-missing[:, None] * log(vocabulary)).repeat(1, vocabulary)
    for t, logp in _distributions(model, part, budget, device):
        mean.index_add_(0, t, logp)
    mean = mean / len(part)
    found = missing * _distance(mean + log(vocabulary))
    for t, logp in _distributions(model, part, budget, device):
        found.index_add_(0, t, _distance(mean[t] - logp))
    return found / len(part)


def _distance(gap: Float[Tensor, "k v"]) -> Float[Tensor, "k"]:
    gap = gap.clamp(-BOUND, BOUND)
    return (gap.exp() - gap - 1).sum(-1)


def _vocabulary(model: Any) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def _distributions(
    model: Any, part: Batch, budget: int, device: Any
) -> Iterator[tuple[Int[Tensor, "k"], Float[Tensor, "k v"]]]:
    """Log-probabilities of every token of the vocabulary, and the positions in the response that they are for."""
    for rows in forward.micro_batches(part, budget, device):
        yield rows.mask.nonzero()[:, 1], forward.next_token(model, rows).log_softmax(-1)
