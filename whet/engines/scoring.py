"""What the scorer says of responses: the policy's own numbers, the reference's, the critic's, and hidden states."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from whet import groups
from whet.batch import Batch
from whet.engines import across, forward, sharing
from whet.engines.learner import put
from whet.engines.profile import counted, stage
from whet.refusal import Refused

if TYPE_CHECKING:
    from whet.engines.local import LocalEngine

POLICY = ("old_logp", "old_entropy", "old_certainty", "old_collision")
ACROSS = ("group_divergence", "group_log_divergence")
STATES = ("prompt_state", "response_state")
REFERENCE, CRITIC = "ref_logp", "value"


def score(engine: "LocalEngine", batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
    """Any field made by the scorer; [n t] ones are 0 where the mask is False, states are [n d]."""
    unknown = [name for name in names if name not in (*POLICY, *ACROSS, *STATES, REFERENCE, CRITIC)]
    if unknown:
        raise Refused(f"a local engine cannot score {unknown[0]!r}: it has no model for that.")
    found = {name: torch.zeros(batch["mask"].shape) for name in names if name not in STATES}
    for name in ACROSS:
        if name in names:
            with torch.no_grad(), engine.precision(), stage("score"):
                logs = name == "group_log_divergence"
                found[name] = across.divergence(engine.model, batch, engine.token_budget, engine.device, logs)
    names = [name for name in names if name not in ACROSS]
    if not names:
        return found
    share = sharing.width(engine.model) if {*names} <= {*POLICY, REFERENCE} else 0
    for rows in forward.micro_batches(batch, engine.token_budget, engine.device, share=share):
        counted("score", *rows.sizes, forward.flops(engine.model, rows))
        with torch.no_grad(), engine.precision(), stage("score"):
            scores = _scores(engine, rows, names)
        for name in names:
            x = scores[name]
            put(found.setdefault(name, torch.zeros(len(batch), x.shape[1])), rows, x)
    return found


def _scores(engine: "LocalEngine", rows: forward.Rows, names: Sequence[str]) -> dict[str, Tensor]:
    scores: dict[str, Any] = {}
    if any(name in POLICY for name in names):
        asked = (name.removeprefix("old_") for name in names)
        made = forward.policy(engine.model, rows, *asked, chunk=engine.chunk)
        scores.update({f"old_{name}": x for name, x in made.items()})
    if any(name in STATES for name in names):
        scores.update(forward.states(engine.model, rows))
    if REFERENCE in names:
        scores[REFERENCE] = forward.policy(engine.reference, rows, chunk=engine.chunk)["logp"]
    if CRITIC in names:
        scores[CRITIC] = engine.critic(rows)
    return scores


def kl_to_start(engine: "LocalEngine", batch: Batch, rows: int) -> float:
    """Nats per token from the policy to the start, by the k3 estimate e^-x - 1 + x, x = logp - ref_logp.

    Over all response tokens of at most `rows` rows, spread evenly over the batch; each at its own temperature.
    Demonstrations are left out: the estimate holds for what the policy drew.
    """
    batch = batch.where(~batch["demonstration"]) if "demonstration" in batch.fields else batch
    index = torch.linspace(0, len(batch) - 1, min(rows, len(batch))).round().long()
    some = batch.rows(index)
    some = some.having(mask=torch.arange(batch["mask"].shape[1]) < some["length"][:, None])
    scores = score(engine, some, ["old_logp", REFERENCE])
    x = scores["old_logp"] - scores[REFERENCE]
    return float(groups.batch_mean(torch.expm1(-x) + x, some["mask"]))
