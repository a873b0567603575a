"""BalCapRL (Ye et al. 2026): GDPO on continuous rewards, of which style counts only at a fitting length.

A = GDPO of the parts,   r_style kept where 1/2 ≤ length / reference length ≤ 2, and 0 elsewhere
"""

from typing import Any

import torch

from whet import plain
from whet.fields import Flag, PerResponse
from whet.papers import gdpo
from whet.recipe import Paper


def style_at_fitting_length(
    finished: Flag,
    texts: Any,
    problems: Any,
    shortest: float = 0.5,  # the paper's bound, from a reading note
    longest: float = 2.0,  # the paper's bound, from a reading note
) -> PerResponse:
    """1 for a response that ended by itself and has a fitting number of words beside the reference answer.

    >>> from types import SimpleNamespace as Problem
    >>> texts = ["a b", "a b", "a b c d e f g h i"]
    >>> style_at_fitting_length(tensor([True, False, True]), texts, [Problem(answer="a b c d")] * 3)
    tensor([1., 0., 0.])
    """
    words = torch.tensor([float(len(text.split())) for text in texts])
    share = words / torch.tensor([float(max(len(problem.answer.split()), 1)) for problem in problems])
    return (finished & (share >= shortest) & (share <= longest)).float()


recipe = gdpo.recipe.with_(
    name="balcaprl_cgdpo",
    paper=Paper(
        "BalCapRL: A Balanced Framework for RL-Based MLLM Image Captioning",
        arxiv="2605.07394",
        date="2026-05-08",
        authors="Ye, Shaokai and Saveris, Vasileios and Qian, Yihao and Hu, Jiaming and others",
    ),
    new="a second, style reward beside the task's, masked where the length does not fit",
    reward=(plain.task_score, style_at_fitting_length),
    claims=("sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "Assumed: ending by itself stands for the paper's judge of style, and the task's score for its precision and"
        " recall of a caption's statements; all weights are 1.",
        "Assumed: the length is counted in words, against the words of the problem's answer.",
        "Assumed: GDPO's second normalisation stays; without it (gdpo.decoupled) only the scale differs.",
    ),
)
