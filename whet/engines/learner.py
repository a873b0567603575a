"""Descending an objective on a Hugging Face model: gradient by micro-batches, then one optimiser step."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from whet.batch import Batch
from whet.engines import forward, relaxed
from whet.engines.forward import Rows
from whet.fields import FIELDS
from whet.metrics import gap, ratios
from whet.refusal import NotFinite

if TYPE_CHECKING:
    from whet.engines.local import LocalEngine

Objective = Callable[[Mapping[str, Tensor]], Tensor]
OLD = {"old_logp": "logp", "old_entropy": "entropy"}  # on policy the old number is the detached current one


class LocalLearner:
    """The policy of a LocalEngine with an objective. `seen` holds [n t] of the last gradient, rows as in the batch.

    `logp` is the log-probability of each token that counts, `push` the derivative of the loss by it: negative
    where the update makes the token likelier.
    """

    def __init__(
        self,
        engine: "LocalEngine",
        objective: Objective,
        wanted: frozenset[str],
        selector: Objective | None = None,
    ) -> None:
        self.engine, self.objective, self.wanted, self.selector = engine, objective, wanted, selector
        self.still = False
        self.seen: dict[str, Tensor] = {}
        self.met: dict[int, tuple[Tensor, Tensor]] = {}

    def gradient(self, batch: Batch, scale: float = 1.0) -> dict[str, float]:
        """Set the gradient of scale × objective on this batch; micro-batches add up to the same gradient."""
        engine = self.engine
        engine.optimizer.zero_grad()
        if self.selector:
            batch = batch.having(selected=self._selected(batch, self.selector))
        shape = batch["mask"].shape
        self.seen = {"logp": torch.zeros(shape), "push": torch.zeros(shape)}
        loss = 0.0
        for rows in forward.micro_batches(batch, engine.token_budget, engine.device):
            with engine.precision(), engine.recomputing():
                made = self._made(batch, rows)
            loss += self._descend(batch, rows, made, scale)
        for row, *numbers in zip(batch.fields.get("row", torch.tensor([])).tolist(), *self.seen.values(), strict=False):
            self.met.setdefault(row, (numbers[0], numbers[1]))
        return {"loss": loss, **told(batch, self.seen)}

    def first_seen(self, batch: Batch) -> dict[str, Tensor]:
        """`logp` and `push` [n t] of each response when it was first met, before the policy moved away from it."""
        if not all(row in self.met for row in batch["row"].tolist()):
            return {}
        logp, push = zip(*(self.met[row] for row in batch["row"].tolist()), strict=True)
        return {"logp": torch.stack(logp), "push": torch.stack(push)}

    def step(self, lr: float | None = None, clip_norm: float = 1.0) -> dict[str, float]:
        """One AdamW step with the gradient that was set, at the engine's own learning rate when `lr` is None."""
        if self.still:
            for x in self.engine.model.parameters():
                x.grad = None
        return self.engine.step(lr, clip_norm)

    def critic_alone(self) -> "LocalLearner":
        """The same learner with steps that move the critic and leave the policy where it is."""
        alone = copy(self)
        alone.still = True
        return alone

    def through_sampling(self, batch: Batch, soften: relaxed.Soften, cost: relaxed.Cost, seed: int) -> float:
        """Add the gradient that runs through soft responses to the batch's prompts; see `relaxed.add_gradient`."""
        return relaxed.add_gradient(self.engine, batch, soften, cost, seed)

    def weights(self) -> list[Tensor]:
        """Copies of the policy's weights, in a fixed order."""
        return [x.detach().clone() for x in self.engine.parameters]

    def set_weights(self, weights: Sequence[Tensor]) -> None:
        """Put the policy there, in that order; what the optimiser remembers stays."""
        with torch.no_grad():
            for x, new in zip(self.engine.parameters, weights, strict=True):
                x.copy_(new)

    def gradients(self) -> list[Tensor]:
        """Copies of the gradient as it stands, in the order of `weights`; after a step it is the clipped one."""
        return [torch.zeros_like(x) if x.grad is None else x.grad.clone() for x in self.engine.parameters]

    def _selected(self, batch: Batch, selector: Objective) -> Tensor:
        """What the selector chooses on the whole batch, [n t] bool, by the policy as it is now."""
        now = self.engine.score(batch, ["old_logp", "old_entropy"])
        return selector({**now, **batch.fields, "logp": now["old_logp"], "entropy": now["old_entropy"]})

    def _made(self, batch: Batch, rows: Rows) -> dict[str, Tensor]:
        """What the forward pass gives this objective, [b t] each; carries gradient."""
        model, wanted = self.engine.model, self.wanted
        entropy = "entropy" in wanted or ("old_entropy" in wanted and "old_entropy" not in batch.fields)
        made = forward.policy(model, rows, *(["entropy"] if entropy else []))
        if "blind_logp" in wanted:
            made["blind_logp"] = forward.policy(model, forward.blind(rows, self.engine.stop[0]))["logp"]
        if "new_value" in wanted:
            made["new_value"] = self.engine.critic(rows)
        return made

    def _descend(self, batch: Batch, rows: Rows, made: dict[str, Tensor], scale: float) -> float:
        """Differentiate the objective by the numbers that were made, then carry that into the model.

        The chain rule in two steps: the first gives `push`, and the numbers at which nothing counts end there.
        """
        leaves = {name: x.detach().requires_grad_() for name, x in made.items()}
        fields: dict[str, Any] = {**fields_of(batch, rows), **leaves}
        for old, new in OLD.items():
            if old in self.wanted and old not in batch.fields:
                fields[old] = leaves[new].detach()
        loss = self.objective(fields) * scale
        if loss.requires_grad:
            pushes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            pairs = [(x, push) for x, push in zip(made.values(), pushes, strict=True) if push is not None]
            torch.autograd.backward([x for x, _ in pairs], [push for _, push in pairs])
            if pushes[0] is not None:
                put(self.seen["push"], rows, pushes[0])
        put(self.seen["logp"], rows, leaves["logp"].detach())
        return float(loss.detach())


