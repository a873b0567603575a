"""What an update does to the next-token distributions at a few states: entropy, exactly and by the covariance.

H' - H = -Cov_{a ~ π}( log π(a), Δz(a) ) + O(Δz²)          (Cui et al. 2025, 2505.22617, section 4)
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from whet.batch import Batch
from whet.engines.forward import micro_batches, only

STATES = 64  # ours: logits of a large vocabulary are big


def logits(engine: Any, batch: Batch, states: int = STATES) -> Float[Tensor, "s v"]:
    """Logits of the policy as it is now, at the first states of responses that are spread evenly over the batch."""
    some = batch.rows(torch.linspace(0, len(batch) - 1, min(8, len(batch))).round().long())
    rows = next(micro_batches(some, 2**62, engine.device))
    with torch.no_grad(), engine.precision(), only(engine.model, rows.where):
        z = engine.model(input_ids=rows.ids, use_cache=False).logits[0].float()
    return (z / rows.temperature[:, None])[:states].cpu()


def entropy_change(before: Float[Tensor, "s v"], after: Float[Tensor, "s v"]) -> dict[str, float]:
    """Mean change of entropy between two logits at the same states, and what the covariance says of it.

    >>> z = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    >>> moved = 1e-4 * z.softmax(1) * torch.tensor([[0.439117, -1.060883, -0.360883]])
    >>> {name: f"{value:.4e}" for name, value in entropy_change(z, z + moved).items()}
    {'entropy_moved': '-1.2371e-05', 'entropy_told': '-1.2370e-05'}
    """
    old, new, moved = before.log_softmax(-1), after.log_softmax(-1), after - before
    pi = old.exp()
    change = (pi * old).sum(-1) - (new.exp() * new).sum(-1)
    covariance = (pi * old * moved).sum(-1) - (pi * old).sum(-1) * (pi * moved).sum(-1)
    return {"entropy_moved": float(change.mean()), "entropy_told": float(-covariance.mean())}
