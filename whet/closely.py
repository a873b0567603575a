"""Looking closely at an update: measurements that cost a forward pass or two, made now and then."""

import resource
import sys
from typing import Any

import torch

from whet import groups
from whet.batch import Batch
from whet.draw import generator
from whet.step import State, objective, selector, wanted


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
    before = "logp" if "logp" in batch.fields else "old_logp" if "old_logp" in batch.fields else "sampled_logp"
    some = batch.rows(torch.linspace(0, len(batch) - 1, min(rows, len(batch))).round().long())
    some = some.where(~some["demonstration"] & (some["age"].amax(1) == 0))
    if not len(some) or not some["mask"].any():
        return float("nan")
    x = engine.score(some, ["old_logp"])["old_logp"] - some[before]
    return float(groups.batch_mean(torch.expm1(x) - x, some["mask"]))


def peak_memory(engine: Any) -> float:
    """MiB: the most that the GPU held for this process, or without one the process itself."""
    if getattr(engine, "device", None) is not None and engine.device.type == "cuda":
        return torch.cuda.max_memory_allocated(engine.device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, but bytes on a Mac
    return most / (2**20 if sys.platform == "darwin" else 2**10)