def fields_of(batch: Batch, rows: Rows) -> dict[str, Tensor]:
    """The batch's fields on some rows, those in time cut to the longest response among them."""
    width, time = rows.mask.shape[1], batch["mask"].shape
    found = {}
    for name, x in batch.fields.items():
        in_time = FIELDS[name].shape == "n t" if name in FIELDS else x.shape == time
        mine = x[rows.index]
        found[name] = (mine[:, :width] if in_time else mine).to(rows.mask.device)
    return found


def put(found: Tensor, rows: Rows, x: Tensor) -> None:
    """Write [b t] back to where its rows are in the batch."""
    found[rows.index, : x.shape[1]] = x.float().cpu()


def told(batch: Batch, seen: Mapping[str, Tensor]) -> dict[str, float]:
    """Metrics of a gradient, over the tokens that count; their definitions are in whet/metrics.py."""
    kept, logp = batch["mask"], seen["logp"]
    own = kept  # drawn by this policy: no demonstration, and nothing carried over
    loud = kept
    for name in ("advantage", "weight"):
        if name in batch.fields:
            loud = loud & (batch[name] != 0)
    if "demonstration" in batch.fields:
        own = own & ~batch["demonstration"][:, None]
    if "age" in batch.fields:
        own = own & (batch["age"] == 0)
    silenced = loud & (seen["push"] == 0)
    moved = logp - batch["old_logp"] if "old_logp" in batch.fields else torch.zeros_like(logp)
    found = {"clip_fraction": float(silenced.sum() / loud.sum().clamp(min=1)), **ratios(moved[kept].exp())}
    if "sampled_logp" in batch.fields and own.any():
        found |= gap((logp - batch["sampled_logp"])[own])
    return found


def finite(norm: Tensor) -> float:
    """The gradient norm, or one sentence when it is no number: the weights are still those of the step before."""
    if not torch.isfinite(norm):
        raise NotFinite(
            "the gradient",
            f"the gradient norm is {float(norm)}, so no step was made: lower the learning rate, "
            "or bound the ratio and the rewards of the recipe.",
        )
    return float(norm)
