import pytest

from whet.tasks.digits import Digits


def test_training_and_held_out_problems_share_no_prompt_but_every_digit():
    train, [held] = Digits().train(), Digits().evaluation().values()
    assert (len(train), len(held)) == (60, 20)
    assert not {problem.prompt for problem in train} & {problem.prompt for problem in held}
    assert {problem.answer for problem in train} == {problem.answer for problem in held} == set("0123456789")


@pytest.mark.parametrize(
    ("text", "right"),
    [("4", True), ("x4", True), ("45", True), ("54", False), ("", False), ("xyz", False), ("٤", False)],
)
def test_the_first_digit_decides(text, right):
    problem = next(problem for problem in Digits().train() if problem.prompt == "a3")
    assert Digits().judge([problem], [text])[0].correct == right


def test_after_9_comes_0():
    assert next(problem for problem in Digits().train() if problem.prompt == "b9").answer == "0"


def test_every_demonstration_is_right():
    task = Digits()
    texts = [task.demonstrate(problem) for problem in task.train()]
    assert all(verdict.correct for verdict in task.judge(task.train(), texts))
    assert all(len(text) + 1 <= task.max_tokens for text in texts)
