"""Your own problems: a JSONL file, and a function that judges if matching the answer exactly is not enough.

Each line is one JSON object with a `prompt`, an `answer`, and whatever else the judge should know:

    {"prompt": "6 times 7?", "answer": "42", "kind": "product"}

The judge is named `path/to/my.py:score` or `module:score` and is wired by parameter name: it may take prompt,
response, answer and any other column of the file, in any order. It returns a number or a bool; None means
unknown. It runs in worker processes: if it raises, returns no finite number, takes too long or too much memory,
prints over 1 MB, leaves a process behind or kills its own, that response is unknown, with the reason, and does
not count. What it needs for longer than a call (a server, a pool) it starts when it is imported.
What it prints is not shown: it runs beside a live table.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from whet.refusal import Refused
from whet.tasks import Problem, Verdict
from whet.tasks.judging import Judge
from whet.tasks.splits import fraction

# --- reading the file --------------------------------------------------------------------------------------


def lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of the file with their line numbers, from 1; blank lines are passed over."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise Refused(f"there is no file {path}: {_neighbours(path)}.") from None
    except IsADirectoryError:
        raise Refused(f"{path} is a folder: name the .jsonl file in it.") from None
    except UnicodeDecodeError:
        raise Refused(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    found = [(number, _object(path, number, line)) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not found:
        raise Refused(f"{path} is empty: write one JSON object on each line.")
    return found


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise Refused(f"line {number} of {path} is not JSON: {error}.") from None
    if not isinstance(row, dict):
        raise Refused(f"line {number} of {path} is a {type(row).__name__}: write a JSON object with a prompt.")
    return row


def _neighbours(path: Path) -> str:
    there = sorted(file.name for file in path.parent.glob("*.jsonl"))
    close = get_close_matches(path.name, there, n=1, cutoff=0.0)
    return f"the nearest in that folder is {close[0]}" if close else "its folder holds no .jsonl file"


def as_text(value: Any) -> str:
    """A column as text: strings as they are, anything else as JSON.

    >>> as_text("42"), as_text(42), as_text([1, 2])
    ('42', '42', '[1, 2]')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- the task ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JsonLines:
    """The problems of a JSONL file, judged exactly or by the user's function.

    `held_out` is the share of the prompts that training never shows, at least one, chosen by a hash of the
    prompt. A response is correct if its score is at least `correct_from`. `judge_seconds` bounds one call,
    `judge_memory` (GB) one of its processes; a call that raised, hung or died is tried `judge_retries` more times.
    """

    path: str
    prompt: str = "prompt"
    answer: str = "answer"
    judge_by: str | None = None
    held_out: float = 0.1
    max_tokens: int = 256
    judge_seconds: float = 5.0
    judge_memory: float = 4.0
    judge_retries: int = 1
    correct_from: float = 1.0

    optimum = 1.0
    focus = "held_out"
    elsewhere = ()

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise Refused(f"held_out is the share of problems to hold out, so it cannot be {self.held_out}.")
        if len({problem.prompt for problem in self.problems}) < 2:
            raise Refused(f"{self.path} has one prompt only: at least 2 are needed, one of them is held out.")
        _ = self._wiring  # a wrong judge is refused now, not in the middle of a run

    @property
    def name(self) -> str:
        """The name of the file, without its ending."""
        return Path(self.path).stem

    @cached_property
    def problems(self) -> list[Problem]:
        """All problems, in the order of the file; a prompt met again gets its own id."""
        met: dict[str, int] = {}
        found = []
        for number, row in self._rows:
            text = row[self.prompt]
            if not isinstance(text, str):
                raise Refused(f"line {number} of {self.path} has a prompt that is no text but {text!r}.")
            met[text] = met.get(text, 0) + 1
            again = f"-{met[text]}" if met[text] > 1 else ""
            name = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() + again
            about = {key: value for key, value in row.items() if key != self.prompt}
            found.append(Problem(id=name, prompt=text, answer=as_text(row.get(self.answer, "")), about=about))
        return found

    @cached_property
    def _rows(self) -> list[tuple[int, dict[str, Any]]]:
        rows = lines(Path(self.path))
        asked = [self.prompt] if self.judge_by else [self.prompt, self.answer]
        for number, row in rows:
            for column in asked:
                if column not in row:
                    raise Refused(
                        f"line {number} of {self.path} has no column {column!r}; it has: {', '.join(row) or 'none'}."
                    )
        return rows

    def train(self) -> list[Problem]:
        """The problems that are not held out, in the order of the file."""
        return [problem for problem in self.problems if problem.prompt not in self._held]

    def evaluation(self) -> dict[str, list[Problem]]:
        """The split `held_out`."""
        return {"held_out": [problem for problem in self.problems if problem.prompt in self._held]}

    @cached_property
    def _held(self) -> frozenset[str]:
        """The prompts with the lowest hashes: at least one is held out, and at least one is not."""
        prompts = sorted({problem.prompt for problem in self.problems}, key=fraction)
        below = sum(fraction(prompt) < self.held_out for prompt in prompts)
        return frozenset(prompts[: min(max(below, 1), len(prompts) - 1)])

    # --- judging -------------------------------------------------------------------------------------------

    def judge(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        """By the user's function if there is one; otherwise 1 for the answer, spaces around it aside."""
        pairs = zip(problems, texts, strict=True)
        if not self._wiring:
            matches = [text.strip() == problem.answer.strip() for problem, text in pairs]
            return [Verdict(float(ok), ok) for ok in matches]
        judge, columns = self._wiring
        outcomes = judge([self._arguments(problem, text, columns) for problem, text in pairs])
        return [Verdict(score, score is not None and score >= self.correct_from, reason) for score, reason in outcomes]

    def _arguments(self, problem: Problem, text: str, columns: set[str] | None) -> dict[str, Any]:
        known = self._known(problem.about, problem.prompt, text)
        return known if columns is None else {name: value for name, value in known.items() if name in columns}

    def _known(self, row: Mapping[str, Any], prompt: str, response: str) -> dict[str, Any]:
        """Everything a judge may ask for, under the names of the columns and the three fixed names."""
        fixed = {"prompt": prompt, "response": response}
        if self.answer in row:
            fixed["answer"] = row[self.answer]
        return {self.prompt: prompt, **row, **fixed}

    @cached_property
    def _wiring(self) -> tuple[Judge, set[str] | None] | None:
        """The judge and the names it is given (None: all there are); no value without a judge."""
        if self.judge_by is None:
            return None
        memory = int(self.judge_memory * 1e9)
        judge = Judge(self.judge_by, self.judge_seconds, memory=memory, retries=self.judge_retries)
        required, optional = judge.parameters()
        for number, row in self._rows:
            known = self._known(row, "", "")
            for name in required:
                if name not in known:
                    raise Refused(
                        f"the judge {self.judge_by} asks for {name!r}, and line {number} of {self.path} has no such "
                        f"column; it can ask for: {', '.join(known)}."
                    )
        return judge, None if optional is None else {*required, *optional}
