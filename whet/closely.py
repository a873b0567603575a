"""Looking closely at an update: measurements that cost a forward pass or two, made now and then."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from whet import groups
from whet.batch import Batch
from whet.draw import generator
from whet.engines.profile import CPU, most_bytes
from whet.step import State, objective, selector, wanted

STATES = 64  # ours: logits of a large vocabulary are big
SMALL = 100_000_000  # trained weights; ours: beyond it, a second copy of them is too much for a measurement


def halves_agree(engine: Any, state: State, batch: Batch) -> float:
    """The cosine of the gradients of the two halves of a weighed batch, by the policy as it is now; makes no step."""
    run, found = {"rng": generator(state.step), "step": state.step}, []
    learner = engine.learner(objective(state.recipe), wanted(state.recipe), selector(state.recipe, run))
    for half in batch.split(2):
        learner.gradient(half)
        found.append(torch.cat([x.flatten() for x in learner.gradients()]))
    return float(torch.cosine_similarity(found[0], found[-1], dim=0)) if len(found) == 2 else float("nan")


def step_kl(engine: Any, batch: Batch, rows: int = 32) -> float:
    """How far one update moved the policy: k3 of the policy that drew the batch to the policy now, nats per token.

    Over at most `rows` responses, spread evenly over the batch; nan where nobody knows what the policy was before.
    """
    some = batch.rows(torch.linspace(0, len(batch) - 1, min(rows, len(batch))).round().long())
    some = some.where(~some["demonstration"] & (some["age"].amax(1) == 0))
    if not len(some) or not some["mask"].any():
        return float("nan")
    before = some["old_logp" if "old_logp" in some.fields else "sampled_logp"]
    if "logp" in some.fields:  # but for responses that the learner did not read
        before = torch.where(some["logp"].isnan(), before, some["logp"])
    x = engine.score(some, ["old_logp"])["old_logp"] - before
    return float(groups.batch_mean(torch.expm1(x) - x, some["mask"]))


def peak_memory(engine: Any) -> float:
    """MiB: the most that the GPU held for this process, or without one the process itself."""
    return most_bytes(getattr(engine, "device", CPU)) / 2**20


# --- what an update does to entropy --------------------------------------------------------------------------


def weights(engine: Any) -> list[Tensor]:
    """A copy of the trained weights of a small model; nothing of a large one."""
    if sum(x.numel() for x in engine.parameters) > SMALL:
        return []
    return [x.detach().clone() for x in engine.parameters]


def entropy_change(engine: Any, batch: Batch, before: Sequence[Tensor]) -> dict[str, float]:
    """How the entropy at states of the batch differs from that of the weights `before`, and what was to be expected."""
    new, now = logits(engine, batch), weights(engine)
    _put(engine, before)
    old = logits(engine, batch)
    _put(engine, now)
    return compared(old, new)


def _put(engine: Any, weights: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for x, value in zip(engine.parameters, weights, strict=True):
            x.copy_(value)


def logits(engine: Any, batch: Batch, states: int = STATES) -> Float[Tensor, "s v"]:
    """Logits of the policy as it is now, at the first states of responses that are spread evenly over the batch."""
    from whet.engines.forward import micro_batches, next_token

    some = batch.rows(torch.linspace(0, len(batch) - 1, min(8, len(batch))).round().long())
    with torch.no_grad(), engine.precision():
        pieces = micro_batches(some, engine.token_budget, engine.device)
        return torch.cat([next_token(engine.model, rows).cpu() for rows in pieces])[:states]


def compared(before: Float[Tensor, "s v"], after: Float[Tensor, "s v"]) -> dict[str, float]:
    """Mean change of entropy between two logits at the same states, and what the covariance says of it.

    H' - H = -Cov_{a ~ π}( log π(a), Δz(a) ) + O(Δz²)          (Cui et al. 2025, 2505.22617, section 4)

    >>> z = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    >>> moved = 1e-4 * z.softmax(1) * torch.tensor([[0.439117, -1.060883, -0.360883]])
    >>> {name: f"{value:.4e}" for name, value in compared(z, z + moved).items()}
    {'entropy_moved': '-1.2371e-05', 'entropy_told': '-1.2370e-05'}
    """
    old, new, moved = before.log_softmax(-1), after.log_softmax(-1), after - before
    pi = old.exp()
    change = (pi * old).sum(-1) - (new.exp() * new).sum(-1)
    covariance = (pi * old * moved).sum(-1) - (pi * old).sum(-1) * (pi * moved).sum(-1)
    return {"entropy_moved": float(change.mean()), "entropy_told": float(-covariance.mean())}
