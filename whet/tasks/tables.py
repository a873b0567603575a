"""Rows of a user's data, from whatever it is kept in: JSONL, JSON, CSV, Parquet, or a Hugging Face directory.

A Hugging Face directory is one of two things: what `dataset.save_to_disk` wrote (Arrow files, one folder for each
split), or a repository as `hf download --repo-type dataset` brings it (Parquet, JSON or CSV files whose names begin
with their split). Both are read with pyarrow; nothing of the directory is executed.
"""

import json
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from whet.refusal import Refused

Row = dict[str, Any]
Placed = list[tuple[str, Row]]  # each row with where it stands, for sentences
ENDINGS = (".jsonl", ".json", ".csv", ".parquet", ".arrow")
HELD_OUT = ("test", "validation", "valid", "dev", "eval")  # names of splits that are not for training
TRAIN = "train"


def is_data(name: str) -> bool:
    """True for what looks like a path to data rather than the name of a task."""
    return name.endswith(ENDINGS) or Path(name).is_dir()


def splits(path: Path) -> dict[str, Placed]:
    """The rows of a file or directory by split: `train` and at most one more, `test`, where the data has one."""
    if not path.is_dir():
        return {TRAIN: _rows(path)}
    found: dict[str, Placed] = {}
    for file in _files(path):
        found.setdefault(_split_of(path, file), []).extend(_rows(file))
    if not found:
        raise Refused(f"{path} holds no data: there is no {', '.join(ENDINGS)} file in it.")
    if TRAIN not in found:
        raise Refused(f"{path} has only the split {', '.join(found)}: name one of its files to train on it.")
    return {TRAIN: found.pop(TRAIN), **found}


def _files(folder: Path) -> list[Path]:
    """The data files in a directory, without Arrow's and the hub's own notes about them."""
    notes = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}
    inside = sorted(file for file in folder.rglob("*") if file.suffix in ENDINGS and file.name not in notes)
    return [file for file in inside if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _split_of(folder: Path, file: Path) -> str:
    """`test` for held-out data by the name of the file or of a folder above it, `train` for everything else."""
    words = [part.lower().partition("-")[0].partition(".")[0] for part in file.relative_to(folder).parts]
    named = [word for word in words if word in HELD_OUT]
    if not named:
        return TRAIN
    return "test" if named[0] == "test" else "validation"


# --- one file ---------------------------------------------------------------------------------------------


def _rows(path: Path) -> Placed:
    """All rows of a file; refused in one sentence where it cannot be read or is empty."""
    if not path.is_file():
        raise Refused(f"there is no file {path}: {_neighbours(path)}.")
    found = list(_readers()[path.suffix](path))
    if not found:
        raise Refused(f"{path} is empty: it should hold one problem on each line or row.")
    return found


def _readers() -> dict[str, Callable[[Path], Iterator[tuple[str, Row]]]]:
    return {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet, ".arrow": _arrow}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise Refused(f"{path} is not UTF-8 text: save it as UTF-8.") from None


def _jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            where = f"line {number} of {path}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise Refused(f"{where} is not JSON: {error}.") from None
            yield where, _object(where, row)


def _json(path: Path) -> Iterator[tuple[str, Row]]:
    """One object (as MATH keeps its problems), a list of them, or in spite of its name one on each line."""
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError):
        yield from _jsonl(path)
        return
    rows = found if isinstance(found, list) else [found]
    for number, row in enumerate(rows, 1):
        where = f"entry {number} of {path}" if isinstance(found, list) else str(path)
        yield where, _object(where, row)


def _object(where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise Refused(f"{where} is a {type(row).__name__}: write a JSON object with a prompt.")
    return row


def _csv(path: Path) -> Iterator[tuple[str, Row]]:
    """Every value is text, as it stands in the file: `042` stays `042`."""
    import csv
    import io

    csv.field_size_limit(2**31 - 1)  # a prompt may be longer than the module's 131072 characters
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        for row in reader:
            where = f"line {reader.line_num} of {path}"
            if None in row or None in row.values():
                raise Refused(f"{where} has not the {len(reader.fieldnames or [])} columns of the first line.")
            yield where, row
    except csv.Error as error:
        raise Refused(f"line {reader.line_num} of {path} is not CSV: {error}.") from None


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow.parquet as pq

    yield from _table(path, lambda: pq.read_table(path))


def _arrow(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa

    yield from _table(path, lambda: pa.ipc.open_stream(path).read_all())


def _table(path: Path, read: Callable[[], Any]) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa

    try:
        rows = read().to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise Refused(f"{path} does not open: {str(error).splitlines()[0].rstrip('.')}.") from None
    for number, row in enumerate(rows, 1):
        yield f"row {number} of {path}", row


def _neighbours(path: Path) -> str:
    there = sorted(file.name for file in path.parent.glob("*") if file.suffix in ENDINGS)
    close = get_close_matches(path.name, there, n=1, cutoff=0.0)
    return f"the nearest in that folder is {close[0]}" if close else f"its folder holds no {path.suffix} file"


# --- columns ----------------------------------------------------------------------------------------------


def column(row: Row, name: str) -> Any:
    """A column by its name; `reward_model.ground_truth` looks inside a column that holds an object.

    >>> column({"a": {"b": 1}}, "a.b")
    1
    """
    if name in row:
        return row[name]
    found: Any = row
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            raise KeyError(name)
        found = found[part]
    return found


def names(row: Row) -> list[str]:
    """The names that `column` knows for a row: columns, and what is inside those that hold objects."""
    inside = [f"{name}.{key}" for name, value in row.items() if isinstance(value, dict) for key in value]
    return [*row, *inside]
