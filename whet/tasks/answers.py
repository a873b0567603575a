"""Answers that have more than one right spelling: boxes, and letters of a multiple choice."""

import re
from collections.abc import Sequence
from typing import Any

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def boxed(text: str) -> str | None:
    r"""What stands in the last \boxed{...} of a text, braces counted; None without one.

    >>> boxed(r"so \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    """
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for place in range(begin - 1, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if not depth:
            return text[begin:place]
    return None


def share_of_choices(final: str, answer: Any, choices: Sequence[str] = ()) -> float:
    """1 for exactly the right letters; else (right ones named - wrong ones named) / right ones, at least 0.

    `answer` is letters (`B`, `A,C`), a number or list of numbers counted from 0, or the words of a choice.

    >>> [share_of_choices(text, "A,C") for text in ("A and C", "C", "A, B, C", "B", "")]
    [1.0, 0.5, 0.5, 0.0, 0.0]
    """
    right, named = letters_of(answer, choices), named_in(final, choices)
    return max(0.0, (len(named & right) - len(named - right)) / max(len(right), 1))


def letters_of(answer: Any, choices: Sequence[str] = ()) -> set[str]:
    """The right letters.

    >>> sorted(letters_of([0, 2])), letters_of("no", ["yes", "no"])
    (['A', 'C'], {'B'})
    """
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        return set().union(*(letters_of(one, choices) for one in answer))
    if isinstance(answer, int):
        return {LETTERS[answer]}
    if answer in choices:
        return {LETTERS[list(choices).index(answer)]}
    return set(re.findall(r"\b[A-Z]\b", answer.upper()))


def named_in(final: str, choices: Sequence[str] = ()) -> set[str]:
    r"""The letters that a response gives: in its last \boxed{}, behind its last "answer", or else anywhere in it.

    >>> named_in("A is too small, so the answer is (C)."), named_in(r"\boxed{B}, D"), named_in("I say b")
    ({'C'}, {'B'}, set())
    """
    told = boxed(final)
    if told is None:
        told = re.split(r"(?i)answers?\b", final)[-1]
    known = LETTERS[: len(choices)] if choices else LETTERS
    # "A" and "I" are words too: where letters stand in brackets or before full stops, only those count
    found = re.findall(rf"\(([{known}])\)", told) or re.findall(rf"(?<![\w'])([{known}])(?![\w'])", told)
    return set(found) - ({"I"} if not choices and "I " in told else set())
