"""Nested string functions after RL-Compositionality (arXiv 2509.25123): can a model compose what it knows?

    prompt    rot(dup(cab),2)=
    response  rot(ccaabb,2)=aabbcc        the worked solution: one function at a time, innermost first

Level = nesting depth. Training composes the paper's 13 training functions; the split `unseen` composes the
others, less the three that equal a training function (`strings.TWINS`), so that it is strictly held out.
Only the final value is judged: the text after the last `=`. The steps in between are free.

Ours, to keep responses short: start strings of 2 to 4 characters (paper: 3 to 10), 2 or 3 repetitions
(2 to 4), argument strings of 1 or 2 characters (2 to 4), no binary nodes, and no value above 12 characters.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_lowercase

from whet.refusal import Refused
from whet.tasks import Problem, Verdict
from whet.tasks.splits import held_out
from whet.tasks.strings import FUNCTIONS, STRICTLY_HELD_OUT, TRAINED, Named

HELD_OUT_SHARE = 0.1  # of all expressions: no training pool and no base model ever sees them
EVALUATION_SEED = 20250929  # fixed, so that every run is measured on the same problems
LONGEST_VALUE = 12  # characters
# Level → the most tokens a worked solution may have, the end token included.
LONGEST_RESPONSE = {1: 24, 2: 40, 3: 60, 4: 72, 5: 96, 6: 128}

# What each kind of argument may be, as it is written; strings are drawn letter by letter.
ARGUMENTS = {"times": "23", "places": "123", "shift": "12345", "mark": "-_|", "depth": "123"}


# --- expressions -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One function of an expression with its argument, "" if it takes none."""

    name: str
    argument: str = ""

    def around(self, inside: str) -> str:
        """The call as it is written.

        >>> Call("rot", "2").around("abc")
        'rot(abc,2)'
        """
        return f"{self.name}({inside}{',' if self.argument else ''}{self.argument})"

    def value(self, of: str) -> str:
        """The value of the call on a string."""
        return FUNCTIONS[self.name](of, *([self.argument] if self.argument else []))


def written(start: str, calls: Iterable[Call]) -> str:
    """The expression; `calls` are listed innermost first.

    >>> written("cab", [Call("dup"), Call("rot", "2")])
    'rot(dup(cab),2)'
    """
    for call in calls:
        start = call.around(start)
    return start


def values(start: str, calls: Iterable[Call]) -> list[str]:
    """The value after each call, innermost first.

    >>> values("cab", [Call("dup"), Call("rot", "2")])
    ['ccaabb', 'aabbcc']
    """
    found = []
    for call in calls:
        start = call.value(start)
        found.append(start)
    return found


def solution(steps: Sequence[str], calls: Sequence[Call]) -> str:
    """The response that has these values after each call: what is left to do, then the final value.

    >>> solution(["ccaabb", "aabbcc"], [Call("dup"), Call("rot", "2")])
    'rot(ccaabb,2)=aabbcc'
    """
    return "=".join(written(value, calls[i + 1 :]) for i, value in enumerate(steps))


def parsed(prompt: str) -> tuple[str, list[Call]]:
    """The start string and the calls of a prompt, innermost first.

    >>> parsed("rot(dup(cab),2)=")
    ('cab', [Call(name='dup', argument=''), Call(name='rot', argument='2')])
    """
    names = []
    inside = prompt.removesuffix("=")
    while inside[3:4] == "(":
        names.append(inside[:3])
        inside = inside[4:]
    start, *rest = inside.replace(")", "").split(",")
    arguments = iter(rest)  # innermost first, as the names are from here on
    return start, [Call(name, next(arguments) if FUNCTIONS[name].argument else "") for name in reversed(names)]


# --- drawing problems --------------------------------------------------------------------------------------


def _letters(rng: Random, count: int) -> str:
    return "".join(rng.choice("aeiou" if rng.random() < 0.4 else ascii_lowercase) for _ in range(count))


def draw_start(rng: Random, names: Sequence[str]) -> str:
    """2 to 4 characters that give the functions of the expression something to do."""
    letters = _letters(rng, rng.randint(2, 4))
    at = rng.randrange(1, len(letters))
    if "wds" in names:
        return f"{letters[:at]} {letters[at:]}"
    if "let" in names:
        return letters[:at] + rng.choice("123-_|") + letters[at + 1 :]
    if "sqz" in names:
        return letters[:at] + letters[at - 1] + letters[at + 1 :]
    return letters


def draw_argument(rng: Random, entry: Named) -> str:
    """An argument of the kind that the function takes, "" if it takes none."""
    if entry.argument == "string":
        return _letters(rng, rng.randint(1, 2))
    return rng.choice(ARGUMENTS[entry.argument]) if entry.argument else ""


def usable(steps: Sequence[str], calls: Sequence[Call]) -> bool:
    """True if no value is empty, too long or has a space at its end, and the worked solution is short enough."""
    if any(not value or len(value) > LONGEST_VALUE or value != value.strip() for value in steps):
        return False
    return len(solution(steps, calls)) + 1 <= LONGEST_RESPONSE[len(calls)]


def draw(rng: Random, names: Sequence[str], level: int) -> Problem:
    """One problem that nests `level` of the named functions."""
    while True:
        chosen = [rng.choice(names) for _ in range(level)]
        calls = [Call(name, draw_argument(rng, FUNCTIONS[name])) for name in chosen]
        start = draw_start(rng, chosen)
        steps = values(start, calls)
        if usable(steps, calls):
            prompt = written(start, calls) + "="
            return Problem(id=prompt, prompt=prompt, answer=steps[-1], level=level)


