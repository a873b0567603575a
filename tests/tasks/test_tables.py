"""The same problems from every kind of file and directory that people keep them in."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from whet.refusal import Refused
from whet.tasks import tables
from whet.tasks.data import Data

ROWS = [{"question": f"{n} plus 1?", "gold": str(n + 1), "level": n} for n in range(12)]


def as_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def as_arrow(path, rows):
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


WRITERS = {
    ".jsonl": lambda path, rows: path.write_text("".join(json.dumps(row) + "\n" for row in rows)),
    ".json": lambda path, rows: path.write_text(json.dumps(rows)),
    ".csv": as_csv,
    ".parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
    ".arrow": as_arrow,
}


@pytest.mark.parametrize("ending", WRITERS)
def test_every_kind_of_file_gives_the_same_problems(ending, tmp_path):
    path = tmp_path / f"sums{ending}"
    WRITERS[ending](path, ROWS)
    task = Data(str(path), prompt="question", answer="gold", held_out=0.3)
    assert [(p.prompt, p.answer) for p in task.problems] == [(row["question"], row["gold"]) for row in ROWS]
    assert [int(p.about["level"]) for p in task.problems] == list(range(12))
    plain = tmp_path / "plain.jsonl"
    WRITERS[".jsonl"](plain, ROWS)
    same = Data(str(plain), prompt="question", answer="gold", held_out=0.3)
    assert {p.id for p in task.evaluation()["held_out"]} == {p.id for p in same.evaluation()["held_out"]}


def test_a_directory_that_datasets_saved_keeps_its_splits(tmp_path):
    """The layout of `DatasetDict.save_to_disk`, as datasets 5.2 writes it."""
    for split, rows in (("train", ROWS[:8]), ("test", ROWS[6:])):
        (tmp_path / "sums" / split).mkdir(parents=True)
        as_arrow(tmp_path / "sums" / split / "data-00000-of-00001.arrow", rows)
        (tmp_path / "sums" / split / "state.json").write_text('{"_split": "train"}')
        (tmp_path / "sums" / split / "dataset_info.json").write_text('{"features": {}}')
    (tmp_path / "sums" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    task = Data(str(tmp_path / "sums"), prompt="question", answer="gold")
    assert [p.answer for p in task.train()] == [row["gold"] for row in ROWS[:8]]
    assert [p.answer for p in task.evaluation()["held_out"]] == [row["gold"] for row in ROWS[8:]]
    assert task.notices == [
        "2 of the 14 problems repeat an earlier prompt.",
        "2 problems of the test split are in the train split too, and are not evaluated.",
    ]


def test_a_repository_from_the_hub_keeps_its_splits(tmp_path):
    (tmp_path / "main").mkdir()
    for name, rows in (("train-00000-of-00002", ROWS[:4]), ("train-00001-of-00002", ROWS[4:8]), ("test-0", ROWS[8:])):
        WRITERS[".parquet"](tmp_path / "main" / f"{name}.parquet", rows)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "notes.json").write_text("{}")
    task = Data(str(tmp_path), prompt="question", answer="gold", at_most=3)
    assert len(task.train()) == 8
    assert len(task.evaluation()["held_out"]) == 3
    assert task.notices == []


def test_a_column_inside_a_column_is_named_with_a_dot(tmp_path):
    """As verl keeps its data: the prompt is a chat, the answer inside reward_model."""
    rows = [
        {"prompt": [{"role": "user", "content": f"{n}?"}], "reward_model": {"style": "rule", "ground_truth": str(n)}}
        for n in range(4)
    ]
    WRITERS[".parquet"](tmp_path / "train.parquet", rows)
    task = Data(str(tmp_path / "train.parquet"), answer="reward_model.ground_truth")
    assert [p.answer for p in task.problems] == list("0123")
    assert task.problems[0].about["messages"] == [{"role": "user", "content": "0?"}]


@pytest.mark.parametrize("ending", WRITERS)
def test_a_wrong_column_is_answered_with_those_there_are(ending, tmp_path):
    path = tmp_path / f"sums{ending}"
    WRITERS[ending](path, ROWS)
    with pytest.raises(Refused, match=r"no column 'prompt'; it has: question, gold, level \(--task\.prompt=question "):
        Data(str(path))
    with pytest.raises(Refused, match=r"no column 'golden'; it has: question, gold, level \(--task\.answer=gold takes"):
        Data(str(path), prompt="question", answer="golden")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.csv", b"prompt,answer\na,b\nonly one\n", r"line 3 of .* has not the 2 columns"),
        ("x.csv", b'prompt,answer\n"a,b\n', "is not CSV"),
        ("x.csv", b"prompt,answer\n", "is empty"),
        ("x.parquet", b"PAR1 nonsense", "does not open"),
        ("x.arrow", b"nonsense", "does not open"),
        ("x.json", b'[{"prompt": "a"}, 3]', "entry 2 of .* is a int"),
        ("x.json", b"{", "line 1 of .* is not JSON"),
    ],
)
def test_a_file_that_does_not_open_is_refused_in_one_sentence(name, content, sentence, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused, match=sentence) as caught:
        tables.splits(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_directory_without_data_is_refused(tmp_path):
    with pytest.raises(Refused, match="holds no data"):
        tables.splits(tmp_path)
    WRITERS[".jsonl"](tmp_path / "test.jsonl", ROWS)
    with pytest.raises(Refused, match="has only the split test"):
        tables.splits(tmp_path)


def test_numbers_in_csv_stay_as_they_are_written(tmp_path):
    (tmp_path / "x.csv").write_text("prompt,answer\na,042\nb,1e3\n")
    assert [p.answer for p in Data(str(tmp_path / "x.csv")).problems] == ["042", "1e3"]


def test_a_prompt_in_csv_may_be_long(tmp_path):
    (tmp_path / "long.csv").write_text("prompt,answer\n" + "x" * 200_000 + ",1\nb,2\n")
    task = Data(str(tmp_path / "long.csv"))
    problems = [*task.train(), *(problem for split in task.evaluation().values() for problem in split)]
    assert 200_000 in [len(problem.prompt) for problem in problems]
