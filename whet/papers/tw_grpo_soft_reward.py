"""TW-GRPO (Dang et al. 2025): part of the reward for part of the right options.

r = |named| / |right|  if every named option is right, else 0
"""

from typing import Any

import torch

from whet.fields import Flag, PerResponse
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


recipe = grpo.recipe.with_(
    name="tw_grpo_soft_reward",
    paper=Paper(
        "Reinforcing Video Reasoning with Focused Thinking",
        arxiv="2505.24718",
        date="2025-05-30",
        authors="Dang, Jisheng and Wu, Jingze and Wang, Teng and Lin, Xuanhui and Zhu, Nannan and others",
    ),
    new="an incomplete set of right options earns its share",
    reward=(share_of_options,),
    penalties=(),
    shelf="reward",
    claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero"),
    departs=(
        "What the task's judge calls right earns 1, however it is written.",
        "The format reward, the question-answer inversion and the token weights of the paper are left out.",
    ),
)
