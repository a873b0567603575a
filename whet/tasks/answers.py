"""Judges of answers that have more than one right spelling. They run in the judges' worker processes."""

import re
from collections.abc import Sequence
from typing import Any

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def same_value(final: str, answer: Any) -> float | None:
    """1 where math-verify finds the answer's value in the response; unknown where it cannot read the answer itself.

    The time-out is the judge pool's, since math-verify's own one needs the main thread.
    """
    verify, parse = _math_verify()
    gold = parse(_as_latex(str(answer)))
    if not gold:
        return None
    return float(verify(gold, parse(final)))


def _math_verify() -> tuple[Any, Any]:
    import logging
    from functools import partial

    import math_verify

    for name in ("math_verify.grader", "math_verify.parser", "math_verify.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it warns that its time-out is off
    return partial(math_verify.verify, timeout_seconds=None), partial(math_verify.parse, parsing_timeout=None)


def _as_latex(answer: str) -> str:
    return answer if "$" in answer or "\\boxed" in answer else f"${answer.strip()}$"


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


# --- multiple choice --------------------------------------------------------------------------------------


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
