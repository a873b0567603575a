"""GRADE (Nel 2025): differentiate the reward through the sampling itself, instead of a policy gradient.

g = -log(-log U),   y_t = softmax((l_t + g) / τ)          the next input is y_t @ E; τ from 2 to 0.5
L = - R(y_1 … y_T) + β 1/T Σ_t KL(π_t ‖ π_ref,t)          over the whole vocabulary; R is differentiable
GRADE-STE feeds the hard token forward, and differentiates the soft one
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from whet.fields import PerResponse, PerToken
from whet.papers import reinforce
from whet.recipe import Finding, Paper

TINY = 1e-10  # the author's code, inside both logarithms


def gumbel_softmax(logits: Tensor, uniform: Tensor, tau: float, top: int = 256) -> Tensor:
    """A soft token: the likeliest `top` logits with Gumbel noise; towards τ = 0 it is a sample.

    >>> gumbel_softmax(tensor([1., 0., -1.]), tensor([.5, .9, .1]), tau=1.0)
    tensor([0.2889, 0.6993, 0.0118])
    >>> gumbel_softmax(tensor([1., 0., -1.]), tensor([.5, .9, .1]), tau=0.5, top=2)
    tensor([0.1458, 0.8542, 0.0000])
    """
    least = logits.topk(min(top, logits.shape[-1]), -1).values[..., -1:]
    noise = -torch.log(-torch.log(uniform + TINY) + TINY)
    return torch.where(logits >= least, (logits + noise) / tau, -torch.inf).softmax(-1)


def straight_through(logits: Tensor, uniform: Tensor, tau: float, top: int = 256) -> Tensor:
    """The hard token, with the soft one's gradient: y (r - E r) / τ for a reward r.

    >>> logits = tensor([1., 0., -1.], requires_grad=True)
    >>> reward = (straight_through(logits, tensor([.5, .9, .1]), tau=0.5) * tensor([0., 1., 2.])).sum()
    >>> reward.item(), torch.autograd.grad(reward, logits)[0].round(decimals=4)
    (1.0, tensor([-0.2491,  0.2486,  0.0006]))
    """
    soft = gumbel_softmax(logits, uniform, tau, top)
    hard = torch.nn.functional.one_hot(soft.argmax(-1), soft.shape[-1])
    return hard - soft.detach() + soft


def full_kl(logits: Tensor, ref_logits: Tensor, beta: float) -> Tensor:
    """β KL of the two next-token distributions, over the whole vocabulary.

    >>> full_kl(tensor([.5, .5]).log(), tensor([.25, .75]).log(), beta=1.0)
    tensor(0.1438)
    """
    logp, ref = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    return beta * (logp.exp() * (logp - ref)).sum(-1)


def forecast_error(new_value: PerToken, reward: PerResponse) -> PerToken:
    """(V - R)² on every token: what the critic learns, whose forecast is then the differentiable reward.

    >>> forecast_error(tensor([[.5, .8]]), tensor([1.]))
    tensor([[0.2500, 0.0400]])
    """
    return (new_value - reward[:, None]) ** 2


def pathwise(
    learner: Any,
    batch: Any,
    step: int,
    rng: Any,
    lr: float | None = None,  # ours: None is the rate that the model's card names
    clip_norm: float = 1.0,  # the author's code
    beta: float = 0.1,  # the author's code
) -> dict[str, float]:
    """One step: the critic's gradient on the judged batch, the policy's through soft responses to its prompts."""
    return _through(gumbel_softmax, learner, batch, step, rng, beta) | learner.step(lr, clip_norm)


def pathwise_straight_through(
    learner: Any,
    batch: Any,
    step: int,
    rng: Any,
    lr: float | None = None,  # ours: None is the rate that the model's card names
    clip_norm: float = 1.0,  # the author's code
    beta: float = 0.1,  # the author's code
) -> dict[str, float]:
    """The same with tokens that are hard forwards."""
    return _through(straight_through, learner, batch, step, rng, beta) | learner.step(lr, clip_norm)


def _through(soften: Any, learner: Any, batch: Any, step: int, rng: Any, beta: float) -> dict[str, float]:
    told: dict[str, float] = learner.gradient(batch)
    seed = int(torch.randint(2**62, (), generator=rng))
    tau = max(0.5, 2 - 1.5 * step / 2000)  # the author's code
    learner.through_sampling(batch, partial(soften, tau=tau), partial(full_kl, beta=beta), seed)
    return told


_shared = {
    "paper": Paper(
        "GRADE: Replacing Policy Gradients with Backpropagation for LLM Alignment", arxiv="2601.11574",
        date="2025-12-30", authors="Nel, Lukas Abrie",
    ),
    "loss": forecast_error, "departs": (
        "A task's judge has no derivative: the reward is the forecast of a critic that learns from judged responses "
        "meanwhile. The paper's is a frozen classifier of sentiment, on the mean of the soft embeddings.",
        "It does not learn `digits` in 300 updates: a critic learns little from a policy that is right 1 time in 20.",
    ),
}  # fmt: skip
recipe = reinforce.recipe.with_(
    name="grade", new="the reward's own gradient, through softly sampled tokens", update=pathwise, **_shared
)  # fmt: skip
grade_ste = reinforce.recipe.with_(
    name="grade_ste", new="the reward's gradient through tokens that are hard forwards and soft backwards",
    update=pathwise_straight_through, **_shared,
    findings=(Finding("reward", "reinforce", "up", "0.763 ± 0.344 against 0.617", "place not read"),),
)  # fmt: skip
