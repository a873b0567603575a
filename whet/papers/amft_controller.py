"""AMFT (He et al. 2025): learn how much to imitate and how much to explore, instead of fixing it.

L = (1 - μ) L_RL + μ L_SFT
μ ← clip( μ + η_m g + η_H (H* - H), 0.05, 0.95 )
g = -lr <∇L_val, ∇L_SFT - ∇L_RL>  every 20 steps, else 0:  what a little more imitation does to validation
"""

from typing import Any

import torch

from whet import groups, plain
from whet.fields import Flag, PerToken
from whet.papers import grpo, srft
from whet.recipe import Finding, Paper, Remembers


def apart(batch: Any) -> Any:
    """The batch with each demonstration in a group of its own, so that it enters no baseline."""
    return batch.having(group=torch.unique(2 * batch["group"] + batch["demonstration"], return_inverse=True)[1])


def beside_demonstrations(
    draw: Any,
    problems: Any,
    responses: int = 16,  # ours: as plain.same_number
    temperature: float = 1.0,  # the policy itself is what is sampled
) -> Any:
    """Responses, and one demonstration for each problem."""
    return apart(srft.with_demonstrations(draw, problems, responses, temperature))


def imitated(advantage: PerToken, demonstration: Flag, strength: float = 1.0) -> PerToken:  # 1 is the likelihood itself
    """A constant advantage on a demonstration: on policy, the gradient is that of its log-likelihood.

    >>> imitated(tensor([[-0.5], [0.]]), tensor([False, True]))
    tensor([[-0.5000],
            [ 1.0000]])
    """
    return torch.where(demonstration[:, None], strength, advantage)


def balance(
    mu: float,
    entropy: float,
    target: float,
    ahead: float,
    meta: float = 1e-4,  # η_m, the authors' configuration
    steady: float = 5e-4,  # η_H, the authors' configuration
) -> float:
    """The next μ: up where the entropy is below its target, and where imitation would lower the validation loss.

    >>> round(balance(0.8, 0.6, 1.0, -3e-6), 6)
    0.8002
    """
    return min(max(mu + meta * ahead + steady * (target - entropy), 0.05), 0.95)


def look_ahead(learner: Any, batch: Any, lr: float) -> float:
    """-lr <∇L_val, ∇L_SFT - ∇L_RL>; half of the problems are the validation, the other half L_RL's."""

    def gradient(part: Any) -> list[Any]:
        learner.gradient(part, scale=1 / float(part["weight"].sum()))
        return learner.gradients()

    halves = batch.where(~batch["demonstration"]).split(2)
    validation, explore = gradient(halves[0]), gradient(halves[-1])
    imitate = gradient(batch.where(batch["demonstration"]))
    return -lr * sum(float((v * (s - r)).sum()) for v, s, r in zip(validation, imitate, explore, strict=True))


def balanced(
    learner: Any,
    batch: Any,
    step: int,
    memory: Any,
    lr: float | None = None,  # ours: None is the rate that the model's card names
    clip_norm: float = 1.0,  # TRL, verl and OpenRLHF
    every: int = 20,  # the authors' code: steps from one look ahead to the next
    reach: float = 1e-5,  # lr in g, the authors' code
) -> tuple[dict[str, float], dict[str, float]]:
    """One update in which demonstrations weigh μ and responses 1 - μ, each with a mean of its own; then the next μ."""
    shown, mu, own_tokens = batch["demonstration"], memory["mu"], batch["mask"] & ~batch["demonstration"][:, None]
    entropy = float(groups.batch_mean(batch["sampled_entropy"], own_tokens))
    target = memory["target"] or entropy
    ahead = look_ahead(learner, batch, reach) if (step + 1) % every == 0 and shown.any() else 0.0
    weight = batch["weight"].sum(1)
    part = torch.where(shown, mu / weight[shown].sum().clamp(min=1e-9), (1 - mu) / weight[~shown].sum())
    told = plain.one_pass(learner, batch.having(weight=batch["weight"] * part[:, None]), lr, clip_norm)
    return told, {"mu": balance(mu, entropy, target, ahead), "target": target}


recipe = grpo.recipe.with_(
    name="amft_controller",
    findings=(Finding("pass@1", "srft", "up", "63.3 against 59.5, in distribution", "place not read"),),
    paper=Paper(
        "AMFT: Aligning LLM Reasoners by Meta-Learning the Optimal Imitation-Exploration Balance",
        arxiv="2508.06944",
        date="2025-08-09",
        authors="He, Lixuan and Feng, Jie and Li, Yong",
    ),
    new="the weight of imitation against exploration follows the entropy and a look ahead",
    sample=beside_demonstrations,
    credit=(imitated,),
    penalties=(),
    update=Remembers(balanced, start={"mu": 0.8, "target": 0.0}),  # μ = 0.8: the authors' configuration
    shelf="distillation",
    departs=(
        "An idea, not evidence: arXiv's note of October 2025 says that the paper's withdrawal was requested.",
        "L_RL is GRPO's; the paper's is PPO's, with a critic and an entropy bonus of 0.01.",
        "H* is the entropy of the first step: the shipped base has had its warm-up by imitation.",
        "Assumed: the validation loss is the RL loss on half of the batch's problems.",
        "μ starts at 0.8 as in the configuration; the README and the class say 0.5.",
    ),
)
