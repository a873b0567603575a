"""DisCO (Li et al. 2025): push right answers above wrong ones, every question with weight 1, hard wrong ones first.

s_i = 1/|o_i| Σ_t log π(o_it)                                                             (score log-L)
J   = 1/Q Σ_q [ mean over right of s - τ log mean over wrong of exp(s / τ) ]
L   = -J + β max(KL - δ, 0)²,   KL = mean over tokens of log π_old - log π
∇J  = Σ_i A_i ∇s_i,   A = 1/n_right for right,  -softmax(s / τ) among the wrong           (τ → ∞ is DisCO-b)
"""

from functools import partial

import torch

from whet import groups, plain
from whet.fields import Flag, Group, Mask, PerResponse, PerToken, Selected
from whet.papers import grpo, reinforce
from whet.recipe import Finding, Paper


def right_over_wrong(correct: Flag, group: Group, share: PerResponse) -> PerResponse:
    """1 / right answers for a right one, minus its share for a wrong one; 0 in a group without both.

    >>> right_over_wrong(tensor([True, True, False, False]), tensor([0, 0, 0, 0]), tensor([0., 0., .4, .6]))
    tensor([ 0.5000,  0.5000, -0.4000, -0.6000])
    """
    right = correct.float()
    return groups.mixed(right, group) * (right / groups.total(right, group).clamp(min=1) - share)


def discriminative(
    correct: Flag,
    old_logp: PerToken,
    group: Group,
    mask: Mask,
    tau: float = 10.0,  # the authors' scripts: 10 for log-L, 1 for L-ratio
) -> PerResponse:
    """The derivative of the objective by each score: wrong answers weighed by a softmax of their scores.

    >>> logp, right = tensor([[-.5], [-.7], [-1.], [-.4]]), tensor([True, True, False, False])
    >>> discriminative(right, logp, tensor([0, 0, 0, 0]), torch.ones(4, 1).bool(), tau=1.0)
    tensor([ 0.5000,  0.5000, -0.3543, -0.6457])
    """
    score = groups.token_mean(old_logp, mask)
    best = groups.largest(torch.where(correct, -torch.inf, score), group)
    push = torch.where(correct, 0.0, torch.exp((score - best) / tau))
    return right_over_wrong(correct, group, push / groups.total(push, group).clamp(min=1))


def pairwise(correct: Flag, group: Group) -> PerResponse:
    """DisCO-b: all wrong answers of a question count the same.

    >>> pairwise(tensor([True, False, False]), tensor([0, 0, 0]))
    tensor([ 1.0000, -0.5000, -0.5000])
    """
    wrong = (~correct).float()
    return right_over_wrong(correct, group, wrong / groups.total(wrong, group).clamp(min=1))


def over_problems(mask: Mask, group: Group) -> PerToken:
    """1 / the number of problems, then 1 / the length of the response; problems without signal are counted.

    >>> over_problems(tensor([[True, True], [True, False]]), tensor([0, 1]))
    tensor([[0.2500, 0.2500],
            [0.5000, 0.0000]])
    """
    problems = (1 / groups.size(group)).sum()
    return groups.spread(1 / groups.length(mask).clamp(min=1), mask) / problems


def pressure(
    logp: PerToken,
    old_logp: PerToken,
    group: Group,
    mask: Mask,
    delta: float = 1e-4,  # the authors' scripts
    beta: float = 1e3,  # the authors' scripts
) -> PerToken:
    """2 β max(KL - δ, 0), the hinge's derivative, times length and problems over tokens: all tokens count the same.

    >>> pressure(tensor([[-1.0006]]), tensor([[-1.]]), tensor([0]), torch.tensor([[True]])).round(decimals=2)
    tensor([[1.]])
    """
    hinge = (groups.batch_mean(old_logp - logp, mask) - delta).clamp(min=0)
    share = groups.length(mask) * (1 / groups.size(group)).sum() / mask.sum().clamp(min=1)
    return groups.spread(2 * beta * hinge * share, mask)


def constraint(logp: PerToken, old_logp: PerToken, selected: Selected) -> PerToken:
    """The KL of each token times the pressure on it.

    >>> constraint(tensor([[-1.5]]), tensor([[-1.]]), tensor([[2.]]))
    tensor([[1.]])
    """
    return selected * (old_logp - logp)


_shared = {
    "paper": Paper(
        "DisCO: Reinforcing Large Reasoning Models with Discriminative Constrained Optimization", arxiv="2505.12366",
        date="2025-05-18", authors="Li, Gang and Lin, Ming and Galanti, Tomer and Tu, Zhengzhong and Yang, Tianbao",
    ),
    "normalise": over_problems, "loss": reinforce.policy_gradient, "select": pressure, "penalties": (constraint,),
    "update": partial(
        plain.one_pass,
        minibatches=4,  # the authors' scripts: 128 prompts in mini-batches of 32
    ),
    "claims": ("policy_gradient", *grpo.recipe.claims),
    "departs": (
        "The softmax over wrong answers is of the policy at the start of the update; the score is log-L.",
        "The hinge is squared, as in the paper; the code multiplies it by the KL, which is half of the gradient.",
        "The loss has the objective's gradient, not its value.",
    ),
}  # fmt: skip

recipe = grpo.recipe.with_(
    name="disco", new="right answers above wrong ones, likely wrong ones first", advantage=discriminative, **_shared,
    findings=(Finding("pass@1", "grpo", "up", "+7 % on average over six benchmarks, 1.5B", "abstract"),),
)  # fmt: skip
disco_b = grpo.recipe.with_(
    name="disco_b", new="right answers above wrong ones, every question with weight 1", advantage=pairwise, **_shared
)  # fmt: skip
