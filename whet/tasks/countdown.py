"""Countdown: reach a target with all of the given numbers, each exactly once, and + - * between them.

    prompt    14 from 2,3,4:
    response  (3+4)*2            many answers are right

The classic rule: every number is used. No division, so everything is an integer; values on the way may be
negative. Numbers are 1 to 9 and targets 1 to 99. The judge parses the expression exactly; `=14` after it is
allowed if it names the target.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from random import Random

from whet.refusal import Refused
from whet.tasks import Problem, Statements, Verdict
from whet.tasks.splits import held_out

HELD_OUT_SHARE = 0.2  # larger than elsewhere: there are only 165 sets of three numbers
EVALUATION_SEED = 20250929
LARGEST_TARGET = 99
LONGEST_TEXT = 64  # characters: a longer response is no expression of four numbers, and is not parsed

# An expression is a number, or (operator, left, right).
Tree = int | tuple[str, "Tree", "Tree"]


# --- reading an expression ---------------------------------------------------------------------------------


class NotAnExpression(ValueError):
    """The text is no expression of whole numbers with + - * and parentheses."""


def parse(text: str) -> Tree:
    """The tree of an expression.

    >>> parse("(3+4)*2")
    ('*', ('+', 3, 4), 2)
    """
    tokens = re.findall(r"[0-9]+|[^ ]", text)
    tree, rest = _sum(tokens if len(text) <= LONGEST_TEXT else [])
    if rest:
        raise NotAnExpression(f"nothing may follow the expression, and {rest[0]!r} does")
    return tree


def _sum(tokens: list[str]) -> tuple[Tree, list[str]]:
    left, tokens = _product(tokens)
    while tokens[:1] in (["+"], ["-"]):
        right, rest = _product(tokens[1:])
        left, tokens = (tokens[0], left, right), rest
    return left, tokens


def _product(tokens: list[str]) -> tuple[Tree, list[str]]:
    left, tokens = _factor(tokens)
    while tokens[:1] == ["*"]:
        right, tokens = _factor(tokens[1:])
        left = ("*", left, right)
    return left, tokens


def _factor(tokens: list[str]) -> tuple[Tree, list[str]]:
    if tokens[:1] == ["("]:
        inside, rest = _sum(tokens[1:])
        if rest[:1] != [")"]:
            raise NotAnExpression("a parenthesis is not closed")
        return inside, rest[1:]
    if not tokens or not re.fullmatch("[0-9]+", tokens[0]):
        raise NotAnExpression("a number is missing")
    return int(tokens[0]), tokens[1:]


def value(tree: Tree) -> int:
    """What an expression comes to.

    >>> value(parse("(3+4)*2"))
    14
    """
    if isinstance(tree, int):
        return tree
    operator, left, right = tree
    return _apply(operator, value(left), value(right))


def _apply(operator: str, left: int, right: int) -> int:
    if operator == "+":
        return left + right
    return left - right if operator == "-" else left * right


def numbers_in(tree: Tree) -> list[int]:
    """The numbers of an expression, in the order in which they are written."""
    return [tree] if isinstance(tree, int) else numbers_in(tree[1]) + numbers_in(tree[2])


# --- one way of writing it ---------------------------------------------------------------------------------


def canonical(tree: Tree) -> str:
    """The expression in one way of writing: + and * in sorted order, without needless parentheses.

    >>> canonical(parse("2*(4+3)")), canonical(parse("5-(2-1)")), canonical(parse("1+(5-2)"))
    ('(3+4)*2', '1+5-2', '1+5-2')
    """
    if isinstance(tree, int):
        return str(tree)
    if tree[0] == "*":
        return "*".join(sorted(_in_product(factor) for factor in _factors(tree)))
    plus, minus = (sorted(canonical(term) for sign, term in _terms(tree) if sign == want) for want in (1, -1))
    return "-".join(["+".join(plus), *minus])


def _in_product(tree: Tree) -> str:
    return canonical(tree) if isinstance(tree, int) else f"({canonical(tree)})"


def _factors(tree: Tree) -> list[Tree]:
    if isinstance(tree, int) or tree[0] != "*":
        return [tree]
    return _factors(tree[1]) + _factors(tree[2])


def _terms(tree: Tree, sign: int = 1) -> list[tuple[int, Tree]]:
    if isinstance(tree, int) or tree[0] == "*":
        return [(sign, tree)]
    return _terms(tree[1], sign) + _terms(tree[2], -sign if tree[0] == "-" else sign)


# --- solving -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def reachable(numbers: tuple[int, ...]) -> dict[int, frozenset[str]]:
    """Value → the canonical expressions of all `numbers` (sorted) that come to it; a few hundred for four.

    >>> reachable((2, 3))[6], sorted(reachable((2, 3)))
    (frozenset({'2*3'}), [-1, 1, 5, 6])
    """
    if len(numbers) == 1:
        return {numbers[0]: frozenset([str(numbers[0])])}
    found: dict[int, set[str]] = {}
    for left, right in _splits(numbers):
        for a, writings_a in reachable(left).items():
            for b, writings_b in reachable(right).items():
                for operator in "+-*":
                    writings = found.setdefault(_apply(operator, a, b), set())
                    writings |= {canonical((operator, parse(x), parse(y))) for x in writings_a for y in writings_b}
    return {result: frozenset(writings) for result, writings in found.items()}


def _splits(numbers: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    places = range(len(numbers))
    for size in range(1, len(numbers)):
        for chosen in combinations(places, size):
            yield (
                tuple(numbers[i] for i in chosen),
                tuple(numbers[i] for i in places if i not in chosen),
            )


def given(problem: Problem) -> tuple[int, tuple[int, ...]]:
    """The target and the numbers of a problem, the numbers sorted."""
    target, numbers = problem.prompt.removesuffix(":").split(" from ")
    return int(target), tuple(sorted(map(int, numbers.split(","))))


def solutions(problem: Problem) -> list[str]:
    """All right answers that differ in more than the way of writing, in canonical form."""
    target, numbers = given(problem)
    return sorted(reachable(numbers)[target])


# --- drawing problems --------------------------------------------------------------------------------------


def draw(rng: Random, how_many: int) -> Problem:
    """A problem made from a random expression, so it is solvable; its level is the number of operators."""
    while True:
        numbers = [rng.randint(1, 9) for _ in range(how_many)]
        tree = _random_tree(rng, numbers)
        if 1 <= value(tree) <= LARGEST_TARGET:
            rng.shuffle(numbers)
            prompt = f"{value(tree)} from {','.join(map(str, numbers))}:"
            return Problem(id=prompt, prompt=prompt, answer=canonical(tree), level=how_many - 1)


def _random_tree(rng: Random, numbers: list[int]) -> Tree:
    if len(numbers) == 1:
        return numbers[0]
    at = rng.randrange(1, len(numbers))
    return rng.choice("+-*"), _random_tree(rng, numbers[:at]), _random_tree(rng, numbers[at:])


def is_held_out(problem: Problem) -> bool:
    """Decided by the target and the set of numbers, so that another order of them is no new problem."""
    return held_out(str(given(problem)), HELD_OUT_SHARE)


def take(size: int, seed: str, how_many: int, held: bool) -> list[Problem]:
    """`size` different problems, all on one side of the split between training and held out."""
    rng = Random(seed)
    found: dict[object, Problem] = {}
    for _ in range(20 * size + 1000):
        if len(found) == size:
            break
        problem = draw(rng, how_many)
        if is_held_out(problem) == held:
            found.setdefault(given(problem), problem)
    else:
        raise Refused(f"there are hardly {size} countdown problems with {how_many} numbers: ask for fewer.")
    return list(found.values())


def worked_solution(problem: Problem, rng: Random, noise: float = 0.0) -> str:
    """The problem's own answer in some way of writing; with probability `noise` another expression of its numbers."""
    _, numbers = given(problem)
    guess = _random_tree(rng, rng.sample(numbers, len(numbers)))
    return _shuffled(guess if rng.random() < noise else parse(problem.answer), rng)


