"""TW-GRPO (Dang et al. 2025): part of the reward for part of the right options; focus where answers part ways.

r   = |named| / |right|  if every named option is right, else 0
k_t = mean_i KL( π_it ‖ mean_i π_it ),   w_t = 1 + (α - 1) (k_t - min k) / (max k - min k)     t: a position of a group
L   = mean over tokens of w_t l_it
"""

from functools import partial
from typing import Any

import torch

from whet import groups, plain
from whet.fields import Flag, Group, Mask, PerResponse, PerToken
from whet.papers import grpo
from whet.recipe import Paper


def options(text: str) -> set[str]:
    """The options in an answer: its words, commas aside; only those between answer tags where there are any.

    >>> sorted(options("so <answer>A, B</answer>"))
    ['A', 'B']
    """
    return set(text.rpartition("<answer>")[2].partition("</answer>")[0].replace(",", " ").split())


def share_of_options(correct: Flag, texts: Any, problems: Any) -> PerResponse:
    """1 for a right answer, else the share of the right options that it names; 0 if it names a wrong one.

    >>> from whet.tasks import Problem
    >>> wrong, all_three = tensor([False] * 4), [Problem("p", "which?", "A,B,C")] * 4
    >>> share_of_options(wrong, ("A", "A,B", "A,D", ""), all_three)
    tensor([0.3333, 0.6667, 0.0000, 0.0000])
    """
    pairs = [(options(text), options(problem.answer)) for text, problem in zip(texts, problems, strict=True)]
    share = torch.tensor([len(named) / max(len(right), 1) if named <= right else 0.0 for named, right in pairs])
    return torch.where(correct, 1.0, share)


def where_answers_part(
    group_divergence: PerToken,
    group: Group,
    mask: Mask,
    alpha: float = 1.7,  # the TW script; 1.4 is the code's default, and the GRPO script has 1.0
    epsilon: float = 1e-8,  # the authors' code
) -> PerToken:
    """1 at the position where the responses to a problem agree most, α where they part most.

    >>> where_answers_part(tensor([[0., 1.852327, .016594]]), tensor([0]), torch.ones(1, 3).bool())
    tensor([[1.0000, 1.7000, 1.0063]])
    """
    most = groups.largest(torch.where(mask, group_divergence, -torch.inf).amax(1), group)[:, None]
    least = -groups.largest(torch.where(mask, -group_divergence, -torch.inf).amax(1), group)[:, None]
    return groups.spread(1 + (alpha - 1) * (group_divergence - least) / (most - least + epsilon), mask)


def where_answers_part_in_the_code(
    group_log_divergence: PerToken,
    group: Group,
    mask: Mask,
    alpha: float = 1.7,  # the TW script
) -> PerToken:
    """The same with the code's k_t: Σ_v (e^D - D - 1), D = mean log π - log π, ended responses uniform.

    >>> where_answers_part_in_the_code(tensor([[0., 1.852327, .016594]]), tensor([0]), torch.ones(1, 3).bool())
    tensor([[1.0000, 1.7000, 1.0063]])
    """
    return where_answers_part(group_log_divergence, group, mask, alpha)


paper = Paper(
    "Reinforcing Video Reasoning with Focused Thinking",
    arxiv="2505.24718",
    date="2025-05-30",
    authors="Dang, Jisheng and Wu, Jingze and Wang, Teng and Lin, Xuanhui and Zhu, Nannan and others",
)
recipe = grpo.recipe.with_(
    name="tw_grpo_soft_reward",
    paper=paper,
    new="an incomplete set of right options earns its share",
    reward=(share_of_options,),
    penalties=(),
    shelf="reward",
    claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero"),
    departs=(
        "What the task's judge calls right earns 1, however it is written.",
        "Without the format reward and the question-answer inversion; the token weights are tw_grpo_weight.",
    ),
)
weight = grpo.recipe.with_(
    name="tw_grpo_weight",
    paper=paper,
    new="positions where the responses to a problem part ways count more",
    advantage=partial(
        grpo.z_score,
        epsilon=1e-4,  # the authors' code
    ),
    normalise=plain.over_tokens,
    weights=(where_answers_part,),
    penalties=(),
    claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing"),
    departs=(
        "k_t is the KL to the mean distribution, of the responses that have a token at t; the authors' code sums over "
        "the vocabulary without weights, here `where_answers_part_in_the_code`.",
        "The weights carry no gradient and are of the policy at the start of the update; in the code they carry one.",
    ),
)
