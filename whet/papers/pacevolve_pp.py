"""PACEvolve++ (Yan et al. 2026): learn from the whole group early in the run, from the best of k late in it.

A = (1 - α) z(R) + α z(sloo_k(R)),   α from 0 to 1 over the run
z(v) = (v - mean v) / (population std v + ε)
"""

from typing import Any

from torch import Tensor

from whet import groups, plain
from whet.fields import Group, PerResponse
from whet.papers import dapo, pkpo
from whet.recipe import Finding, Paper


def phase_adaptive(
    reward: PerResponse,
    group: Group,
    progress: Any,
    k: int = 4,  # ours: no k is published
    epsilon: float = 1e-8,  # the third-party code
) -> PerResponse:
    """From the group's z-score to the z-score of what each response adds to the best of k.

    >>> phase_adaptive(tensor([.1, .7, .4, .9]), tensor([0, 0, 0, 0]), 0.5, k=2)
    tensor([-1.2869,  0.4840, -0.5317,  1.3346])
    """
    late = _z(pkpo.marginal(reward, group, k), group, epsilon)
    return (1 - progress) * _z(reward, group, epsilon) + progress * late


def _z(x: Tensor, group: Group, epsilon: float) -> Tensor:
    centred = x - groups.mean(x, group)
    return centred / (groups.mean(centred**2, group).sqrt() + epsilon)


recipe = dapo.clip_higher.with_(
    name="pacevolve_pp",
    findings=(Finding("speed", "clip_higher", "up", "faster convergence on three tasks", "abstract, as digested"),),
    paper=Paper(
        "PACEvolve++: Improving Test-time Learning for Evolutionary Search Agents", arxiv="2605.07039",
        date="2026-05-07",
        authors="Yan, Minghao and Peng, Bo and Coleman, Benjamin and Chen, Ziqi and Xie, Zhouhang and others",
    ),
    new="the advantage moves over the run from the group's z-score to the best of k",
    advantage=phase_adaptive, normalise=plain.over_tokens, penalties=(),
    claims=(
        "policy_gradient", "silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing",
    ),
    departs=(
        "Assumed: α grows in a straight line over the run, after a third party's code; the paper says that it follows"
        " the phase of the search and the rule is not known to us.",
        "Assumed: no KL.",
        "A group without spread in one of the two terms gets nothing from it; the third party's code skips the update.",
        "The task's score as it is; the third party rewards 5 × progress and -1 for a failure.",
    ),
)  # fmt: skip
