"""One step of training, from problems to a changed policy: the whole data flow, once, in order.

    problems ─► responses ─► rewards ─► advantages ─► token weights ─► loss ─► update ─► metrics
     choose       sample      reward      credit       keep × weigh     fit     step       tell

Everything that divides is a weight, computed once on the whole batch; the loss is then a plain sum, so that
micro-batches and devices only add. A part receives exactly the fields that its signature names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from whet import groups, metrics
from whet.batch import Batch
from whet.draw import Draw, generator, with_what_is_asked
from whet.fields import per_token
from whet.recipe import Recipe, call, data_of, needs, scored
from whet.settings import with_settings


@dataclass(frozen=True)
class State:
    """What a run remembers between steps, weights and optimiser aside."""

    recipe: Recipe
    step: int = 0
    memories: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)


def step(engine: Any, task: Any, pool: Any, state: State, seed: int, progress: float = 0.0) -> tuple[State, Batch]:
    """One update. Returns the next state, and the batch with every field that was made on the way."""
    recipe, memories = state.recipe, dict(state.memories)
    rng = generator(seed, state.step)
    run = {"pool": pool, "history": state.history, "max_tokens": task.max_tokens}
    run |= {"step": state.step, "progress": progress, "rng": rng}

    problems = call(recipe.choose, run, memories)
    draw = Draw(engine, task, rng)
    batch = call(recipe.sample, {**run, "problems": problems, "draw": draw}, memories)
    if len(batch):
        batch = with_what_is_asked(batch, draw, needs(recipe))
        batch = batch.having(**engine.score(batch, scored(recipe)))
        batch = weigh(recipe, batch, run, memories)
        learner = engine.learner(objective(recipe), wanted(recipe), selector(recipe, run))
        told = call(recipe.update, {**run, "learner": learner, "batch": batch}, memories)
        batch = batch.having(**learner.first_seen(batch)).telling(**metrics.of_batch(batch), **told)
        for part in recipe.control:
            recipe = with_settings(recipe, call(part, {**run, "metrics": batch.told}, memories))
    batch = batch.telling(drawn_tokens=float(sum(draw.tokens)))
    history = metrics.remembered(state.history, batch)
    return State(recipe, state.step + 1, memories, history), batch


def weigh(recipe: Recipe, batch: Batch, run: Mapping[str, Any], memories: dict[str, Any]) -> Batch:
    """Rewards, advantages, the tokens that are kept and what each of them weighs: once, on the whole batch."""

    def ask(part: Any) -> Any:
        return call(part, {**run, **batch.fields, "texts": batch.texts, "problems": batch.problems}, memories)

    mask = batch["mask"]
    outcomes = [ask(part) for part in recipe.reward]
    columns = [groups.token_sum(x, mask) if x.dim() == 2 else x for x in outcomes]
    timed = [groups.spread(x, mask) if x.dim() == 2 else groups.at_last_token(x, mask) for x in outcomes]
    rewards = torch.stack(columns, 1)
    batch = batch.having(rewards=rewards, reward=rewards.sum(1), token_reward=torch.stack(timed).sum(0))

    batch = batch.having(advantage=groups.spread(ask(recipe.advantage), mask))
    for part in recipe.credit:
        batch = batch.having(advantage=groups.spread(ask(part), mask))
    for part in recipe.keep:
        kept = ask(part)
        batch = batch.having(mask=batch["mask"] & (kept[:, None] if kept.dim() == 1 else kept))
    weight = ask(recipe.normalise)
    for part in recipe.weights:
        weight = weight * groups.spread(ask(part), batch["mask"])
    return batch.having(weight=weight, row=torch.arange(len(batch)))


def objective(recipe: Recipe) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """The function to be minimised on any rows of the batch: Σ weight · (loss + penalties), over kept tokens."""

    def loss(fields: Mapping[str, Tensor]) -> Tensor:
        mask = fields["mask"]
        kept = {name: groups.spread(x, mask) if _counts(name, x, mask) else x for name, x in fields.items()}
        total = call(recipe.loss, kept)
        for part in recipe.penalties:
            total = total + call(part, kept)
        return groups.spread(kept["weight"] * total, mask).sum()

    return loss


def selector(recipe: Recipe, run: Mapping[str, Any]) -> Callable[[Mapping[str, Tensor]], Tensor] | None:
    """What chooses or weighs tokens on a whole mini-batch, by the policy as it is now; None where nobody asks."""
    if "selected" not in wanted(recipe):
        return None
    return lambda fields: groups.spread(call(recipe.select, {**run, **fields}), fields["mask"])


def wanted(recipe: Recipe) -> frozenset[str]:
    """What the learner's forward pass must give this recipe besides `logp`."""
    return frozenset(name for _, part in recipe.parts("loss", "penalties") for name in data_of(part))


def _counts(name: str, x: Any, mask: Tensor) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and per_token(name, x, mask)
