import random

import pytest

from whet.models import tiny
from whet.refusal import Refused
from whet.tasks import functions
from whet.tasks.code import CALLS, Code, alike, problem_of, source
from whet.tasks.functions import CHARACTERS, KINDS, NUMBERS, WORDS, Function


@pytest.fixture(scope="module")
def task():
    return Code(size=60, levels=(1, 2, 3), count=12)


@pytest.fixture(scope="module")
def everything(task):
    return [*task.train(), *(problem for split in task.evaluation().values() for problem in split)]


# --- what the words say, by hand ---------------------------------------------------------------------------


def made(kind, steps, end):
    chosen = []
    for words in steps:
        found = [(step, k) for step in kind.steps for k in step.k if step.with_k(k).words == words]
        chosen.append(found[0][0].with_k(found[0][1]))
    return Function(kind, tuple(chosen), next(row for row in kind.ends if row[0] == end))


@pytest.mark.parametrize(
    ("kind", "steps", "end", "given", "result"),
    [
        (NUMBERS, ["keep the even ones", "square each"], "their sum", [1, 2, 3, 4, -2], 24),
        (NUMBERS, ["keep those above 3", "add 2 to each"], "the list of them", [3, 4, 9], [6, 11]),
        (NUMBERS, ["replace each by its remainder modulo 3"], "the sorted list of them, each once", [4, 2, -1], [1, 2]),
        (NUMBERS, ["subtract each from 5"], "the smallest, or 0 if there is none", [1, 9], -4),
        (NUMBERS, ["keep the odd ones"], "the largest, or 0 if there is none", [2, 4], 0),
        (NUMBERS, ["negate each"], "the last one, or 0 if there is none", [1, 2], -2),
        (CHARACTERS, ["keep the vowels (aeiou)"], "how many are left", "banana", 3),
        (CHARACTERS, ["leave out every a", "double each"], "them joined to one string in reverse", "banana", "nnnnbb"),
        (CHARACTERS, ["keep those after m in the alphabet"], "how many different ones there are", "mnno", 2),
        (WORDS, ["keep those longer than 2 letters", "reverse each"], "them joined by spaces", "an old ox", "dlo"),
        (WORDS, ["drop the first letter of each"], "the sum of their lengths", "ab c def", 3),
        (WORDS, ["keep those without a"], "whether any is left, as True or False", "an ape", False),
    ],
)  # fmt: skip
def test_a_function_does_what_its_words_say(kind, steps, end, given, result):
    [found] = made(kind, steps, end).results([given])
    assert found == result
    assert type(found) is type(result)


# --- problems ----------------------------------------------------------------------------------------------


def test_every_demonstration_is_right_and_short_enough(task, everything):
    texts = [task.demonstrate(problem) for problem in everything]
    assert all(verdict.correct and verdict.score == 1.0 for verdict in task.judge(everything, texts))
    assert max(len(text) for text in texts) + 1 <= task.max_tokens  # even where each character is a token
    assert max(len(problem.prompt) for problem in everything) + task.max_tokens <= 512  # what the shipped base sees
    assert {char for text in texts for char in text} <= set(tiny.PRINTABLE)


def test_a_program_that_forgets_a_step_is_wrong(task):
    rng = random.Random(0)
    asked, texts = [], []
    while len(asked) < 60:
        function = functions.draw(rng, rng.randint(1, 3))
        problem = problem_of(function, 1)
        if problem is not None:
            for other in function.without_each_step():
                asked.append(problem)
                texts.append(other.body if other.steps else f"    xs = list({other.kind.over})\n{other.body}")
    assert not any(verdict.correct for verdict in task.judge(asked, texts))


def test_the_examples_are_right_and_are_none_of_the_tests(task, everything):
    for problem in everything:
        lines = problem.prompt.split("\n")
        shown = [
            (lines[i][10:-1], lines[i + 1].strip()) for i, line in enumerate(lines) if line.startswith("    >>> f(")
        ]
        assert len(shown) == 2
        assert len(problem.about["calls"]) == CALLS
        calls = [repr(call[0]) for call in problem.about["calls"]]
        assert not {given for given, _ in shown} & set(calls)
    echo = [f"    return {problem.prompt.split(chr(10))[4].strip()}" for problem in everything]
    assert sum(verdict.correct for verdict in task.judge(everything, echo)) == 0  # the first example's result, always


def test_the_same_seed_gives_the_same_problems_and_none_is_held_out(task, everything):
    assert task.train() == Code(size=60, levels=(1, 2, 3)).train()
    assert task.train() != Code(size=60, levels=(1, 2, 3), seed=1).train()
    held = {problem.id for split in task.evaluation().values() for problem in split}
    assert not held & {problem.id for seed in range(3) for problem in Code(size=60, seed=seed).train()}
    assert {problem.level for problem in task.train()} == {1, 2, 3}


def test_every_kind_of_function_is_drawn():
    rng = random.Random(1)
    assert {functions.draw(rng, 2).kind.things for _ in range(60)} == {kind.things for kind in KINDS}


def test_levels_that_there_are_not_are_refused():
    with pytest.raises(Refused, match="1, 2 or 3 steps"):
        Code(levels=(4,))


# --- responses ---------------------------------------------------------------------------------------------

PROMPT = 'def f(xs):\n    """Sum."""\n'


@pytest.mark.parametrize(
    "text",
    [
        "    return sum(xs)\n",
        "    return sum(xs)\n\nprint(f([1]))\ndef g(",
        "return sum(xs)",
        "\nreturn sum(xs)\n\nThis adds up all of the numbers.",
        "total = 0\nfor x in xs:\n    total += x\nreturn total",
        "def f(xs):\n    return sum(xs)",
        "from math import *\n\ndef f(xs):\n    return sum(xs)",
        "Here it is:\n```python\ndef f(xs):\n    return sum(xs)\n```\nIt uses sum.",
        "```\n    return sum(xs)\n```",
        "First a try:\n```python\nsum([1])\n```\nand so:\n```python\ndef f(xs):\n    return sum(xs)\n```",
        "```python\ndef f(xs):\n    return sum(xs)",
    ],
)
def test_a_response_may_be_the_rest_or_the_whole_function(task, text):
    problem = task.train()[0]
    about = {"calls": [[[1, 2]], [[]]], "expected": [3, 0]}
    mine = type(problem)(id="sum", prompt=PROMPT, answer="", about=about)
    assert task.judge([mine], [text])[0].correct, source(PROMPT, text)


@pytest.mark.parametrize(
    "text", ["", " ", "\n", "```", "```python\n```", "\x00", "\ud800", "é" * 5000, "(" * 5000, "    "]
)
def test_absurd_texts_are_wrong_and_not_unknown(task, text):
    assert task.judge(task.train()[:1], [text])[0].score == 0.0


@pytest.mark.parametrize(
    ("found", "expected"),
    [(True, 1), (1, True), ("1", 1), (None, 0), ([1], [1, 1]), ([[1]], [1]), ({"a": 1}, []), ("a", ["a"]), (1.5, 1)],
)
def test_values_that_only_look_alike_are_wrong(found, expected):
    assert not alike(found, expected)


def test_the_same_program_twice_in_a_batch_is_run_once(task, monkeypatch):
    ran = []
    run = type(task._sandboxes).run
    monkeypatch.setattr(
        type(task._sandboxes), "run", lambda boxes, programs: (ran.extend(programs), run(boxes, programs))[1]
    )
    problem = task.train()[0]
    assert len(task.judge([problem] * 5, [problem.answer] * 4 + ["    pass"])) == 5
    assert len(ran) == 2