def stream(rng: Random, names: Sequence[str], level: int, held: bool) -> Iterator[Problem]:
    """Different problems without end, all on one side of the split between training and held out."""
    seen = set()
    while True:
        problem = draw(rng, names, level)
        if held_out(problem.id, HELD_OUT_SHARE) == held and problem.id not in seen:
            seen.add(problem.id)
            yield problem


def take(count: int, seed: str, names: Sequence[str], level: int, held: bool) -> list[Problem]:
    """The first `count` problems of the stream with this seed."""
    return [problem for problem, _ in zip(stream(Random(seed), names, level, held), range(count), strict=False)]


# --- noise -------------------------------------------------------------------------------------------------


def worked_solution(problem: Problem, rng: Random, noise: float = 0.0) -> str:
    """The response that works inside out; each step is wrong in a plausible way with probability `noise`."""
    value, calls = parsed(problem.prompt)
    steps = []
    for call in calls:
        right = call.value(value)
        value = mistaken(call, value, right, rng) if rng.random() < noise else right
        steps.append(value)
    return solution(steps, calls)


def mistaken(call: Call, value: str, right: str, rng: Random) -> str:
    """A result that differs from the right one: a slip of one character, or a neighbouring function's result."""
    while True:
        wrong = _neighbour(call, rng).value(value) if rng.random() < 0.3 else _slip(right, rng)
        if wrong not in ("", right):
            return wrong


def _neighbour(call: Call, rng: Random) -> Call:
    kind = FUNCTIONS[call.name].argument
    return Call(rng.choice([name for name, entry in FUNCTIONS.items() if entry.argument == kind]), call.argument)


def _slip(text: str, rng: Random) -> str:
    if not text:
        return rng.choice(ascii_lowercase)
    at = rng.randrange(len(text))
    before, here, after = text[:at], text[at], text[at + 1 :]
    return rng.choice(
        (
            before + after,  # dropped
            before + here + here + after,  # doubled
            before + after[:1] + here + after[1:],  # swapped with the next one
            before + rng.choice(ascii_lowercase) + after,  # replaced
        )
    )


# --- the task ----------------------------------------------------------------------------------------------


def final_value(text: str) -> str:
    """What a response says in the end: the text after the last `=`, or all of it.

    >>> final_value("rot(ccaabb,2)=aabbcc")
    'aabbcc'
    """
    return text.rpartition("=")[2].strip()


@dataclass(frozen=True)
class Compose:
    """`size` training problems, the `levels` in equal shares; `count` held-out problems in each split."""

    levels: tuple[int, ...] = (1, 2)
    size: int = 1024
    seed: int = 0
    count: int = 48
    evaluated: tuple[int, ...] = (1, 2, 3, 4)

    name = "compose"
    optimum = 1.0
    elsewhere = ("unseen",)

    def __post_init__(self) -> None:
        wrong = [level for level in self.levels + self.evaluated if level not in LONGEST_RESPONSE]
        if wrong or not self.levels:
            raise Refused(f"compose has levels 1 to 6, so its levels cannot be {wrong or 'empty'}.")

    @property
    def focus(self) -> str:
        """The split of the deepest level that is trained."""
        return f"level{max(self.levels)}"

    @property
    def max_tokens(self) -> int:
        """Tokens that a response may have, the end token included."""
        return max(LONGEST_RESPONSE[level] for level in self.levels + self.evaluated)

    def train(self) -> list[Problem]:
        """The training problems, the levels in turn."""
        share = -(-self.size // len(self.levels))
        piles = [take(share, f"train {self.seed} {level}", TRAINED, level, held=False) for level in self.levels]
        return [problem for row in zip(*piles, strict=True) for problem in row][: self.size]

    def evaluation(self) -> dict[str, list[Problem]]:
        """`level1`, `level2`, … on training functions, and `unseen`: level 2 on held-out functions only."""
        seed = f"evaluation {EVALUATION_SEED}"
        levels = sorted({*self.evaluated, max(self.levels)})
        splits = {f"level{n}": take(self.count, f"{seed} {n}", TRAINED, n, held=True) for n in levels}
        return {**splits, "unseen": take(self.count, f"{seed} unseen", STRICTLY_HELD_OUT, 2, held=True)}

    def demonstrate(self, problem: Problem) -> str:
        """The worked solution, without a mistake."""
        start, calls = parsed(problem.prompt)
        return solution(values(start, calls), calls)

    def judge(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        """1 if the final value is exactly right, else 0."""
        right = (final_value(text) == problem.answer for problem, text in zip(problems, texts, strict=True))
        return [Verdict(float(ok), ok) for ok in right]

    def label(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[list[tuple[int, int, int]]]:
        """For each text its steps, by their characters: 1 where a step still has the answer's value, or -1."""
        return [_labelled(problem.answer, text) for problem, text in zip(problems, texts, strict=True)]


def _labelled(answer: str, text: str) -> list[tuple[int, int, int]]:
    found, begin = [], 0
    for step in text.split("="):
        found.append((begin, begin + len(step), 1 if _worth(step) == answer else -1))
        begin += len(step) + 1
    return found


def _worth(step: str) -> str | None:
    """The value of what a step writes; None where it is no expression.

    >>> _worth("rot(ccaabb,2)"), _worth("aabbcc "), _worth("rot(ccaabb,x)"), _worth("rep(a,99999)")
    ('aabbcc', 'aabbcc', None, None)
    """
    try:
        start, calls = parsed(step.strip())
        if any(not _written_well(call) for call in calls):
            return None
        return values(start, calls)[-1] if calls else start
    except (KeyError, StopIteration, TypeError):  # no such function; an argument is missing, or a number for a string
        return None


def _written_well(call: Call) -> bool:
    kind = FUNCTIONS[call.name].argument
    return call.argument in tuple(ARGUMENTS.get(kind, (call.argument,))) and bool(call.argument) == bool(kind)
