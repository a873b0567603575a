"""Small functions over lists and strings, made of steps: what they should do in words, and one way to write them.

    Of the numbers in xs, keep the even ones, then square each. Return their sum.

        xs = [x for x in xs if x % 2 == 0]
        xs = [x * x for x in xs]
        return sum(xs)

A function has a kind of things that it takes (numbers, letters, words), one to three steps that keep some of them
or change each, and an end that makes the result. `{k}` in a step is a number that is drawn.
"""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

LOWEST, HIGHEST = -9, 20
LETTERS = "aabcdeefghiklmnoorstuw"


@dataclass(frozen=True)
class Step:
    """A step in words and as an expression of x; `keeps` is True where the expression says what stays.

    A step that is `late` makes something that others would be unclear about (what is the vowel in `aa`?).
    """

    words: str
    code: str
    keeps: bool
    k: tuple[int, ...] = (0,)
    late: bool = False

    def with_k(self, k: int) -> "Step":
        """The step with its number filled in."""
        return replace(self, words=self.words.format(k=k), code=self.code.format(k=k))

    def line(self, over: str) -> str:
        """The step as a line of Python that makes the list xs."""
        return f"xs = [x for x in {over} if {self.code}]" if self.keeps else f"xs = [{self.code} for x in {over}]"


@dataclass(frozen=True)
class Kind:
    """What a function takes: the name of its argument, its things in words and as an expression, steps and ends."""

    argument: str
    things: str
    over: str
    steps: tuple[Step, ...]
    ends: tuple[tuple[str, str], ...]


def _keep(words: str, code: str, *k: int) -> Step:
    return Step(words, code, True, k or (0,))


def _change(words: str, code: str, *k: int) -> Step:
    return Step(words, code, False, k or (0,))


def _late(words: str, code: str) -> Step:
    return Step(words, code, False, late=True)


COMMON_ENDS = (
    ("how many are left", "len(xs)"),
    ("the list of them", "xs"),
    ("the list of them in reverse", "xs[::-1]"),
    ("the sorted list of them", "sorted(xs)"),
    ("the sorted list of them, each once", "sorted(set(xs))"),
    ("how many different ones there are", "len(set(xs))"),
    ("whether any is left, as True or False", "len(xs) > 0"),
)

NUMBERS = Kind(
    "xs", "the numbers in xs", "xs",
    (
        _keep("keep the even ones", "x % 2 == 0"), _keep("keep the odd ones", "x % 2 == 1"),
        _keep("keep the positive ones", "x > 0"), _keep("keep the negative ones", "x < 0"),
        _keep("keep those above {k}", "x > {k}", *range(1, 10)),
        _keep("keep those below {k}", "x < {k}", *range(1, 10)),
        _keep("keep the multiples of {k}", "x % {k} == 0", 3, 4, 5),
        _keep("leave out every {k}", "x != {k}", *range(1, 7)),
        _change("square each", "x * x"), _change("double each", "2 * x"), _change("negate each", "-x"),
        _change("take the absolute value of each", "abs(x)"), _change("add {k} to each", "x + {k}", *range(1, 10)),
        _change("multiply each by {k}", "x * {k}", *range(3, 10)),
        _change("subtract each from {k}", "{k} - x", *range(1, 10)),
        _change("replace each by its remainder modulo {k}", "x % {k}", *range(3, 8)),
    ),
    (
        *COMMON_ENDS, ("their sum", "sum(xs)"), ("the largest, or 0 if there is none", "max(xs, default=0)"),
        ("the smallest, or 0 if there is none", "min(xs, default=0)"),
        ("the last one, or 0 if there is none", "xs[-1] if xs else 0"),
    ),
)  # fmt: skip
CHARACTERS = Kind(
    "s", "the letters in s", "s",
    (
        _keep("keep the vowels (aeiou)", "x in 'aeiou'"),
        _keep("keep those that are no vowel (aeiou)", "x not in 'aeiou'"),
        *(_keep(f"leave out every {c}", f"x != '{c}'") for c in "aeiost"),
        *(_keep(f"keep those after {c} in the alphabet", f"x > '{c}'") for c in "cehlmr"),
        _late("double each", "x * 2"), _late("put a dash after each", "x + '-'"),
        _late("make each upper case", "x.upper()"),
        *(_change(f"replace every {a} by {b}", f"'{b}' if x == '{a}' else x")
          for a, b in ("ae", "oi", "st", "ls", "ei")),
    ),
    (
        *COMMON_ENDS, ("them joined to one string", "''.join(xs)"),
        ("them joined to one string in reverse", "''.join(xs[::-1])"),
    ),
)  # fmt: skip
WORDS = Kind(
    "s", "the words in s, which have spaces between them", "s.split()",
    (
        _keep("keep those longer than {k} letters", "len(x) > {k}", 1, 2, 3, 4),
        _keep("keep those of at most {k} letters", "len(x) <= {k}", 2, 3, 4),
        _keep("keep those of an even length", "len(x) % 2 == 0"),
        *(_keep(f"keep those that contain {c}", f"'{c}' in x") for c in "aeiost"),
        *(_keep(f"keep those without {c}", f"'{c}' not in x") for c in "aeiost"),
        _change("reverse each", "x[::-1]"), _late("make each upper case", "x.upper()"),
        _change("cut each to its first {k} letters", "x[:{k}]", 1, 2, 3),
        _change("drop the first letter of each", "x[1:]"),
        _change("double each", "x + x"), _change("sort the letters of each", "''.join(sorted(x))"),
    ),
    (
        *COMMON_ENDS, ("them joined by spaces", "' '.join(xs)"), ("them joined by dashes", "'-'.join(xs)"),
        ("the sum of their lengths", "sum(len(x) for x in xs)"),
        ("the length of the longest, or 0 if there is none", "max((len(x) for x in xs), default=0)"),
    ),
)  # fmt: skip
KINDS = (NUMBERS, CHARACTERS, WORDS)


