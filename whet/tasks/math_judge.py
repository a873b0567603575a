"""Equality in mathematics, by math-verify. Imported in the judges' worker processes only: sympy takes its time."""

import logging
from typing import Any

from math_verify import parse, verify

for _name in ("math_verify.grader", "math_verify.parser", "math_verify.utils"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # it warns that its own time-out is off


def same_value(final: str, answer: Any) -> float | None:
    """1 where math-verify finds the answer's value in the response; unknown where it cannot read the answer itself.

    The time-out is the judge pool's, which also ends what does not listen to signals.
    """
    gold = parse(_as_latex(str(answer)), parsing_timeout=None)
    if not gold:
        return None
    return float(verify(gold, parse(final, parsing_timeout=None), timeout_seconds=None))


def _as_latex(answer: str) -> str:
    return answer if "$" in answer or "\\boxed" in answer else f"${answer.strip()}$"
