"""FSPO (Li and Ng 2025): a token's advantage is turned round where its sentence's truth says otherwise.

A'_it = A_it  if  s_it A_it ≥ 0,  else  -A_it          s_it: 1 true, -1 false, 0 nothing said
"""

from functools import partial

import torch

from whet.fields import PerToken
from whet.papers import grpo, kl_estimators
from whet.recipe import Paper


def turned_by_truth(advantage: PerToken, label: PerToken) -> PerToken:
    """The advantage with the sign of the label, where there is one.

    >>> turned_by_truth(tensor([[1., -1., .5]]), tensor([[-1., 1., 0.]]))
    tensor([[-1.0000,  1.0000,  0.5000]])
    """
    return torch.where(label * advantage < 0, -advantage, advantage)


recipe = grpo.recipe.with_(
    name="fspo",
    paper=Paper(
        "The Hallucination Dilemma: Factuality-Aware Reinforcement Learning for Large Reasoning Models",
        arxiv="2505.24630",
        date="2025-05-30",
        authors="Li, Junyi and Ng, Hwee Tou",
    ),
    new="false sentences are pushed down in right answers too, and true ones up in wrong answers",
    credit=(turned_by_truth,),
    penalties=(
        partial(
            kl_estimators.k3,
            beta=1e-3,  # the authors' script
        ),
    ),
    claims=("silent_on_equal_rewards", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "What is true is said by the task, token by token: whole sentences and an entailment model in the paper.",
        "Labels have three values, as in the paper; the authors' code has two, and lays them from the first token on "
        "though the sentences begin after the opening tag.",
        "The penalty of -2 on a wrong format is the task's to give.",
    ),
)
