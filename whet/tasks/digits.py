"""Next digit: a task of one to three tokens that any method learns in about a second from `tiny.micro`.

    prompt    a3
    response  4            judged by the first digit written; 0 comes after 9

The letter has no meaning. It makes 60 training problems (a to f) and 20 held-out ones (g, h) of ten.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from whet.tasks import Problem, Statements, Verdict


def problems(letters: str) -> list[Problem]:
    """One problem for each letter and digit."""
    return [
        Problem(id=f"{letter}{digit}", prompt=f"{letter}{digit}", answer=str((digit + 1) % 10), level=1)
        for digit in range(10)
        for letter in letters
    ]


@dataclass(frozen=True)
class Digits:
    """The next digit; nothing to set."""

    name = "digits"
    max_tokens = 3
    optimum = 1.0
    focus = "digits"
    elsewhere = ()

    def train(self) -> list[Problem]:
        """60 problems."""
        return problems("abcdef")

    def evaluation(self) -> dict[str, list[Problem]]:
        """20 problems with letters that training never shows."""
        return {"digits": problems("gh")}

    def demonstrate(self, problem: Problem) -> str:
        """The digit."""
        return problem.answer

    def label(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Statements]:
        """Every digit is a statement: right if it is the next one."""
        return [
            [(m.start(), m.end(), 1 if m[0] == problem.answer else -1) for m in re.finditer("[0-9]", text)]
            for problem, text in zip(problems, texts, strict=True)
        ]

    def judge(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        """1 if the first digit is the right one, else 0."""
        firsts = [re.search("[0-9]", text) for text in texts]
        right = [m is not None and m[0] == problem.answer for problem, m in zip(problems, firsts, strict=True)]
        return [Verdict(float(ok), ok) for ok in right]
