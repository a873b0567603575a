"""ExpThink (Bian et al. 2026): full reward only near the shortest right answer ever seen; hard problems weigh more.

R_i = 1 right and |y_i| ≤ (1 + q) L*,  d right and longer,  0 wrong;   L* the shortest right answer so far
A_i = (R_i - mean R) / c,   c right answers in the group, at least 1
"""

from typing import Any

import torch

from whet import groups, plain
from whet.fields import Count, Flag, Group, PerResponse
from whet.papers import dapo
from whet.recipe import Finding, Paper, Remembers


def near_the_shortest(
    correct: Flag, length: Count, problems: Any, memory: Any,
    slack: float = 0.3,  # q in the authors' README; their script has 0.1
    discount: float = 0.5,  # ours: the paper says between 0 and 1; the released code has 0
) -> tuple[PerResponse, dict[str, int]]:  # fmt: skip
    """The three tiers, and the shortest right answer to each problem, this batch's included.

    >>> from types import SimpleNamespace as Problem
    >>> near_the_shortest(tensor([True, True, True, False]), tensor([100, 120, 140, 90]), [Problem(id="a")] * 4, {})
    (tensor([1.0000, 1.0000, 0.5000, 0.0000]), {'a': 100})
    """
    shortest = dict(memory)
    for problem, right, tokens in zip(problems, correct.tolist(), length.tolist(), strict=True):
        if right:
            shortest[problem.id] = min(tokens, shortest.get(problem.id, tokens))
    limit = torch.tensor([int((1 + slack) * shortest.get(problem.id, 0)) for problem in problems])
    return correct * torch.where(length <= limit, 1.0, discount), shortest


def over_right_answers(reward: PerResponse, group: Group, correct: Flag) -> PerResponse:
    """The centred reward over the number of right answers: the fewer there are, the more each counts.

    >>> over_right_answers(tensor([1., 1., 0., 0.]), torch.zeros(4).long(), tensor([True, True, False, False]))
    tensor([ 0.2500,  0.2500, -0.2500, -0.2500])
    """
    return (reward - groups.mean(reward, group)) / groups.total(correct.float(), group).clamp(min=1)


recipe = dapo.clip_higher.with_(
    name="expthink",
    findings=(
        Finding("length", "clip_higher", "down", "up to 77 % shorter", "abstract, as digested"),
        Finding("pass@1", "clip_higher", "up", "higher while shorter", "abstract, as digested"),
    ),
    paper=Paper(
        "ExpThink: Experience-Guided Reinforcement Learning for Adaptive Chain-of-Thought Compression",
        arxiv="2605.07501", date="2026-05-08", authors="Bian, Tingcheng and Zhang, Yuzhe and Jin, Jing and others",
    ),
    new="the reward is cut beyond the shortest right answer so far, and divided by the number of right ones",
    reward=(Remembers(near_the_shortest, start={}),), advantage=over_right_answers, normalise=plain.over_tokens,
    penalties=(), claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero"), shelf="reward",
    departs=("Assumed: a discount of 0.5 (the first code has 0), no further scale. No dual clip at 10, as there.",),
)  # fmt: skip
