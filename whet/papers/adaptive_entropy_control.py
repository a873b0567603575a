"""Skywork-OR1 (He et al. 2025, MAGIC): a bonus for entropy that is on, and grows, only while entropy is too low.

L = -1/T_k Σ [ min(r A, clip(r) A) + a_k e_k H_t ]         T_k: tokens of the groups whose rewards differ
after step k:  a ← clip(a + Δ if H_k < target else a - Δ, 0, a_max),   e = 1 if H_k < target else 0
"""

from typing import Any

from whet import groups
from whet.fields import Flag, Group, PerResponse, PerToken
from whet.papers import dapo
from whet.recipe import Finding, Paper, Remembers


def entropy_bonus(entropy: PerToken, coef: float = 0.0) -> PerToken:  # authors' scripts: a_0 = 0; it is steered
    """Minus the coefficient times the entropy of each token.

    >>> entropy_bonus(tensor([[0.5, 1.0]]), coef=0.005)
    tensor([[-0.0025, -0.0050]])
    """
    return -coef * entropy


def groups_that_differ(reward: PerResponse, group: Group) -> Flag:
    """True where the rewards of the group are not all equal; the others leave the denominator too.

    >>> groups_that_differ(tensor([1., 0., 1.]), tensor([0, 0, 1]))
    tensor([ True,  True, False])
    """
    return groups.mixed(reward, group)


def steer_coefficient(
    metrics: Any, memory: float,
    target: float = 0.2,  # authors' scripts
    delta: float = 1e-4,  # authors' scripts; their yaml has 0.001
    highest: float = 0.005,  # authors' scripts; their yaml has 0.5
) -> Any:  # fmt: skip
    """One step of the coefficient up or down; `memory` is a, which keeps its value while the bonus is off.

    >>> steer_coefficient({"entropy": 0.15}, memory=0.0)
    ({'penalties.entropy_bonus.coef': 0.0001}, 0.0001)
    """
    low = metrics["entropy"] < target
    a = min(max(memory + (delta if low else -delta), 0.0), highest)
    return {"penalties.entropy_bonus.coef": a if low else 0.0}, a


recipe = dapo.token_mean.with_(
    name="adaptive_entropy_control",
    keep=(groups_that_differ,), penalties=(entropy_bonus,), control=(Remembers(steer_coefficient, start=0.0),),
    findings=(Finding("entropy", "token_mean", "up", "held at 0.2 or above", "place not read"),),
    paper=Paper(
        "Skywork Open Reasoner 1 Technical Report", arxiv="2505.22312", date="2025-05-28",
        authors="He, Jujie and Liu, Jiacai and Liu, Chris Yuhao and Yan, Rui and Wang, Chaojie and others",
    ),
    new="the coefficient of an entropy bonus is steered so that entropy stays above a target",
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=("Steered by the sampler's mean entropy, not by the mean of -log π_old. No filters, no stages.",),
)  # fmt: skip
