"""GXPO (Swapnil et al. 2026): two quick steps show how the gradient changes; jump ahead, and correct there.

g0, step → θ1;  g1, step → θ2;  ρ = clip( g1 / g0, -2, 3 ),  S_n = 1 + ρ + … + ρ^(n-1)
θ~ = θ0 + α clip( S_K / S_2, 1, K/2 + 1 ) (θ2 - θ0),  one step from there
off for good once | ‖g_s‖ - μ | ≥ τ σ,  μ and σ running            (algorithm 1)
"""

from typing import Any

import torch
from torch import Tensor

from whet import plain
from whet.papers import grpo
from whet.recipe import Finding, Paper, Remembers

TINY = 1e-8  # δ, the authors' code


def growth(first: Tensor, second: Tensor, horizon: int) -> Tensor:
    """How many times as far as two steps the point of `horizon` steps lies, for each weight.

    >>> growth(tensor([0.5, 2.0]), tensor([0.45, 1.6]), 5)
    tensor([2.1553, 1.8676])
    """
    sign = torch.where(first >= 0, 1.0, -1.0)
    ratio = (second / (sign * first.abs().clamp(min=TINY))).clamp(-2, 3)
    powers = torch.stack([ratio**k for k in range(horizon)])
    return (powers.sum(0) / (powers[:2].sum(0) + TINY)).clamp(1, horizon / 2 + 1)


def surprise(norm: float, memory: Any, pace: float) -> tuple[float, dict[str, Any]]:
    """How many deviations the norm is from its running mean, and that mean and variance with it in.

    >>> z, after = surprise(1.1, {"on": True, "mean": 1.0, "variance": 1.0}, 0.1)
    >>> round(z, 6), round(after["mean"], 6), round(after["variance"] ** 0.5, 6)
    (0.1, 1.01, 0.94921)
    """
    gap = norm - memory["mean"]
    variance = max((1 - pace) * memory["variance"] + pace * gap**2, 0.01**2)
    after = {**memory, "mean": memory["mean"] + pace * gap, "variance": variance}
    return gap / (memory["variance"] ** 0.5 + TINY), after


def extrapolated(
    learner: Any,
    batch: Any,
    memory: Any,
    lr: float | None = None,  # ours: None is the rate that the model's card names
    clip_norm: float = 1.0,  # verl
    horizon: int = 5,  # K, the authors' code
    alpha: float = 0.5,  # the authors' code
    tau: float = 0.5,  # the authors' code
    pace: float = 0.1,  # ω, the authors' code
    moves: bool = True,  # the policy moves within the batch: the ratio needs old_logp
) -> tuple[dict[str, float], dict[str, Any]]:
    """Three gradients of the same batch while it is on, and one afterwards."""
    if not memory["on"]:
        return plain.one_pass(learner, batch, lr, clip_norm), memory
    start = learner.weights()
    told, first = _step(learner, batch, lr, clip_norm)
    if told["grad_norm"] <= TINY:
        return told, memory
    _, second = _step(learner, batch, lr, clip_norm)
    ahead = zip(start, learner.weights(), first, second, strict=True)
    learner.set_weights([w + alpha * growth(g0, g1, horizon) * (w2 - w) for w, w2, g0, g1 in ahead])
    last, _ = _step(learner, batch, lr, clip_norm)
    z, memory = surprise(last["grad_norm"], memory, pace)
    return {**told, "grad_norm": last["grad_norm"]}, {**memory, "on": abs(z) < tau}


def _step(learner: Any, batch: Any, lr: float | None, clip_norm: float) -> tuple[dict[str, float], list[Tensor]]:
    """One optimiser step, its metrics and the gradient after clipping."""
    told = {**learner.gradient(batch, scale=1), **learner.step(lr, clip_norm)}
    return told, learner.gradients()


recipe = grpo.recipe.with_(
    name="gxpo",
    findings=(Finding("pass@1", "grpo", "up", "+1.65 to +5.00 points", "abstract, as digested"),),
    paper=Paper(
        "Gradient Extrapolation-Based Policy Optimization",
        arxiv="2605.06755",
        date="2026-05-07",
        authors="Swapnil, Ismam Nur and Saha, Aranya and Khan, Tanvir Ahmed and Haque, Mohammad Ariful and others",
    ),
    new="two steps, a jump to where further ones would lead, and a correction there",
    update=Remembers(extrapolated, start={"on": True, "mean": 1.0, "variance": 1.0}),  # the authors' code
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "S_n is the sum itself: the paper's (1-ρ^n)/(1-ρ+δ) is 0 at ρ = 1, where the sum is n.",
        "old_logp stays that of the start of the update; the code computes it again for the second pass.",
        "Assumed: ‖g_s‖ is the norm before clipping. The gate expects norms near 1, where μ starts.",
        "A gradient that is not finite stops the run with a sentence instead of falling back.",
    ),
)
