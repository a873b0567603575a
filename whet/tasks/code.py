'''Write a small function, judged by tests that it does not see. It runs in a sandbox, or not at all.

A prompt, and a response to it:

    def f(xs):
        """Of the numbers in xs, keep the even ones, then square each. Return their sum.

        (two examples, as a doctest has them)
        """
        return sum(x * x for x in xs if x % 2 == 0)

In the style of HumanEval (Chen et al. 2021, 2107.03374) and MBPP (Austin et al. 2021, 2108.07732), with problems
that are generated, so that no model has read them: level = number of steps. A response is the rest of the function,
or a whole function f, alone or in a fenced block. It is right if all of 10 calls return what they should. The
expected values never enter the sandbox.
'''

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from whet.refusal import Refused
from whet.sandbox import Answer, Limits, Program, Sandboxes
from whet.tasks import Problem, Verdict
from whet.tasks.functions import Function, argument, draw
from whet.tasks.splits import held_out

HELD_OUT_SHARE = 0.2  # of all functions, by their words
EVALUATION_SEED = 20250929
EXAMPLES, CALLS = 2, 10
LONGEST_PROMPT, LONGEST_BODY = 340, 155  # characters: with the shipped base each is a token, and it sees 512
FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
DEFINES = re.compile(r"^(?:async )?def f\b", re.MULTILINE)


# --- problems ----------------------------------------------------------------------------------------------


def problem_of(function: Function, level: int) -> Problem | None:
    """The problem that asks for a function.

    None where it is too long, or where its tests could not tell it from one that forgets a step.
    """
    rng = Random(function.words)
    inputs: list[Any] = []
    while len(inputs) < EXAMPLES + CALLS:
        given = argument(rng, function.kind)
        if given not in inputs and (given or len(inputs) >= EXAMPLES):
            inputs.append(given)
    results = function.results(inputs)
    shown, hidden = results[:EXAMPLES], results[EXAMPLES:]
    if any(other.results(inputs)[EXAMPLES:] == hidden for other in function.without_each_step()):
        return None
    if len({repr(result) for result in hidden}) < 2:
        return None
    examples = "".join(f"    >>> f({x!r})\n    {y!r}\n" for x, y in zip(inputs, shown, strict=False))
    prompt = f'{function.head}    """{function.words}\n\n{examples}    """\n'
    if len(prompt) > LONGEST_PROMPT or len(function.body) > LONGEST_BODY:
        return None
    about = {"calls": [[x] for x in inputs[EXAMPLES:]], "expected": hidden}
    return Problem(id=function.words, prompt=prompt, answer=function.body, level=level, about=about)


def problems(rng: Random, level: int, held: bool) -> Iterator[Problem]:
    """Different problems without end, all on one side of the split between training and held out."""
    seen = set()
    while True:
        function = draw(rng, level)
        if function.words in seen or held_out(function.words, HELD_OUT_SHARE) != held:
            continue
        seen.add(function.words)
        problem = problem_of(function, level)
        if problem is not None:
            yield problem


def take(count: int, seed: str, level: int, held: bool) -> list[Problem]:
    """The first `count` problems with this seed."""
    return [problem for problem, _ in zip(problems(Random(seed), level, held), range(count), strict=False)]


# --- responses ---------------------------------------------------------------------------------------------


def source(prompt: str, text: str) -> str:
    """The program in a response: a function f that it defines, or the prompt with the response as its rest.

    >>> print(source("def f(x):\\n", "return x\\n\\nThat is all."))
    def f(x):
        return x
    """
    fenced = FENCE.findall(text)
    text = next((block for block in fenced if DEFINES.search(block)), fenced[0] if fenced else text)
    if DEFINES.search(text):
        return text
    text = text.strip("\n")
    return prompt + (_indented(text) if text[:1] in (" ", "\t") else textwrap.indent(_unindented(text), "    "))


def _indented(text: str) -> str:
    """The first lines, as far as they are indented: a model that goes on after the function has said enough."""
    lines = text.split("\n")
    end = next((i for i, line in enumerate(lines) if line.strip() and line[0] not in " \t"), len(lines))
    return "\n".join(lines[:end]).rstrip()


