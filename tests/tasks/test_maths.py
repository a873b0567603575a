"""Published collections of mathematics and multiple choice, from files in their own layout."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from whet.refusal import Refused
from whet.tasks import answers, shelf

GSM8K = [{"question": f"{n} apples and {n} more?", "answer": f"Add: {n}+{n}=<<{n}+{n}={2 * n}>>.\n#### {2 * n},000"}
         for n in range(1, 9)]  # fmt: skip
MATH = [
    {"problem": f"Half of ${n}$?", "level": "Level 3", "type": "Algebra",
     "solution": f"It is $\\frac{{{n}}}{{2}}$, that is $\\boxed{{\\frac{{{n}}}{{2}}}}$."}
    for n in (1, 3, 5, 7)
]  # fmt: skip
AIME = [{"ID": f"2024-I-{n}", "Problem": f"Find {n}.", "Solution": "Look.", "Answer": n} for n in (33, 204, 25)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("maths")
    (place / "gsm8k" / "main").mkdir(parents=True)
    for split, rows in (("train", GSM8K[:6]), ("test", GSM8K[6:])):
        pq.write_table(pa.Table.from_pylist(rows), place / "gsm8k" / "main" / f"{split}-00000-of-00001.parquet")
    for split, rows in (("train", MATH[:3]), ("test", MATH[3:])):
        (place / "math" / split / "algebra").mkdir(parents=True)
        for number, row in enumerate(rows):
            (place / "math" / split / "algebra" / f"{number}.json").write_text(json.dumps(row))
    (place / "aime").mkdir()
    (place / "aime" / "aime_2024.jsonl").write_text("".join(json.dumps(row) + "\n" for row in AIME))
    return place


CASES = {
    "gsm8k": ("2,000", [("so \\boxed{2000}", 1), ("<think>3</think>2000", 1), ("<think>2000</think>7", 0)]),
    "math": ("\\frac{1}{2}", [("\\boxed{0.5}", 1), ("\\boxed{1/2}", 1), ("$\\frac{2}{4}$", 1), ("\\boxed{2}", 0)]),
    "aime": ("33", [("\\boxed{033}", 1), ("The answer is 33.", 1), ("34", 0), ("<think>33", 0)]),
}  # fmt: skip


@pytest.mark.parametrize("name", shelf.COLLECTIONS)
def test_a_collection_is_read_in_its_own_layout_and_judged_by_value(name, data):
    task = shelf.make(name, path=str(data / name))
    gold, cases = CASES[name]
    problem = task.problems[0]
    assert problem.answer == gold
    assert problem.prompt.endswith("\nPut your final answer within \\boxed{}.")
    assert task.max_tokens == 1024
    texts, scores = zip(*cases, strict=True)
    assert [v.score for v in task.judge([problem] * len(texts), texts)] == list(scores)
    held = task.evaluation()["held_out"]
    assert held
    assert not {p.id for p in held} & {p.id for p in task.train()}
    if name != "aime":
        assert len(task.train()) + len(held) == len(task.problems)
        assert len(held) == {"gsm8k": 2, "math": 1}[name]


def test_an_answer_that_cannot_be_read_is_unknown_and_one_that_hangs_is_too(data, tmp_path):
    rows = [{"prompt": "a", "answer": ""}, {"prompt": "b", "answer": "2"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = shelf.make(str(tmp_path / "x.jsonl"), judge="math")
    unread, slow = task.judge(task.problems, ["1", "$9^{9^{9^{9}}}$"])
    assert (unread.score, unread.reason) == (None, "judge returned None")
    assert slow.score in (None, 0.0)  # never a crash: sympy may refuse or run out of time


def test_a_collection_without_its_data_says_how_to_get_it(tmp_path):
    with pytest.raises(Refused, match=r"hf download openai/gsm8k .* --task\.path=gsm8k"):
        shelf.make("gsm8k")
    (tmp_path / "x.jsonl").write_text('{"frage": "1", "antwort": "2"}\n')
    with pytest.raises(Refused, match="not laid out as gsm8k: it has frage, antwort and not question and answer"):
        shelf.make("gsm8k", path=str(tmp_path / "x.jsonl"))
    (tmp_path / "y.jsonl").write_text('{"frage": "1", "antwort": "2"}\n{"frage": "2", "antwort": "4"}\n')
    named = shelf.make("gsm8k", path=str(tmp_path / "y.jsonl"), prompt="frage", answer="antwort")
    assert [p.answer for p in named.problems] == ["2", "4"]


def test_part_of_a_multiple_choice_earns_part(tmp_path):
    rows = [
        {"prompt": "primes?", "answer": ["A", "C"], "choices": ["2", "4", "5", "6"]},
        {"prompt": "even?", "answer": 1, "choices": ["3", "4"]},
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = shelf.make(str(tmp_path / "x.jsonl"), judge="choices")
    both, one = task.problems
    texts = ["<think>B?</think>A and C", "The answer is (A).", "\\boxed{A, B}", "D", "A, B, C, D"]
    assert [v.score for v in task.judge([both] * 5, texts)] == [1.0, 0.5, 0.0, 0.0, 0.0]
    assert [v.correct for v in task.judge([both] * 2, texts[:2])] == [True, False]
    assert [v.score for v in task.judge([one] * 2, ["Answer: B", "Answer: A"])] == [1.0, 0.0]
    assert answers.letters_of("5", rows[0]["choices"]) == {"C"}


def test_braces_are_counted():
    assert answers.boxed("\\boxed{1} or \\boxed{\\frac{a}{b^{2}}}") == "\\frac{a}{b^{2}}"
    assert answers.boxed("\\boxed{unclosed") is None
