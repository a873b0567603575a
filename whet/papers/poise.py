"""POISE (Choi et al. 2026): the policy's own hidden states forecast the reward, and are the baseline.

z_i = [PCA_32(prompt state), PCA_64(response state), mean entropy];  g: ridge regression on z, clipped to [0, 1]
b_i = mean of g(z_j) over the other responses j;  A_i = R_i - b_i          unbiased: y_j says nothing of y_i
g learns from z_i to forecast the mean reward of the others, after the advantages are made
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from whet import groups, plain
from whet.fields import Group, Mask, PerResponse, PerToken
from whet.papers import rloo
from whet.recipe import Finding, Paper, Remembers


def of_the_others(x: PerResponse, group: Group) -> PerResponse:
    """The mean over the other responses to the same problem; 0 where there is none.

    >>> of_the_others(tensor([.1, .2, .9, .8]), tensor([0, 1, 0, 1]))
    tensor([0.9000, 0.8000, 0.1000, 0.2000])
    """
    return (groups.total(x, group) - x) / (groups.size(group) - 1).clamp(min=1)


def projected(known: Tensor, fresh: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Both in the coordinates of the first principal components of what is known."""
    centre = known.mean(0)
    axes = torch.linalg.svd(known - centre, full_matrices=False).Vh[:parts].T
    return (known - centre) @ axes, (fresh - centre) @ axes


def ridge(known: Tensor, target: Tensor, fresh: Tensor, alpha: float) -> PerResponse:
    """Forecast by standardised ridge regression, within [0, 1].

    >>> ridge(tensor([[0.], [1.], [2.]]), tensor([0., .5, 1.]), tensor([[1.5], [9.]]), alpha=0.0)
    tensor([0.7500, 1.0000])
    """
    centre, spread = known.mean(0), known.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    x, new = (known - centre) / spread, (fresh - centre) / spread
    w = torch.linalg.solve(x.T @ x + alpha * torch.eye(x.shape[1]), x.T @ (target - target.mean()))
    return (target.mean() + new @ w).clamp(0, 1)


def own_states(
    reward: PerResponse,
    group: Group,
    prompt_state: Tensor,
    response_state: Tensor,
    sampled_entropy: PerToken,
    mask: Mask,
    memory: Any,
    bootstrap: int = 16,  # the authors' configuration: steps with the other rewards as baseline
    prompt_parts: int = 32,  # the authors' configuration
    response_parts: int = 64,  # the authors' configuration
    alpha: float = 100.0,  # the authors' configuration
    room: int = 4096,  # the authors' configuration, for mathematics
) -> tuple[PerResponse, dict[str, Any]]:
    """R_i minus what the others' states forecast; until the probe has seen enough, minus what the others earned.

    >>> state, entropy = torch.zeros(2, 3), torch.zeros(2, 1)
    >>> own_states(tensor([1., .25]), tensor([0, 0]), state, state, entropy, entropy == 0, {"steps": 0})[0]
    tensor([ 0.7500, -0.7500])
    """
    entropy = groups.token_mean(sampled_entropy, mask)[:, None]
    forecast = reward
    if memory["steps"] >= bootstrap and len(memory["target"]) > 1:
        prompts = projected(memory["prompt"], prompt_state, prompt_parts)
        responses = projected(memory["response"], response_state, response_parts)
        known = torch.cat([prompts[0], responses[0], memory["entropy"]], 1)
        fresh = torch.cat([prompts[1], responses[1], entropy], 1)
        forecast = ridge(known, memory["target"], fresh, alpha)
    paired = groups.size(group) > 1
    seen = {"prompt": prompt_state, "response": response_state, "entropy": entropy}
    seen["target"] = of_the_others(reward, group)
    queue = {name: torch.cat([memory[name], x[paired]])[-room:] if memory["steps"] else x[paired][-room:]
             for name, x in seen.items()}  # fmt: skip
    return reward - of_the_others(forecast, group), {"steps": memory["steps"] + 1, **queue}


recipe = rloo.recipe.with_(
    name="poise",
    findings=(Finding("pass@1", "dapo", "same", "matches DAPO with less compute", "abstract, as digested"),),
    paper=Paper(
        "Your Language Model is Its Own Critic: "
        "Reinforcement Learning with Value Estimation from Actor's Internal States",
        arxiv="2605.07579",
        date="2026-05-08",
        authors="Choi, Yunho and Lim, Jongwon and Ahn, Woojin and Oh, Minjae and Shim, Jeonghoon and Jo, Yohan",
    ),
    new="a baseline forecast from the hidden states of another response, so that two responses are enough",
    choose=partial(plain.in_order, prompts=128),  # ours: as many responses as elsewhere; the authors have 256
    sample=partial(plain.same_number, responses=2),  # the authors' configuration
    advantage=Remembers(own_states, start={"steps": 0}),
    claims=("unbiased", "policy_gradient"),
    departs=(
        "States of the last layer, not of layer 19 of 36; one mean entropy, not those of reasoning and answer too.",
        "One queue for all problems; the authors have one for mathematics, code and the rest.",
        "A lone response has no baseline, and trains no probe.",
    ),
)
