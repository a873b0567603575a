"""MGDA (Sener and Koltun 2018): several tasks at once, along the shortest vector between their gradients.

    min_α ‖ Σ_t α_t ∇L_t ‖²,  α ≥ 0, Σ α = 1;  then one step on Σ α_t L_t           (eq. 3)
    two tasks: α = clip( (g2 - g1)·g2 / ‖g1 - g2‖², 0, 1 );  more: Frank-Wolfe        (eq. 4, algorithm 2)

A task is a level of the problems. Where the shortest vector is 0, no step helps all tasks.
"""

from typing import Any

import torch
from torch import Tensor

from whet import plain
from whet.papers import reinforce
from whet.recipe import Paper


def between(one: float, product: float, other: float) -> float:
    """How much of g1 the shortest vector between g1 and g2 has, from g1·g1, g1·g2 and g2·g2.

    >>> between(1, 0, 4), between(2, 4, 8), round(between(1, -1, 1.25), 6)
    (0.8, 1.0, 0.529412)
    """
    if product >= one:
        return 1.0
    if product >= other:
        return 0.0
    return (other - product) / (one + other - 2 * product)


def between_in_the_code(one: float, product: float, other: float) -> float:
    """As `between`, but no task is left out: 0.999 and 0.001 at the ends.

    >>> between_in_the_code(2, 4, 8), between_in_the_code(1, 0, 4)
    (0.999, 0.8)
    """
    share = between(one, product, other)
    return {1.0: 0.999, 0.0: 0.001}.get(share, share)


def shortest(products: Tensor, rounds: int) -> Tensor:
    """The α of the shortest convex combination, from all g_s·g_t, by Frank-Wolfe from equal parts.

    >>> shortest(tensor([[1., 0.], [0., 4.]]), 250)
    tensor([0.8000, 0.2000])
    """
    alpha = torch.ones(len(products)) / len(products)
    for _ in range(rounds):
        toward = products @ alpha
        best = int(toward.argmin())
        keep = between(float(alpha @ toward), float(toward[best]), float(products[best, best]))
        moved = keep * alpha
        moved[best] += 1 - keep
        if float((moved - alpha).abs().sum()) < 1e-5:  # the authors' code
            break
        alpha = moved
    return alpha


def common_descent(
    learner: Any,
    batch: Any,
    lr: float | None = None,  # ours: None is the rate that the model's card names
    clip_norm: float = 1.0,  # TRL, verl and OpenRLHF
    rounds: int = 250,  # the authors' code
) -> dict[str, float]:
    """One update on Σ α_t L_t; each L_t has a mean of its own, and its gradient costs a pass."""
    levels = torch.tensor([problem.level for problem in batch.problems])
    tasks = [levels == level for level in levels.unique() if float(batch["weight"][levels == level].sum()) > 0]
    sizes, gradients = [float(batch["weight"][task].sum()) for task in tasks], []
    for task, size in zip(tasks, sizes, strict=True):
        learner.gradient(batch.where(task), scale=1 / size)
        gradients.append(torch.cat([g.flatten() for g in learner.gradients()]))
    if not tasks:
        return plain.one_pass(learner, batch, lr, clip_norm)
    flat = torch.stack(gradients)
    alpha = shortest(flat @ flat.T, rounds).tolist()
    factor = sum(a / size * task for a, size, task in zip(alpha, sizes, tasks, strict=True))
    return plain.one_pass(learner, batch.having(weight=batch["weight"] * factor[:, None]), lr, clip_norm)


recipe = reinforce.recipe.with_(
    name="mgda",
    paper=Paper(
        "Multi-Task Learning as Multi-Objective Optimization",
        arxiv="1810.04650",
        date="2018-10-10",
        authors="Sener, Ozan and Koltun, Vladlen",
    ),
    new="a step that makes no task worse: the shortest combination of the tasks' gradients",
    update=common_descent,
    claims=("policy_gradient",),
    departs=(
        "Gradients of all weights; MGDA-UB takes them at the shared representation, which bounds these from above.",
        "A task is a level of the problems: the paper has no reinforcement learning.",
        "The authors' code never gives a task less than 0.001 of two; `between_in_the_code` is that rule.",
    ),
)
