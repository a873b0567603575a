import random
from itertools import permutations, product

import pytest

from whet.refusal import Refused
from whet.tasks import Problem, countdown
from whet.tasks.countdown import Countdown, canonical, given, parse, solutions, value, worked_solution

PROBLEM = Problem(id="x", prompt="14 from 2,3,4:", answer="(3+4)*2")


def score(text, problem=PROBLEM):
    [verdict] = Countdown().judge([problem], [text])
    assert verdict.score == float(verdict.correct)
    return verdict.correct


@pytest.mark.parametrize("text", ["(3+4)*2", "2*(4+3)", "2*( 3+4 )", "(3+4)*2=14", "((3+4))*(2) = 14"])
def test_right_answers(text):
    assert score(text)


@pytest.mark.parametrize(
    "text",
    [
        "3+4*2",  # 11
        "(3+4)*2=15",  # names another target
        "14",
        "7*2",  # not the given numbers
        "3+4+4+3",  # used twice
        "(3+4)*2*1",
        "(3+4)*",
        "(3+4*2",
        "(3+4)2",
        "-2*(3+4)",
        "28/2",
        "2**3",
        "__import__('os')",
        "(3+4)*2;1",
        "٣+4",
        "",
        "=14",
        "=",
        "(" * 5000,
        "9" * 5000,
        "\x00\ud800",
    ],
)
def test_wrong_answers_and_absurd_texts(text):
    assert not score(text)


def test_products_bind_stronger_and_minus_is_read_from_the_left():
    assert value(parse("2+3*4")) == 14
    assert value(parse("9-3-2")) == 4
    assert value(parse("9-(3-2)")) == 8


@pytest.mark.parametrize(
    ("one", "other"), [("2*(4+3)", "(3+4)*2"), ("5-(2-1)", "1+5-2"), ("1+(2+3)", "(3+1)+2"), ("2*(3*4)", "4*2*3")]
)
def test_the_same_answer_written_differently_is_one_answer(one, other):
    assert canonical(parse(one)) == canonical(parse(other))


def test_different_answers_stay_different():
    assert canonical(parse("2*3+4")) != canonical(parse("2*(3+4)"))


def test_the_canonical_form_has_the_same_value_and_numbers():
    rng = random.Random(0)
    for _ in range(200):
        tree = parse(worked_solution(countdown.draw(rng, 4), rng))
        again = parse(canonical(tree))
        assert value(again) == value(tree)
        assert sorted(countdown.numbers_in(again)) == sorted(countdown.numbers_in(tree))


def test_solutions_are_all_there_are():
    """Against every way to write three numbers with two operators and at most one pair of parentheses."""
    for problem in Countdown(numbers=(3,), count=12).evaluation()["numbers3"]:
        target, numbers = given(problem)
        found = set()
        for a, b, c in permutations(numbers):
            for p, q in product("+-*", repeat=2):
                for text in (f"({a}{p}{b}){q}{c}", f"{a}{p}({b}{q}{c})"):
                    tree = parse(text)
                    if value(tree) == target:
                        found.add(canonical(tree))
        assert solutions(problem) == sorted(found)


def test_all_problems_are_solvable_and_many_have_several_answers():
    problems = [problem for split in Countdown(count=12).evaluation().values() for problem in split]
    for problem in problems:
        assert problem.answer in solutions(problem)
        assert all(score(text, problem) for text in solutions(problem))
    assert sum(len(solutions(problem)) > 1 for problem in problems) > len(problems) / 4


def test_worked_solutions_are_right_and_short_and_noisy_ones_are_well_formed():
    rng = random.Random(0)
    task = Countdown()
    for problem in task.train()[:200]:
        text = worked_solution(problem, rng)
        assert score(text, problem)
        assert score(task.demonstrate(problem), problem)
        assert len(text) + 1 <= task.max_tokens
        assert sorted(countdown.numbers_in(parse(worked_solution(problem, rng, noise=1.0)))) == [*given(problem)[1]]


def test_the_same_seed_gives_the_same_problems_and_none_is_held_out():
    train, splits = Countdown(size=300).train(), Countdown().evaluation()
    assert train == Countdown(size=300).train()
    assert train != Countdown(size=300, seed=1).train()
    held = {given(problem) for split in splits.values() for problem in split}
    assert not held & {given(problem) for seed in range(3) for problem in Countdown(seed=seed).train()}


def test_numbers_that_there_are_not_are_refused():
    with pytest.raises(Refused, match="2, 3 or 4"):
        Countdown(numbers=(7,))


def test_more_problems_than_there_are_is_refused():
    with pytest.raises(Refused, match="ask for fewer"):
        Countdown(numbers=(2,), size=1000).train()
