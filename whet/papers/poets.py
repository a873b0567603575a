"""POETS (Menet et al. 2026): an ensemble of policies, each fitted to a bootstrap of the rewards; one by lot acts.

d_i = log π_b(y_i) - log π_ref(y_i), whole response; a KL-regularised optimum has β d_i = R_i + c(x)
L_b = Σ_i w_bi ( β d_i - R_i - c_b )² / Σ_i w_bi,   c_b = weighted mean over the group of β d - R,   w_bi ~ Poisson(1)
With one member and w = 1 the gradient at π = π_ref is that of REINFORCE with advantage 2 β (R_i - mean R).
"""

from typing import Any

import torch

from whet import groups
from whet.fields import Group, Mask, PerResponse, PerToken
from whet.papers import ipo, loss_agg, reinforce
from whet.recipe import Paper, Remembers


def misfit(
    logp: PerToken, ref_logp: PerToken, reward: PerResponse, group: Group, weight: PerToken, mask: Mask, beta: float,
) -> PerResponse:  # fmt: skip
    """β d_i - R_i - c, c the mean over the group in which a response counts as its tokens weigh.

    >>> d, one, w = tensor([[.2], [-.1], [.05], [0.]]), torch.ones(4, 1), tensor([[2.], [0.], [1.], [1.]])
    >>> misfit(d, 0 * d, tensor([1., 0., 0., 1.]), torch.zeros(4).long(), w, one > 0, beta=0.5)
    tensor([-0.2062,  0.6438,  0.7188, -0.3062])
    """
    error, counts = beta * groups.token_sum(logp - ref_logp, mask) - reward, groups.token_mean(weight, mask)
    return error - groups.total(counts * error, group) / groups.total(counts, group).clamp(min=1e-12)


def pull_of_misfit(
    logp: PerToken, ref_logp: PerToken, reward: PerResponse, group: Group, weight: PerToken, mask: Mask,
    beta: float = 0.1,  # ours: the paper's value is not known
) -> PerToken:  # fmt: skip
    """2 β times the misfit on every token: the derivative of its square by log π, c included.

    >>> d, one = tensor([[.2], [-.1], [.05], [0.]]), torch.ones(4, 1)
    >>> pull_of_misfit(d, 0 * d, tensor([1., 0., 0., 1.]), torch.zeros(4).long(), one, one > 0, beta=0.5).flatten()
    tensor([-0.4187,  0.4312,  0.5062, -0.5188])
    """
    return groups.spread(2 * beta * misfit(logp, ref_logp, reward, group, weight, mask, beta), mask)


def ensemble(
    learner: Any,
    batch: Any,
    rng: Any,
    memory: Any,
    members: int = 4,  # ours: the paper has 16
    lr: float | None = None,  # ours: None is the rate that the model's card names
    clip_norm: float = 1.0,  # TRL, verl and OpenRLHF
) -> tuple[dict[str, float], dict[str, Any]]:
    """One step of each member on its own bootstrap of the batch, the acting one first; then lots for the next to act.

    `memory` holds who acts, and each member's weights and optimiser; at first all are the policy itself.
    """
    acting, states = memory["acting"], list(memory["members"]) or [learner.state()] * members
    told: dict[str, float] = {}
    for member in sorted(range(members), key=lambda member: member != acting):
        learner.set_state(states[member])
        times = torch.poisson(torch.ones(len(batch)), generator=rng)
        share = times * len(times) / times.sum().clamp(min=1)
        found = learner.gradient(batch.having(weight=batch["weight"] * share[:, None]), scale=1)
        found |= learner.step(lr, clip_norm)
        told = told or found
        states[member] = learner.state()
    acting = int(torch.randint(members, (), generator=rng))
    learner.set_state(states[acting])
    return told, {"acting": acting, "members": states}


recipe = reinforce.recipe.with_(
    name="poets",
    paper=Paper(
        "POETS: Uncertainty-Aware LLM Optimization via Compute-Efficient Policy Ensembles", arxiv="2605.07775",
        date="2026-05-08", authors="Menet, Nicolas and Krause, Andreas and Rahimi, Abbas",
    ),
    new="an ensemble on bootstrapped rewards, one member of which draws each batch",
    normalise=loss_agg.over_response_count, select=pull_of_misfit, loss=ipo.towards_the_margin,
    update=Remembers(ensemble, start={"acting": 0, "members": []}),
    departs=(
        "Four members with all trained weights of their own, kept in memory; the paper's 16 are LoRA branches of one "
        "model, as here with --lora. What is evaluated and exported is the member that would act next.",
        "Every member learns from each batch, without the paper's replay of 4 batches.",
        "Assumed: the loss, derived from the KL-regularised optimum, and β = 0.1; the paper's text was not seen.",
        "The loss has the objective's gradient, not its value.",
    ),
)  # fmt: skip
