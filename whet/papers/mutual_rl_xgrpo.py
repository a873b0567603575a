"""Mutual RL (Liu et al. 2026): models that train side by side share what they found; here there is one model.

XGRPO  own responses only, A_i = (R_i - mean R) / (std R + ε), mean and std over own and peers' rewards
PRP    own and peers' responses are one group: A over the pool, peers' tokens weighed by π / π_peer
SGT    where the own group is all wrong and a peer was right:  -η 1/|y*| Σ_t log π(y*_t);  nothing elsewhere

A demonstration stands in for the peer: so in XGRPO a group whose peer did better is pushed down as a whole.
"""

from functools import partial
from typing import Any

import torch

from whet.batch import join
from whet.fields import Flag, PerToken
from whet.papers import amft_controller, grpo, srft
from whet.recipe import Paper


def own_responses(demonstration: Flag) -> Flag:
    """Responses of the policy itself: the others count in the baseline and are not learned from.

    >>> own_responses(tensor([False, True]))
    tensor([ True, False])
    """
    return ~demonstration


def density_ratio(old_logp: PerToken, demonstration: Flag) -> PerToken:
    """π / 1 on a demonstration, which nobody sampled; 1 on a response.

    >>> density_ratio(tensor([[-0.5], [-0.5]]), tensor([True, False]))
    tensor([[0.6065],
            [1.0000]])
    """
    return torch.where(demonstration[:, None], torch.exp(old_logp), 1.0)


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


_paper = Paper(
    "Experience Sharing in Mutual Reinforcement Learning for Heterogeneous Language Models", arxiv="2605.07244",
    date="2026-05-08",
    authors="Liu, Xiaoze and Ram, Dhananjay and Zhang, Yuting and Zhang, Zhaoyang and Xia, Wei and Soatto, Stefano",
)  # fmt: skip
_pool = partial(srft.with_demonstrations, responses=16)  # ours: as plain.same_number

recipe = grpo.recipe.with_(
    name="mutual_rl_xgrpo", paper=_paper, sample=_pool, keep=(own_responses,),
    new="rewards from elsewhere move the group's mean and spread, and are not learned from",
    claims=("silent_on_equal_rewards", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "One demonstration for each problem, which is always right, stands in for a peer's responses, right and wrong:"
        " there is one model.",
    ),
)  # fmt: skip
prp = grpo.recipe.with_(
    name="mutual_rl_prp", paper=_paper, sample=_pool, weights=(density_ratio,), shelf="sampling",
    new="responses from elsewhere join the group, weighed by how likely they are", claims=grpo.recipe.claims,
    departs=(
        "One demonstration for each problem joins the group, not the responses of a peer, right and wrong.",
        "Assumed: the demonstration's own probability is 1, so that the ratio is π and the paper's clip cannot act.",
        "The ratio is that of the start of the update, and constant within it.",
    ),
)  # fmt: skip
sgt = grpo.recipe.with_(
    name="mutual_rl_sgt", paper=_paper, sample=rescued, shelf="distillation",
    new="where all responses are wrong, the likelihood of a right one from elsewhere",
    credit=(partial(amft_controller.imitated, strength=1.0),),  # ours: η could not be read
    departs=(
        "The right response comes from the task's demonstrations, not from a peer of another family that trains "
        "at the same time: there is one model, one tokenizer and no exchange.",
        "Assumed: η = 1: a rescue weighs as much as a response with advantage 1.",
    ),
)  # fmt: skip
