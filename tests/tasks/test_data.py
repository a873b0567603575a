import json
import subprocess
import sys
import time

import pytest

from whet.refusal import Refused
from whet.tasks.data import Data

ROWS = [{"prompt": f"{n} plus 1?", "answer": str(n + 1), "kind": "sum", "weight": n} for n in range(20)]

JUDGES = """
import os
import time

def wired(weight, response, answer, prompt): return weight / 100 if response == answer and prompt else 0
def no_answer(response): return len(response)
def optional(response, kind="none", absent="default"): return kind == "sum" and absent == "default"
def anything(response, **row): return row["weight"] == 3
def asks_for_more(response, colour): return 1

def misbehaves(response):
    if response == "raises": raise KeyError("private")
    if response == "exits": raise SystemExit
    if response == "nan": return float("nan")
    if response == "inf": return float("inf")
    if response == "text": return "1"
    if response == "none": return None
    if response == "hangs": time.sleep(60)
    if response == "dies": os._exit(1)
    return True
"""


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("problems") / "sums.jsonl", ROWS)


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    path = tmp_path_factory.mktemp("judges") / "judges.py"
    path.write_text(JUDGES)
    return path


# --- problems ----------------------------------------------------------------------------------------------


def test_the_columns_become_problems_and_the_rest_is_kept(file):
    task = Data(file)
    problem = next(p for p in task.problems if p.prompt == "3 plus 1?")
    assert problem.answer == "4"
    assert problem.about["kind"] == "sum"
    assert problem.about["weight"] == 3
    assert task.name == "sums"
    assert task.max_tokens == 256


def test_the_split_is_disjoint_stable_and_keeps_everything(file, tmp_path):
    task = Data(file, held_out=0.3)
    train, held = task.train(), task.evaluation()["held_out"]
    assert not {p.prompt for p in train} & {p.prompt for p in held}
    assert len(train) + len(held) == len(ROWS)
    assert len({p.id for p in train + held}) == len(ROWS)
    longer = Data(write(tmp_path / "more.jsonl", [{"prompt": "new", "answer": "1"}, *ROWS]), held_out=0.3)
    assert {p.id for p in held} <= {p.id for p in longer.evaluation()["held_out"]}


def test_at_least_one_problem_is_held_out_and_one_is_not(tmp_path):
    path = write(tmp_path / "two.jsonl", ROWS[:2])
    for share in (0.0, 0.01, 0.99):
        task = Data(path, held_out=share)
        assert len(task.train()) == len(task.evaluation()["held_out"]) == 1


def test_a_prompt_met_again_has_its_own_id_on_the_same_side(tmp_path):
    task = Data(write(tmp_path / "again.jsonl", [*ROWS, *ROWS]), held_out=0.3)
    assert len({p.id for p in task.problems}) == 40
    assert not {p.prompt for p in task.train()} & {p.prompt for p in task.evaluation()["held_out"]}


def test_columns_may_have_other_names_and_answers_may_be_numbers(tmp_path):
    path = write(tmp_path / "q.jsonl", [{"question": f"q{n}", "gold": n} for n in range(5)])
    task = Data(path, prompt="question", answer="gold")
    assert [p.answer for p in task.problems] == list("01234")


def test_without_a_judge_the_answer_must_match_spaces_around_it_aside(file):
    task = Data(file)
    texts = [" 1\n", "1.0", "", "one"]
    assert [v.score for v in task.judge([task.problems[0]] * 4, texts)] == [1.0, 0.0, 0.0, 0.0]


# --- sentences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("\n  \n", "is empty"),
        ('{"prompt": "a", "answer": "b"}\n\n{oops}\n', "line 3 of .* is not JSON"),
        ('{"prompt": "a", "answer": "b"}\n[1]\n', "line 2 of .* is a list"),
        (
            '{"prompt": "a", "answer": "b"}\n{"prompt": "a", "result": "b"}\n',
            "line 2 .* 'answer'; it has: prompt, result",
        ),
        ('{"question": "a", "answer": "b"}\n', "line 1 .* 'prompt'; it has: question, answer"),
        ('{"prompt": 3, "answer": "b"}\n', "line 1 .* no text"),
        ('{"prompt": "a", "answer": "b"}\n', "one prompt only"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(Refused, match=sentence) as refused:
        Data(str(path))
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_answered_with_the_nearest(file):
    with pytest.raises(Refused, match=r"the nearest in that folder is sums\.jsonl"):
        Data(file.replace("sums", "sum"))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Refused, match="UTF-8"):
        Data(str(tmp_path / "x.jsonl"))


