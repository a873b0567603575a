"""Descending an objective on a Hugging Face model: gradient by micro-batches, then one optimiser step."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from whet.batch import Batch
from whet.engines import forward, relaxed, sharing
from whet.engines.forward import Rows
from whet.engines.head import Head, Numbers
from whet.engines.profile import counted, stage
from whet.fields import FIELDS
from whet.metrics import gap, ratios
from whet.refusal import NotFinite

if TYPE_CHECKING:
    from whet.engines.local import LocalEngine

Objective = Callable[[Mapping[str, Tensor]], Tensor]
OLD = {"old_logp": "logp", "old_entropy": "entropy"}  # on policy the old number is the detached current one
NEAR = 2048  # tokens: ours; with 0.8 and 42 million parameters more of them took as much time, and more memory
# What forward passes make: field → whose hidden states it is read off, its name there, and the sign it cannot lack.
MADE = {
    "logp": ("logp", "logp", -1),
    "entropy": ("logp", "entropy", 1),
    "blind_logp": ("blind_logp", "logp", -1),
    "new_value": ("new_value", "new_value", 0),
}


class LocalLearner:
    """The policy of a LocalEngine with an objective. `seen` holds [n t] of the last gradient, rows as in the batch.

    `logp` is the log-probability of each token that counts, not a number where it was not needed; `push` the
    derivative of the loss by it: negative where the update makes the token likelier. `silent` [n] is True for the
    responses that were not read, because they could give no gradient.
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
        self.silent = torch.zeros(0, dtype=torch.bool)
        self.seen: dict[str, Tensor] = {}
        self.met: dict[int, tuple[Tensor, Tensor]] = {}

    def gradient(self, batch: Batch, scale: float = 1.0) -> dict[str, float]:
        """Set the gradient of scale × objective on this batch; micro-batches add up to the same gradient."""
        engine = self.engine
        self._forget_gradient()
        if self.selector:
            batch = batch.having(selected=self._selected(batch, self.selector))
        self.silent = self._silent(batch)
        unread = batch["mask"] & self.silent[:, None]
        self.seen = {"logp": torch.where(unread, torch.nan, 0.0), "push": torch.zeros(unread.shape)}
        loss, heard = 0.0, (~self.silent).nonzero()[:, 0].tolist()
        with engine.precision():  # once, so that the weights are rounded once
            head = Head(engine.model, engine.chunk)
            for rows in forward.micro_batches(batch, self._budget(), engine.device, heard, self._share(batch)):
                with stage("forward"):
                    loss += self._micro_batch(batch, rows, head, scale)
                counted("forward", *rows.sizes, flops=forward.flops(engine.model, rows))
                counted("backward", *rows.sizes, flops=2 * forward.flops(engine.model, rows))
        for row, *numbers in zip(batch.fields.get("row", torch.tensor([])).tolist(), *self.seen.values(), strict=False):
            self.met.setdefault(row, (numbers[0], numbers[1]))
        return {"loss": loss, **told(batch.having(mask=batch["mask"] & ~unread), self.seen)}

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
        with stage("optimiser"):
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
        self.engine.changes += 1

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Copies of the weights and of what the optimiser remembers of them, to go back to with `set_state`."""
        return self.engine.state()

    def set_state(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Put policy and optimiser there."""
        self.engine.put(state)

    def gradients(self) -> list[Tensor]:
        """Copies of the gradient as it stands, in the order of `weights`; after a step it is the clipped one."""
        return [torch.zeros_like(x) if x.grad is None else x.grad.clone() for x in self.engine.parameters]

    def _forget_gradient(self) -> None:
        """Zero for the policy, in the memory that there is; the critic has none until it is asked."""
        before = [x.grad for x in self.engine.parameters]
        self.engine.optimizer.zero_grad()
        for x, grad in zip(self.engine.parameters, before, strict=True):
            # also where nothing will push: AdamW still moves on by its momentum
            x.grad = torch.zeros_like(x) if grad is None else grad.zero_()

    def _budget(self) -> int:
        """Tokens read at once: what the engine allows, and on a processor no more than it is fastest with."""
        allowed = self.engine.token_budget
        return min(allowed, NEAR) if self.engine.device.type == "cpu" else allowed

    def _share(self, batch: Batch) -> int:
        """The width of the model if responses may share their prompt: where the policy alone reads it as it is."""
        return 0 if self._asked(batch) & {"blind_logp", "new_value"} else sharing.width(self.engine.model)

    def _selected(self, batch: Batch, selector: Objective) -> Tensor:
        """What the selector chooses on the whole batch, [n t] bool, by the policy as it is now."""
        now = self.engine.score(batch, ["old_logp", "old_entropy"])
        return selector({**now, **batch.fields, "logp": now["old_logp"], "entropy": now["old_entropy"]})

    def _silent(self, batch: Batch) -> Tensor:
        """Rows [n] that give neither loss nor gradient, so that the model need not read them.

        These are rows without advantage or without weight, if the objective itself, asked with small, usual and large
        random answers of the model, does not change with them: a penalty, a critic's loss or an entropy term does.
        """
        signal = batch["mask"]
        for name in ("advantage", "weight"):
            if name in batch.fields:
                signal = signal & (batch[name] != 0)
        silent = ~signal.any(1)
        if not silent.any():
            return silent
        rows = batch.where(silent)
        random = torch.Generator().manual_seed(0)
        shape = rows["mask"].shape
        for size in (0.1, 1.0, 8.0):
            made = {name: size * torch.randn(shape, generator=random) for name in sorted(self._asked(batch))}
            made = {name: x.abs() * MADE[name][2] if MADE[name][2] else x for name, x in made.items()}
            loss, pushes = self._differentiated(batch, rows.fields, made, 1.0)
            if loss != 0 or any(push is not None and bool((push != 0).any()) for push in pushes.values()):
                return torch.zeros_like(silent)
        return silent

    def _asked(self, batch: Batch) -> set[str]:
        """What the forward passes must give this objective."""
        return {"logp", *(name if name in batch.fields else OLD.get(name, name) for name in self.wanted)} & {*MADE}

    def _micro_batch(self, batch: Batch, rows: Rows, head: Head, scale: float) -> float:
        """The loss of some rows; adds to the gradient.

        The backbone reads all rows at once, the head follows part by part, each back before the next: the objective
        is a plain sum over rows, so the logits of one part are all that is ever there.
        """
        engine, asked = self.engine, self._asked(batch)
        model, critic = engine.model, engine.critic if "new_value" in asked else None
        with engine.recomputing(), forward.few_embeddings(model):
            hidden = {"logp": forward.hidden(model, rows)}
            if "blind_logp" in asked:
                hidden["blind_logp"] = forward.hidden(model, forward.blind(rows, engine.stop[0]))
            if critic:
                hidden["new_value"] = critic.hidden(rows)
        back = {name: torch.zeros_like(x) for name, x in hidden.items()}
        loss = 0.0
        for part, place in rows.parts(head.rows):
            spoken: dict[str, Any] = {}
            for name, x in hidden.items():
                also = ("entropy",) if name == "logp" and "entropy" in asked else ()
                numbers = partial(Numbers, head, targets=part.targets, temperature=part.temperature)
                made = forward.Forecasts(critic, x[place]) if name == "new_value" and critic else None
                spoken[name] = made or numbers(x[place], also=also, differentiable=True)
            loss += self._descend(batch, part, spoken, {name: x[place] for name, x in back.items()}, scale)
        moved = [name for name, x in back.items() if hidden[name].requires_grad and bool((x != 0).any())]
        with stage("backward"):
            torch.autograd.backward([hidden[name] for name in moved], [back[name] for name in moved])
        return loss

    def _descend(
        self, batch: Batch, rows: Rows, spoken: Mapping[str, Any], back: Mapping[str, Tensor], scale: float
    ) -> float:
        """Differentiate the objective by the numbers that were made, then carry that back to the hidden states.

        The chain rule in two steps: the first gives `push`, and the numbers at which nothing counts end there.
        """
        asked = [(field, *MADE[field][:2]) for field in sorted(self._asked(batch))]
        made = {field: rows.spread(spoken[source][number]) for field, source, number in asked}
        loss, pushes = self._differentiated(batch, fields_of(batch, rows), made, scale)
        put(self.seen["logp"], rows, made["logp"])
        if pushes["logp"] is not None:
            put(self.seen["push"], rows, pushes["logp"])
        for source, numbers in spoken.items():
            by = {number: push[rows.mask] for field, of, number in asked
                  if of == source and (push := pushes[field]) is not None}  # fmt: skip
            if any(bool((x != 0).any()) for x in by.values()):
                with stage("backward"):
                    back[source].copy_(numbers.back(by))
        return loss

    def _differentiated(
        self, batch: Batch, fields: Mapping[str, Tensor], made: Mapping[str, Tensor], scale: float
    ) -> tuple[float, dict[str, Tensor | None]]:
        """The objective's value on some rows, and its derivative by each number that the model made."""
        leaves = {name: x.detach().requires_grad_() for name, x in made.items()}
        known: dict[str, Any] = {**fields, **leaves}
        for old, new in OLD.items():
            if old in self.wanted and old not in batch.fields:
                known[old] = leaves[new].detach()
        loss = self.objective(known) * scale
        pushes: Any = [None] * len(leaves)
        if loss.requires_grad:
            pushes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        return float(loss.detach()), dict(zip(leaves, pushes, strict=True))


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