def _shuffled(tree: Tree, rng: Random) -> str:
    """The expression, the two sides of + and * in any order."""
    if isinstance(tree, int):
        return str(tree)
    operator, *sides = tree
    if operator != "-":
        rng.shuffle(sides)
    texts = [_shuffled(side, rng) for side in sides]
    return operator.join(
        f"({text})" if _needs_parentheses(operator, side, last) else text
        for last, (side, text) in enumerate(zip(sides, texts, strict=True))
    )


def _needs_parentheses(operator: str, side: Tree, last: int) -> bool:
    if isinstance(side, int) or side[0] == "*":
        return False
    return operator == "*" or (operator == "-" and bool(last))


# --- the task ----------------------------------------------------------------------------------------------


def mistake(problem: Problem, text: str) -> str:
    """Why the response is wrong, in a few words; "" if it is right."""
    target, numbers = given(problem)
    expression, equals, said = text.strip().partition("=")
    if equals and said.strip() != str(target):
        return "names another target"
    try:
        tree = parse(expression)
    except NotAnExpression as error:
        return str(error)
    if tuple(sorted(numbers_in(tree))) != numbers:
        return "does not use each number once"
    return "" if value(tree) == target else "misses the target"


def statements(problem: Problem, text: str) -> Statements:
    """Every number of the expression with its place: right while it is among the given ones, each once.

    >>> statements(Problem("p", "14 from 2,3,4:", "(3+4)*2"), "3+5*3=14")
    [(0, 1, 1), (2, 3, -1), (4, 5, -1)]
    """
    left, found = list(given(problem)[1]), []
    for match in re.finditer("[0-9]+", text.partition("=")[0]):
        there = int(match[0]) in left
        if there:
            left.remove(int(match[0]))
        found.append((match.start(), match.end(), 1 if there else -1))
    return found


