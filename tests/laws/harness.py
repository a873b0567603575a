"""A random batch with every field of the glossary, and the gradient that a recipe gives on it."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from whet import groups
from whet.batch import Batch
from whet.recipe import Recipe
from whet.step import objective, selector, weigh
from whet.tasks import Problem

LEARNER = ("logp", "entropy", "new_value", "blind_logp")
RUN = {"max_tokens": 8, "progress": 0.25, "step": 3}


@dataclass(frozen=True)
class Case:
    """A judged batch, and what the learner's forward pass would say of it."""

    batch: Batch
    forward: dict[str, Tensor]

    def rows(self, index) -> "Case":
        index = torch.as_tensor(index)
        return Case(self.batch.rows(index), {name: x[index] for name, x in self.forward.items()})

    def having(self, **fields: Tensor) -> "Case":
        return replace(self, batch=self.batch.having(**fields))


def case(seed: int = 0, sizes=(6, 3, 4, 1), width: int = 7, on_policy: bool = False) -> Case:
    """Groups of unequal size, responses of unequal length, at least one mixed group."""
    rng = torch.Generator().manual_seed(seed)
    n = sum(sizes)

    def tokens(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, width, generator=rng)

    group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    length = torch.randint(1, width + 1, (n,), generator=rng)
    mask = torch.arange(width) < length[:, None]
    correct = torch.rand(n, generator=rng) < 0.5
    correct[:2] = torch.tensor([True, False])
    old = tokens(-2.5, -0.1)
    logp = old.clone() if on_policy else old + tokens(-1.4, 1.4)
    per_token = {
        "sampled_logp": old + (0 if on_policy else tokens(-1.5, 1.5)), "sampled_entropy": tokens(0.05, 2.0),
        "old_logp": old, "old_entropy": tokens(0.05, 2.0), "ref_logp": tokens(-2.5, -0.1), "value": tokens(0, 1),
        "old_certainty": tokens(0.5, 5.0), "old_collision": tokens(0.1, 0.9),
        "group_divergence": tokens(0, 1)[:1].repeat(n, 1) * (1 + group[:, None]), "label": tokens(-1.5, 1.5).round(),
    }  # fmt: skip
    problems = [Problem(id=f"p{g}", prompt=f"{g}=", answer="x", level=g % 3) for g in group.tolist()]
    batch = Batch(
        problems=tuple(problems), prompts=((1, 2),) * n, texts=tuple(f"response {i}" for i in range(n)),
        fields={
            "group": group, "tokens": torch.randint(0, 9, (n, width), generator=rng), "mask": mask, "length": length,
            "finished": length < width, "temperature": torch.ones(n), "correct": correct,
            "score": correct + 0.3 * torch.rand(n, generator=rng),
            "ref_score": (torch.rand(n, generator=rng) < 0.5).float(),
            "greedy_score": (torch.rand(len(sizes), generator=rng) < 0.5).float()[group],
            "age": torch.zeros(n, width), "demonstration": torch.zeros(n, dtype=torch.bool),
            "prompt_state": torch.rand(n, 6, generator=rng), "response_state": torch.rand(n, 6, generator=rng),
            **{name: groups.spread(x, mask) for name, x in per_token.items()},
        },
        drawn=n,
    )  # fmt: skip
    forward = {
        "logp": logp,
        "entropy": tokens(0.05, 2.0),
        "new_value": tokens(0, 1),
        "blind_logp": logp - tokens(0, 1),
    }
    return Case(batch, {name: groups.spread(x, mask) for name, x in forward.items()})


def run_fields(seed: int = 0) -> dict[str, Any]:
    return {**RUN, "rng": torch.Generator().manual_seed(seed)}


def weighed(recipe: Recipe, given: Case) -> Case:
    batch = weigh(recipe, given.batch, run_fields(), {})
    choose = selector(recipe, run_fields())
    if choose:
        batch = batch.having(selected=choose({**batch.fields, **given.forward}))
    return replace(given, batch=batch)


def loss_and_gradient(recipe: Recipe, given: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective on a weighed case, and its gradient with respect to each output of the forward pass."""
    leaves = {name: given.forward[name].clone().requires_grad_() for name in LEARNER}
    loss = objective(recipe)({**given.batch.fields, **leaves})
    if not loss.requires_grad:
        return loss.detach(), {name: torch.zeros_like(x) for name, x in leaves.items()}
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    found = {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(leaves.items(), grads, strict=True)}
    return loss.detach(), found


def gradient(recipe: Recipe, given: Case) -> dict[str, Tensor]:
    """The gradient of a recipe on a judged case, from rewards to the loss."""
    return loss_and_gradient(recipe, weighed(recipe, given))[1]
