"""DeepSeek-R1-Zero (DeepSeek-AI 2025): a reward for the right answer, and one for the form of the response.

R = accuracy + format        format: <think> … </think>, and then the answer       (section 2.2.2)
"""

from typing import Any

import torch

from whet.fields import Flag, PerResponse
from whet.papers import grpo
from whet.recipe import Paper


def accuracy(correct: Flag) -> PerResponse:
    """1 for a right answer, 0 for a wrong one.

    >>> accuracy(tensor([True, False]))
    tensor([1., 0.])
    """
    return correct.float()


def thinking_format(
    texts: Any,
    opening: str = "<think>", closing: str = "</think>",  # table 1
    worth: float = 1.0,  # section 2.2.2 adds the two; the weight of either is not said
) -> PerResponse:  # fmt: skip
    """`worth` for thoughts between one pair of tags and an answer behind them; an opening tag may be the prompt's.

    >>> thinking_format(("<think>6·7</think>42", "6·7</think> 42", "42", "<think>6·7</think>"))
    tensor([1., 1., 0., 0.])
    >>> thinking_format(("<think>a<think>b</think>c", "<think></think>c", "<think>a</think>b</think>c"))
    tensor([0., 0., 0.])
    """
    return torch.tensor([worth if formed(text, opening, closing) else 0.0 for text in texts])


def formed(text: str, opening: str, closing: str) -> bool:
    """True for thoughts, their closing tag and an answer, with no further tag in either."""
    before, _, answer = text.partition(closing)
    thoughts = before.strip().removeprefix(opening)
    return bool(thoughts.strip() and answer.strip()) and not any(tag in thoughts + answer for tag in (opening, closing))


recipe = grpo.recipe.with_(
    name="deepseek_r1",
    paper=Paper(
        "DeepSeek-R1: Incentivizing Reasoning Capability in LLMs via Reinforcement Learning", arxiv="2501.12948",
        date="2025-01-22",
        authors="DeepSeek-AI and Guo, Daya and Yang, Dejian and Zhang, Haowei and Song, Junxiao and others",
    ),
    new="a reward for thoughts between tags beside the reward for the right answer",
    reward=(accuracy, thinking_format), shelf="reward", claims=("silent_on_equal_rewards", "sums_to_zero"),
    departs=(
        "The rewards of R1-Zero alone: no cold start, no language reward, no rejection sampling, no second stage.",
        "16 responses to 16 prompts and GRPO's own clip and KL; the paper does not name its own in its first version.",
    ),
)  # fmt: skip