def test_a_share_that_is_none_is_refused(file):
    with pytest.raises(Refused, match="held_out"):
        Data(file, held_out=1.5)


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("judges.py:wird", "the nearest is 'wired'"),
        ("nowhere.py:wired", "there is no judge file"),
        ("judges.py", "must be written"),
        ("judges.py:asks_for_more", "asks for 'colour', and line 1 .* it can ask for: .*kind"),
    ],
)
def test_a_judge_that_cannot_be_used_is_refused_in_one_sentence(file, judges, named, sentence):
    with pytest.raises(Refused, match=sentence) as refused:
        Data(file, judge_by=str(judges.parent / named))
    assert "\n" not in str(refused.value)


# --- judges ------------------------------------------------------------------------------------------------


def verdicts(file, judges, function, texts, **options):
    task = Data(file, judge_by=f"{judges}:{function}", **options)
    return task.judge([task.problems[3]] * len(texts), texts)


def test_a_judge_is_wired_by_the_names_of_its_parameters(file, judges):
    assert [v.score for v in verdicts(file, judges, "wired", ["4", "5"])] == [0.03, 0.0]


def test_parameters_with_a_default_get_the_column_if_there_is_one(file, judges):
    assert verdicts(file, judges, "optional", ["x"])[0].score == 1.0


def test_open_arguments_get_every_column(file, judges):
    assert verdicts(file, judges, "anything", ["x"])[0].score == 1.0


def test_a_file_without_answers_is_fine_for_a_judge_that_needs_none(judges, tmp_path):
    path = write(tmp_path / "open.jsonl", [{"prompt": "say"}, {"prompt": "more"}])
    task = Data(path, judge_by=f"{judges}:no_answer")
    [verdict] = task.judge(task.problems[:1], ["abc"])
    assert (verdict.score, verdict.correct) == (3.0, True)


def test_the_bound_for_correct_can_be_moved(file, judges):
    assert not verdicts(file, judges, "no_answer", ["abc"], correct_from=4.0)[0].correct


def test_whatever_a_judge_does_only_its_own_response_is_unknown(file, judges):
    texts = ["fine", "raises", "exits", "nan", "inf", "text", "none", "hangs", "dies", "fine"]
    found = verdicts(file, judges, "misbehaves", texts, judge_seconds=0.5)
    assert [v.reason for v in found] == [
        "",
        "judge raised KeyError",
        "judge raised SystemExit",
        "judge returned nan",
        "judge returned inf",
        "judge returned str, not a number",
        "judge returned None",
        "judge took over 0.5 s",
        "judge process ended with status 1",
        "",
    ]
    assert [v.score for v in found] == [1.0, *[None] * 8, 1.0]
    assert [v.correct for v in found] == [True, *[False] * 8, True]


def test_a_fast_judge_costs_less_than_a_millisecond_a_response(file, judges):
    task = Data(file, judge_by=f"{judges}:no_answer")
    problems, texts = [task.problems[0]] * 3000, ["x"] * 3000
    task.judge(problems[:200], texts[:200])  # the workers have started
    started = time.perf_counter()
    task.judge(problems, texts)
    assert time.perf_counter() - started < 3.0


def test_a_script_without_a_main_guard_can_judge(file, judges, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "from whet.tasks.data import Data\n"
        f"task = Data({file!r}, judge_by={str(judges) + ':no_answer'!r})\n"
        "print(task.judge(task.problems[:1], ['abcd'])[0].score)\n"
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "4.0\n", ran.stderr


def test_a_worker_imports_nothing_heavy():
    code = "import whet.tasks.worker, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"
