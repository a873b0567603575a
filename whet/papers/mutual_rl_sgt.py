"""Mutual RL (Liu et al. 2026): models that train side by side share what they found; here there is one.

    SGT   where the own group is all wrong and a peer was right:  -η 1/|y*| Σ_t log π(y*_t);  nothing elsewhere

A demonstration stands in for the peer's right response.
"""

from functools import partial
from typing import Any

from whet.batch import join
from whet.papers import amft_controller, grpo
from whet.recipe import Paper


def rescued(
    draw: Any,
    problems: Any,
    responses: int = 16,  # ours: as plain.same_number
    temperature: float = 1.0,  # the policy itself is what is sampled
) -> Any:
    """Responses, and a demonstration, in a group of its own, for each problem that none of them solved."""
    own = draw(problems, responses, temperature)
    solved = {p.id for p, right in zip(own.problems, own["correct"].tolist(), strict=True) if right}
    lost = [problem for problem in problems if problem.id not in solved]
    if not lost:
        return own
    return amft_controller.apart(join([own, draw.demonstrations(lost)]))


paper = Paper(
    "Experience Sharing in Mutual Reinforcement Learning for Heterogeneous Language Models",
    arxiv="2605.07244",
    date="2026-05-08",
    authors="Liu, Xiaoze and Ram, Dhananjay and Zhang, Yuting and Zhang, Zhaoyang and Xia, Wei and Soatto, Stefano",
)

recipe = grpo.recipe.with_(
    name="mutual_rl_sgt",
    paper=paper,
    new="where all responses are wrong, the likelihood of a right one from elsewhere",
    sample=rescued,
    credit=(partial(amft_controller.imitated, strength=1.0),),  # ours: η could not be read
    shelf="distillation",
    departs=(
        "The right response comes from the task's demonstrations, not from a peer of another family that trains "
        "at the same time: there is one model, one tokenizer and no exchange.",
        "Assumed: η = 1: a rescue weighs as much as a response with advantage 1.",
    ),
)
