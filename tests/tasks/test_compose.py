import random

import pytest

from whet.refusal import Refused
from whet.tasks import compose
from whet.tasks.compose import Call, Compose, final_value, parsed, take, values, worked_solution
from whet.tasks.splits import held_out
from whet.tasks.strings import FUNCTIONS, HELD_OUT, STRICTLY_HELD_OUT, TRAINED, TWINS

EVERY_LEVEL = (1, 2, 3, 4, 5, 6)

# The card's test vector: every function on "banana", in the paper's order.
CARD = [
    ("mix", (), "banana"),
    ("rep", ("2",), "bananabanana"),
    ("nov", (), "bnn"),
    ("srt", (), "aaabnn"),
    ("wds", (), "banana"),
    ("pre", ("xy",), "xybanana"),
    ("suf", ("zz",), "bananazz"),
    ("lac", ("QRS",), "bQaRnSana"),
    ("rol", ("2",), "nanaba"),
    ("mir", (), "bananaananab"),
    ("alt", (), "bAnAnA"),
    ("inc", ("3",), "edqdqd"),
    ("num", (), "b1n1n1"),
    ("sep", ("-",), "b-a-n-a-n-a"),
    ("dup", (), "bbaannaannaa"),
    ("box", (), "<b><a><n><a><n><a>"),
    ("sqz", (), "banana"),
    ("rev", (), "ananab"),
    ("cat", ("3",), "bananabananabanana"),
    ("rot", ("2",), "nanaba"),
    ("zip", ("QRS",), "bQaRnSana"),
    ("let", (), "banana"),
    ("evn", (), "banana"),
    ("dig", ("2",), "banana1"),
    ("pal", ("2",), "bananaananab"),
]


@pytest.fixture(scope="module")
def task():
    return Compose(evaluated=EVERY_LEVEL, count=24)


@pytest.fixture(scope="module")
def splits(task):
    return task.evaluation()


@pytest.mark.parametrize(("name", "arguments", "value"), CARD, ids=[row[0] for row in CARD])
def test_every_function_gives_the_value_of_the_card(name, arguments, value):
    assert FUNCTIONS[name]("banana", *arguments) == value


def test_the_functions_stand_in_the_order_of_the_card():
    assert list(FUNCTIONS) == [name for name, _, _ in CARD]


@pytest.mark.parametrize(
    ("start", "calls", "value"),
    [
        ("abcdefghi", [Call("mix")], "afbgchdie"),
        ("abc", [Call("mix")], "acb"),
        ("abz", [Call("inc", "2"), Call("mir")], "cdbbdc"),
        ("banana", [Call("srt"), Call("rot", "1"), Call("sep", "_")], "a_a_b_n_n_a"),
    ],
)
def test_the_extra_vectors_of_the_card(start, calls, value):
    assert values(start, calls)[-1] == value


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_function_raises_on_an_empty_string(name):
    argument = {"": (), "string": ("ab",), "mark": ("-",)}.get(FUNCTIONS[name].argument, ("2",))
    assert isinstance(FUNCTIONS[name]("", *argument), str)


def test_13_functions_are_composed_in_training_and_12_are_not():
    assert len(TRAINED) == 13
    assert len(HELD_OUT) == 12


def test_the_three_twins_equal_a_trained_function_and_no_strictly_held_out_function_does():
    rng = random.Random(0)
    starts = ["".join(rng.choice("aeb1c- ") for _ in range(rng.randint(0, 6))) for _ in range(300)]

    def table(name, argument):
        return [FUNCTIONS[name](start, *argument) for start in starts]

    for name in HELD_OUT:
        argument = {"": (), "string": ("qr",), "mark": ("-",)}.get(FUNCTIONS[name].argument, ("3",))
        kind = FUNCTIONS[name].argument
        equal = [t for t in TRAINED if FUNCTIONS[t].argument == kind and table(t, argument) == table(name, argument)]
        assert equal == ([TWINS[name]] if name in TWINS else [])
    assert set(STRICTLY_HELD_OUT) == set(HELD_OUT) - set(TWINS)


def test_the_same_seed_gives_the_same_problems_and_another_seed_others():
    assert Compose(size=50).train() == Compose(size=50).train()
    assert Compose(size=50).train() != Compose(size=50, seed=1).train()


def test_evaluation_is_the_same_for_every_seed():
    assert Compose(count=8).evaluation() == Compose(seed=5, count=8).evaluation()


def test_no_held_out_problem_is_in_any_training_pool(splits):
    held = {problem.id for problems in splits.values() for problem in problems}
    for seed in range(3):
        for problem in Compose(levels=(1, 2, 3), size=600, seed=seed).train():
            assert problem.id not in held
            assert not held_out(problem.id, compose.HELD_OUT_SHARE)