@dataclass(frozen=True)
class Function:
    """A function f by its kind, its steps and its end."""

    kind: Kind
    steps: tuple[Step, ...]
    end: tuple[str, str]

    @property
    def words(self) -> str:
        """What it should do, in two sentences."""
        return f"Of {self.kind.things}, {', then '.join(step.words for step in self.steps)}. Return {self.end[0]}."

    @property
    def body(self) -> str:
        """One way to write it: the lines after its head, indented."""
        over = [self.kind.over, *["xs"] * len(self.steps)]
        lines = [step.line(name) for step, name in zip(self.steps, over, strict=False)]
        return "".join(f"    {line}\n" for line in [*lines, f"return {self.end[1]}"])

    @property
    def head(self) -> str:
        """The line that begins it."""
        return f"def f({self.kind.argument}):\n"

    def results(self, arguments: list[Any]) -> list[Any]:
        """What it returns for each argument. It runs this module's own text and no other."""
        space: dict[str, Any] = {}
        exec(self.head + (self.body if self.steps else f"    xs = list({self.kind.over})\n{self.body}"), space)
        return [space["f"](argument) for argument in arguments]

    def without_each_step(self) -> list["Function"]:
        """The functions that forget one step."""
        return [Function(self.kind, self.steps[:i] + self.steps[i + 1 :], self.end) for i in range(len(self.steps))]


def draw(rng: Random, level: int) -> Function:
    """A function of `level` steps, no two of them alike."""
    kind = rng.choice(KINDS)
    steps = [step.with_k(rng.choice(step.k)) for step in rng.sample(kind.steps, level)]
    return Function(kind, tuple(sorted(steps, key=lambda step: step.late)), rng.choice(kind.ends))


def argument(rng: Random, kind: Kind) -> Any:
    """Something that a function of this kind can be called with; empty one time in twelve."""
    size = rng.randrange(1, 9) if rng.random() < 11 / 12 else 0
    if kind is NUMBERS:
        return [rng.randint(LOWEST, HIGHEST) for _ in range(size)]
    if kind is CHARACTERS:
        return "".join(rng.choice(LETTERS) for _ in range(size))
    return " ".join("".join(rng.choice(LETTERS) for _ in range(rng.randint(1, 6))) for _ in range(size))
