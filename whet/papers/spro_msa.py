"""SPRO (Fei et al. 2025): the policy's own drift from its start is a process reward, compared position by position.

CPR_it = β Σ_{j≤t} (log π - log π_ref)
A_it   = (R_i - mean R) / std R + CPR_it - mean of CPR_kt over the responses of the group still running at t;  no KL
"""

from whet import groups
from whet.fields import Group, Mask, PerToken
from whet.papers import grpo
from whet.recipe import Finding, Paper


def at_each_position(x: PerToken, mask: Mask, group: Group) -> PerToken:
    """Sum over the responses of a group that are still running at each position.

    >>> at_each_position(tensor([[1., 2.], [5., 9.]]), tensor([[True, True], [True, False]]), tensor([0, 0]))
    tensor([[6., 2.],
            [6., 2.]])
    """
    return groups.total(groups.spread(x, mask), group)


def plus_step_advantage(
    advantage: PerToken,
    old_logp: PerToken,
    ref_logp: PerToken,
    mask: Mask,
    group: Group,
    beta: float = 0.05,  # ours: PRIME's (2502.01456), whose implicit reward it is; SPRO prints none
) -> PerToken:
    """The advantage and the masked step advantage; 0 is added where only one response is still running.

    >>> drift, none = tensor([[.1, .3], [0., -.1], [.2, .1]]), torch.zeros(3, 2)
    >>> plus_step_advantage(none, drift, none, none == 0, tensor([0, 0, 0]), beta=1.0).T
    tensor([[ 0.0000, -0.1000,  0.1000],
            [ 0.2000, -0.3000,  0.1000]])
    """
    progress = beta * groups.spread(old_logp - ref_logp, mask).cumsum(1)
    running = at_each_position(mask.float(), mask, group).clamp(min=1)
    return groups.spread(advantage + progress - at_each_position(progress, mask, group) / running, mask)


recipe = grpo.recipe.with_(
    name="spro_msa",
    findings=(
        Finding("pass@1", "grpo", "up", "+17.5 % test accuracy", "place not read"),
        Finding("length", "grpo", "down", "about a third shorter", "place not read"),
    ),
    paper=Paper(
        "Self-Guided Process Reward Optimization with Redefined Step-wise Advantage for Process Reinforcement Learning",
        arxiv="2507.01551", date="2025-07-02",
        authors="Fei, Wu and Kong, Hao and Liang, Shuxian and Lin, Yang and Yang, Yibo and others",
    ),
    new="a process reward from the policy itself, compared with the other responses at the same position",
    credit=(plus_step_advantage,), penalties=(),
    claims=("policy_gradient", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=("Assumed: β = 0.05, and the sample's deviation. The drift is of the policy at the start of the batch.",),
)  # fmt: skip