def test_the_splits_hold_what_their_names_say(splits):
    assert list(splits) == [*(f"level{n}" for n in EVERY_LEVEL), "unseen"]
    for split, problems in splits.items():
        allowed, depth = (STRICTLY_HELD_OUT, 2) if split == "unseen" else (TRAINED, int(split[5:]))
        assert len({problem.id for problem in problems}) == 24
        for problem in problems:
            calls = parsed(problem.prompt)[1]
            assert len(calls) == problem.level == depth
            assert {call.name for call in calls} <= set(allowed)


def test_training_has_the_levels_in_equal_shares_and_only_trained_functions():
    problems = Compose(levels=(1, 2), size=101).train()
    assert len(problems) == 101
    assert [problem.level for problem in problems[:4]] == [1, 2, 1, 2]
    assert {call.name for problem in problems for call in parsed(problem.prompt)[1]} == set(TRAINED)


def test_a_worked_solution_without_noise_is_right_and_within_bounds(task, splits):
    rng = random.Random(0)
    for problems in splits.values():
        texts = [worked_solution(problem, rng) for problem in problems]
        assert all(verdict.correct for verdict in task.judge(problems, texts))
        assert texts == [task.demonstrate(problem) for problem in problems]
        for problem, text in zip(problems, texts, strict=True):
            assert len(text) + 1 <= compose.LONGEST_RESPONSE[problem.level] <= task.max_tokens


def test_levels_1_to_3_need_at_most_60_tokens():
    assert max(compose.LONGEST_RESPONSE[level] for level in (1, 2, 3)) <= 60


def test_noise_1_is_wrong_in_the_first_step(splits):
    rng = random.Random(0)
    for problem in splits["level1"]:
        assert final_value(worked_solution(problem, rng, noise=1.0)) != problem.answer


def test_noise_ends_even_where_values_become_strange(splits):
    rng = random.Random(0)
    for problem in splits["level6"]:
        for _ in range(20):
            assert worked_solution(problem, rng, noise=0.7)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("rot(ccaabb,2)=aabbcc", True),
        ("aabbcc", True),
        (" aabbcc ", True),
        ("rot(nonsense,2)=aabbcc", True),  # only the final value counts
        ("=aabbcc", True),
        ("rot(ccaabb,2)=aabbc", False),
        ("rot(ccaabb,2)=aabbcc=", False),
        ("AABBCC", False),
        ("", False),
        ("=" * 500, False),
        ("\x00\ud800 (((" * 99, False),
    ],
)
def test_the_judge_looks_at_the_final_value_only(text, right):
    problem = compose.Problem(id="x", prompt="rot(dup(cab),2)=", answer="aabbcc", level=2)
    [verdict] = Compose().judge([problem], [text])
    assert (verdict.score, verdict.correct, verdict.reason) == (float(right), right, "")


def test_prompts_are_read_back_as_they_were_written(splits):
    for problem in splits["level4"]:
        start, calls = parsed(problem.prompt)
        assert compose.written(start, calls) + "=" == problem.prompt
        assert values(start, calls)[-1] == problem.answer


def test_every_character_has_a_token(splits):
    text = "".join(problem.prompt + problem.answer for problems in splits.values() for problem in problems)
    assert all(32 <= ord(character) < 127 for character in text)


def test_a_level_that_does_not_exist_is_refused():
    with pytest.raises(Refused, match="levels 1 to 6"):
        Compose(levels=(7,))


def test_the_focus_is_the_deepest_level_that_is_trained():
    assert Compose(levels=(1, 2)).focus == "level2"
    assert Compose(levels=(5,), count=2).focus in Compose(levels=(5,), count=2).evaluation()


def test_take_draws_different_problems():
    assert len({problem.id for problem in take(200, "a", TRAINED, 1, held=False)}) == 200


def test_steps_are_labelled_by_whether_they_still_lead_to_the_answer():
    task = compose.Compose()
    problem = compose.Problem(id="p", prompt="rot(dup(cab),2)=", answer="aabbcc", level=2)
    assert task.label([problem], ["rot(ccaabb,2)=aabbcc"]) == [[(0, 13, 1), (14, 20, 1)]]
    assert task.label([problem], ["rot(ccaab,2)=aabbcc"]) == [[(0, 12, -1), (13, 19, 1)]]
    for problem in task.train()[:50]:
        assert all(value == 1 for _, _, value in task.label([problem], [task.demonstrate(problem)])[0])


@pytest.mark.parametrize(
    "text", ["", "=", "rot(", "rot(a,99999999999)", "rep(a,9)=a", "zzz(a)", "rot(a)", "((((", "sep(a,,)", "pre(a,5)"]
)
def test_any_text_has_labels(text):
    task = compose.Compose()
    [rows] = task.label([task.train()[0]], [text])
    assert all(value in (1, -1) for _, _, value in rows)