@dataclass(frozen=True)
class Countdown:
    """`size` training problems with 3 and 4 numbers in equal shares; `count` held-out ones in each split."""

    numbers: tuple[int, ...] = (3, 4)
    size: int = 1024
    seed: int = 0
    count: int = 48

    name = "countdown"
    optimum = 1.0
    max_tokens = 24
    elsewhere = ()

    def __post_init__(self) -> None:
        if not self.numbers or not set(self.numbers) <= {2, 3, 4}:
            raise Refused(f"countdown has problems with 2, 3 or 4 numbers, so numbers cannot be {self.numbers}.")

    @property
    def focus(self) -> str:
        """The split with the most numbers."""
        return f"numbers{max(self.numbers)}"

    def train(self) -> list[Problem]:
        """The training problems, the sizes in turn."""
        share = -(-self.size // len(self.numbers))
        piles = [take(share, f"train {self.seed} {n}", n, held=False) for n in self.numbers]
        return [problem for row in zip(*piles, strict=True) for problem in row][: self.size]

    def evaluation(self) -> dict[str, list[Problem]]:
        """`numbers3` and `numbers4`, held out by target and set of numbers."""
        seed = f"evaluation {EVALUATION_SEED}"
        return {f"numbers{n}": take(self.count, f"{seed} {n}", n, held=True) for n in self.numbers}

    def demonstrate(self, problem: Problem) -> str:
        """One right answer."""
        return problem.answer

    def label(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Statements]:
        """The numbers of each expression, right where they are given."""
        return [statements(problem, text) for problem, text in zip(problems, texts, strict=True)]

    def judge(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        """1 if the expression is right, else 0 with the mistake as the reason."""
        mistakes = [mistake(problem, text) for problem, text in zip(problems, texts, strict=True)]
        return [Verdict(float(not wrong), not wrong, wrong) for wrong in mistakes]