def _unindented(text: str) -> str:
    """The longest beginning, in whole lines, that is Python; the first line where there is none."""
    lines = text.split("\n")
    for end in range(min(len(lines), 100), 0, -1):
        try:
            ast.parse("def f():\n" + textwrap.indent("\n".join(lines[:end]), "    "))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return "\n".join(lines[:end]).rstrip()
    return lines[0]


def alike(found: Any, expected: Any) -> bool:
    """Equal as plain values: a bool is no number, a number is no text, and nothing has a word in it but Python.

    >>> alike([1, 2.0], [1, 2]), alike(1, True), alike("1", 1), alike([1], [1, 2])
    (True, False, False, False)
    """
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(alike, found, expected))
    if isinstance(expected, bool) or isinstance(found, bool):
        return found is expected
    if isinstance(expected, int):
        return isinstance(found, int | float) and found == expected
    return isinstance(found, str) and found == expected


def verdict(problem: Problem, answer: Answer) -> Verdict:
    """1 if every call returned what it should; 0 with the reason if not; unknown where the sandbox failed."""
    if answer.lost:
        return Verdict(None, reason=answer.how)
    if answer.values is None:
        return Verdict(0.0, reason=answer.how)
    wrong = [not alike(x, y) for x, y in zip(answer.values, problem.about["expected"], strict=True)]
    return Verdict(
        float(not any(wrong)), not any(wrong), f"{sum(wrong)} of {len(wrong)} calls wrong" if any(wrong) else ""
    )


@dataclass(frozen=True)
class Code:
    """`size` training problems, the `levels` in equal shares; `count` held-out ones in each split.

    `seconds` (of processor time) and `memory` (MB) bound one program with all its calls.
    """

    levels: tuple[int, ...] = (1, 2)
    size: int = 1024
    seed: int = 0
    count: int = 48
    max_tokens: int = 160
    seconds: int = 2
    memory: int = 256

    name = "code"
    judges_apart = True
    optimum = 1.0
    elsewhere = ()

    def __post_init__(self) -> None:
        if not self.levels or not set(self.levels) <= {1, 2, 3}:
            raise Refused(f"code has problems of 1, 2 or 3 steps, so levels cannot be {self.levels}.")
        if self.seconds < 1 or self.memory < 64:
            raise Refused("A program of code needs at least 1 second and 64 MB: raise seconds or memory.")
        self._sandboxes.ready()  # without a sandbox it is refused now, not in the middle of a run

    @cached_property
    def _sandboxes(self) -> Sandboxes:
        return Sandboxes(Limits(seconds=self.seconds, memory=self.memory << 20))

    @property
    def focus(self) -> str:
        """The split of the most steps that are trained."""
        return f"level{max(self.levels)}"

    def train(self) -> list[Problem]:
        """The training problems, the levels in turn."""
        share = -(-self.size // len(self.levels))
        piles = [take(share, f"train {self.seed} {level}", level, held=False) for level in self.levels]
        return [problem for row in zip(*piles, strict=True) for problem in row][: self.size]

    def evaluation(self) -> dict[str, list[Problem]]:
        """`level1`, `level2` and `level3`, held out by what the function does."""
        seed = f"evaluation {EVALUATION_SEED}"
        return {f"level{n}": take(self.count, f"{seed} {n}", n, held=True) for n in (1, 2, 3)}

    def demonstrate(self, problem: Problem) -> str:
        """One right answer."""
        return problem.answer

    def judge(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        """1 if every call returns what it should, else 0 with the reason; the same program is run once."""
        asked = [
            Program(source(problem.prompt, text), "f", tuple(map(tuple, problem.about["calls"])))
            for problem, text in zip(problems, texts, strict=True)
        ]
        keys = [(problem.id, program.source) for problem, program in zip(problems, asked, strict=True)]
        once = dict(zip(keys, asked, strict=True))
        answers = dict(zip(once, self._sandboxes.run(list(once.values())), strict=True))
        return [verdict(problem, answers[key]) for problem, key in zip(problems, keys, strict=True)]
