"""APO (Hong et al. 2025): right and wrong answers apart: a looser KL on hard questions, a price on long wrong answers.

    DADS   β k3 times f(d) where A > 0,   f = 1 - exp(-e (1 - d)) for 0 < d < 1, else 1;   d = share of wrong answers
    STCR   A' = w A for wrong answers,   w = 2 - 1.00001^-D,   D = length above the mean of the right ones, if positive

The weight of the KL is the group's: `select` makes it on whole groups, and the loss multiplies k3 by it.
"""

from functools import partial
from math import e, log

import torch

from whet import groups
from whet.fields import Count, Flag, Group, PerResponse, PerToken, Selected
from whet.papers import grpo, kl_estimators
from whet.recipe import Finding, Paper


def difficulty_gate(difficulty: PerResponse, steepness: float = e) -> PerResponse:  # View-R1 ppo_actor.py: math.exp(1)
    """How much of the KL a right answer pays, by the share of wrong answers: less on hard questions.

    >>> difficulty_gate(tensor([0., .25, .5, .75, .875, 1.]))
    tensor([1.0000, 0.8698, 0.7431, 0.4932, 0.2881, 1.0000])
    """
    between = (difficulty > 0) & (difficulty < 1)
    return torch.where(between, 1 - torch.exp(-steepness * (1 - difficulty)), 1.0)


def earlier_gate(difficulty: PerResponse, steepness: float = e) -> PerResponse:  # View-R1 ppo_actor.py: math.exp(1)
    """The form that stands commented out in the authors' code.

    >>> earlier_gate(tensor([.25, .5, .75]))
    tensor([0.5068, 0.2569, 0.1302])
    """
    return torch.exp(-steepness * difficulty)


def gate_of_group(
    advantage: PerToken,
    correct: Flag,
    group: Group,
    steepness: float = e,  # View-R1 ppo_actor.py: math.exp(1)
) -> PerToken:
    """f(d) where the advantage is positive, 1 elsewhere.

    >>> gate_of_group(tensor([[1.], [-1.]]), tensor([True, False]), tensor([0, 0]))
    tensor([[0.7431],
            [1.0000]])
    """
    gate = difficulty_gate(1 - groups.mean(correct.float(), group), steepness)[:, None]
    return torch.where(advantage > 0, gate, 1.0)


def gated_kl(
    logp: PerToken,
    ref_logp: PerToken,
    selected: Selected,
    beta: float = 1e-3,  # View-R1 train_grpo.sh: init_kl_coef
) -> PerToken:
    """β k3 of each token times its gate.

    >>> gated_kl(tensor([[-1.0]]), tensor([[-1.5]]), tensor([[0.7431]]), beta=1.0)
    tensor([[0.0792]])
    """
    return selected * kl_estimators.k3(logp, ref_logp, beta)


def longer_than_right(
    advantage: PerToken,
    correct: Flag,
    length: Count,
    group: Group,
    base: float = 1.00001,  # View-R1 experience_maker.py
) -> PerToken:
    """The advantage of a wrong answer times up to 2, by how much longer it is than the mean right answer.

    >>> right, length = tensor([True, True, False, False]), tensor([400, 600, 2500, 300])
    >>> longer_than_right(tensor([[5.], [5.], [-3.], [-7.]]) / 6, right, length, tensor([0, 0, 0, 0])).flatten()
    tensor([ 0.8333,  0.8333, -0.5099, -1.1667])
    """
    right = groups.total(correct.float(), group)
    typical = groups.total(correct * length.float(), group) / right.clamp(min=1)
    excess = torch.where(~correct & (right > 0), length - typical, 0.0).clamp(min=0)
    return advantage * (2 - torch.exp(-excess * log(base)))[:, None]


paper = Paper(
    "APO: Enhancing Reasoning Ability of MLLMs via Asymmetric Policy Optimization",
    arxiv="2506.21655",
    date="2025-06-26",
    authors="Hong, Minjie and Guo, Zirun and Xia, Yan and Wang, Zehan and Zhang, Ziang and Jin, Tao and Zhao, Zhou",
)
_z_score = partial(grpo.z_score, epsilon=1e-9)  # View-R1 experience_maker.py

recipe = grpo.recipe.with_(
    name="apo_dads", paper=paper, new="right answers to hard questions may leave the reference further",
    advantage=_z_score, select=gate_of_group, penalties=(gated_kl,), claims=grpo.recipe.claims[:3],
    findings=(Finding("pass@1", "start", "up", "about +7 % on average, together with apo_stcr", "place not read"),),
    departs=(
        "One update for each batch; the authors' code makes two.",
        "A right answer is one that the judge calls right; the code truncates a reward of accuracy plus format.",
    ),
)  # fmt: skip
apo_stcr = grpo.recipe.with_(
    name="apo_stcr", paper=paper, new="a wrong answer longer than the right ones is pushed down harder",
    advantage=_z_score, credit=(longer_than_right,), claims=("silent_on_equal_rewards", "shift_changes_nothing"),
    findings=(Finding("pass@1", "start", "up", "about +7 % on average, together with apo_dads", "place not read"),),
    departs=("The KL is GRPO's; the paper has STCR together with DADS, which is apo_dads+apo_stcr.",),
)  # fmt: skip
