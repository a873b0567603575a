"""Where problems come from and how answers are judged."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Problem:
    """One question. `id` is stable across runs; `about` holds what a task or a user's file says besides."""

    id: str
    prompt: str
    answer: str
    level: int = 0
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one response. `score` None is *unknown*, for `reason`: not zero, and not counted."""

    score: float | None
    correct: bool = False
    reason: str = ""


class Task(Protocol):
    """A source of problems with an exact judge.

    `train` lists the training problems; `evaluation` the held-out ones by the name of their split (`focus`
    names the split that the run is about, `elsewhere` those it does not train, where forgetting shows);
    `optimum` is the best mean score on the training problems; `max_tokens` bounds a response.
    """

    name: str
    max_tokens: int
    optimum: float
    focus: str
    elsewhere: tuple[str, ...]

    def train(self) -> Sequence[Problem]:
        """The training problems, in a fixed order."""
        ...

    def evaluation(self) -> dict[str, list[Problem]]:
        """The held-out problems by split; no training problem is among them."""
        ...

    def judge(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each response, in order; it never raises because of a response."""
        ...


# A task whose judge works in other processes says `judges_apart = True`: it is then asked from another thread, with all
# responses to some problems at a time, while the responses to others are still being written.
#
# A task may also have `demonstrate(problem)`, a worked solution, and `label(problems, texts)`: for each text the
# statements in it as (begin, end, label), in characters, label 1 for a right one and -1 for a wrong one.
Statements = list[tuple[int, int, int]]
