import json
import subprocess
import sys

import pytest

from whet.refusal import Refused
from whet.tasks import shelf


@pytest.mark.parametrize("name", shelf.NAMES)
def test_a_name_makes_a_task_with_everything_a_task_has(name):
    task = shelf.make(name)
    splits = task.evaluation()
    assert task.name == name
    assert task.focus in splits
    assert set(task.elsewhere) <= set(splits)
    assert task.optimum == 1.0
    held = {problem.id for problems in splits.values() for problem in problems}
    train = task.train()
    assert len({problem.id for problem in train}) == len(train)
    assert not held & {problem.id for problem in train}


def test_a_path_makes_a_task_of_the_users_problems(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"prompt": str(n), "answer": "x"}) + "\n" for n in range(4)))
    assert shelf.make(str(path), max_tokens=7).max_tokens == 7


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(Refused, match="the nearest is 'countdown'"):
        shelf.make("contdown")


def test_an_unknown_option_is_answered_with_those_there_are():
    with pytest.raises(Refused, match=r"no option 'level'.*levels"):
        shelf.make("compose", level=3)


def test_a_judge_for_a_task_with_its_own_is_refused():
    with pytest.raises(Refused, match="exact judge"):
        shelf.make("digits", judge="my.py:score")


def test_the_shelf_is_cheap_to_open():
    code = "import whet.tasks.shelf, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
