"""Your own problems, from a file or a directory of rows, and a judge if matching the answer is not enough.

Each row has a `prompt`, an `answer`, and whatever else the judge should know (other names: --task.prompt=question):

    {"prompt": "6 times 7?", "answer": "42", "kind": "product"}

A prompt is a text, or a chat: a list of messages that ends with the user's turn. Judges are named

    path/to/my.py:score or module:score    your function, wired by parameter name
    math                                   math-verify: equal in mathematics
    choices                                letters of a multiple choice, with partial credit
    judge.toml                             a rubric or a comparison in pairs by a model behind an endpoint

A function may take prompt, response, answer, any other column, `thoughts` and `final` (what a response says between
and after its thinking tags), in any order. It returns a number or a bool; None means unknown. It runs in worker
processes: if it raises, returns no finite number, takes too long or kills its process, that response is unknown,
with the reason, and does not count. What it prints is not shown: it runs beside a live table.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from whet.refusal import Refused
from whet.tasks import Problem, Verdict, tables
from whet.tasks.judging import Judge
from whet.tasks.splits import fraction
from whet.tasks.tables import Placed, Row

JUDGES = {"math": "whet.tasks.math_judge:same_value", "choices": "whet.tasks.answers:share_of_choices"}


def as_text(value: Any) -> str:
    """A column as text: strings as they are, anything else as JSON.

    >>> as_text("42"), as_text(42), as_text([1, 2])
    ('42', '42', '[1, 2]')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def thought(response: str, tag: str = "think") -> tuple[str, str]:
    """What a response says between its thinking tags, and behind them; thoughts that never end leave nothing behind.

    Many templates write the opening tag themselves, so that a response only closes it.

    >>> thought("<think>6 · 7</think>42"), thought("6 · 7</think>42"), thought("42"), thought("<think>hm")
    (('6 · 7', '42'), ('6 · 7', '42'), ('', '42'), ('hm', ''))
    """
    before, closed, final = response.partition(f"</{tag}>")
    opened, found, inside = before.partition(f"<{tag}>")
    if closed or found:
        return (inside if found else opened).strip(), final.strip()
    return "", response


@dataclass(frozen=True)
class Data:
    """The problems of a file or directory, judged exactly or by a judge.

    `held_out` is the share of the prompts that training never shows, at least one, chosen by a hash of the prompt;
    a directory with a test split has its own. `at_most` bounds the held-out problems, 0 for all of them.
    `instruction` follows every prompt, on a line of its own. A response is correct if its score is at least
    `correct_from`. `judge_seconds` bounds one call, `judge_memory` (GB) one of the judge's processes; a call that
    raised, hung or died is tried `judge_retries` more times.
    """

    path: str
    prompt: str = "prompt"
    answer: str = "answer"
    judge_by: str | None = None
    instruction: str = ""
    thinking_tag: str = "think"
    held_out: float = 0.1
    at_most: int = 0
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
        if len({problem.id.partition("-")[0] for problem in self.problems}) < 2:
            raise Refused(f"{self.path} has one prompt only: at least 2 are needed, one of them is held out.")
        _ = self._wiring  # a wrong judge is refused now, not in the middle of a run

    @property
    def name(self) -> str:
        """The name of the file, without its ending."""
        return Path(self.path).stem

    # --- reading -------------------------------------------------------------------------------------------

    @cached_property
    def _splits(self) -> dict[str, Placed]:
        found = tables.splits(Path(self.path))
        asked = [self.prompt] if self.judge_by else [self.prompt, self.answer]
        for where, row in (placed for rows in found.values() for placed in rows):
            for column in asked:
                self._column(where, row, column)
        return found

    def _column(self, where: str, row: Row, name: str) -> Any:
        try:
            return tables.column(row, name)
        except KeyError:
            there = tables.names(row)
            close = get_close_matches(name, there, n=1, cutoff=0.4)
            option = "prompt" if name == self.prompt else "answer"
            hint = f" (--task.{option}={close[0] if close else there[0]} takes another)" if there else ""
            raise Refused(f"{where} has no column {name!r}; it has: {', '.join(there) or 'none'}{hint}.") from None

    @cached_property
    def problems(self) -> list[Problem]:
        """All problems, in the order of the data; a prompt met again gets its own id."""
        return [problem for problems in self._problems.values() for problem in problems]

    @cached_property
    def _problems(self) -> dict[str, list[Problem]]:
        met: Counter[str] = Counter()
        return {split: [self._problem(where, row, met) for where, row in rows] for split, rows in self._splits.items()}

    def _problem(self, where: str, row: Row, met: Counter[str]) -> Problem:
        said = tables.column(row, self.prompt)
        messages = self._messages(where, said) if isinstance(said, list) else None
        if not isinstance(said, str) and not messages:
            raise Refused(f"{where} has a prompt that is no text but {said!r}.")
        text = messages[-1]["content"] if messages else said + self._instructed
        key = json.dumps(messages, ensure_ascii=False) if messages else text
        met[key] += 1
        again = f"-{met[key]}" if met[key] > 1 else ""
        name = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() + again
        about = {name: value for name, value in row.items() if name != self.prompt}
        return Problem(name, text, self.gold(row), about=about | ({"messages": messages} if messages else {}))

    def gold(self, row: Row) -> str:
        """The right answer of a row, as text; empty where the row has none and the judge needs none."""
        try:
            return as_text(tables.column(row, self.answer))
        except KeyError:
            return ""

    @property
    def _instructed(self) -> str:
        return f"\n{self.instruction}" if self.instruction else ""

    def _messages(self, where: str, said: list[Any]) -> list[Row]:
        """A chat that ends with the user's turn, with the instruction behind it."""
        if not said or not all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in said):
            raise Refused(f"{where} has a chat that is no list of {{role, content}} messages.")
        if said[-1].get("role") != "user":
            raise Refused(f"{where} has a chat that ends with {said[-1].get('role')!r}: it should end with the user.")
        chat = [{"role": message["role"], "content": message["content"]} for message in said]
        return [*chat[:-1], {"role": "user", "content": chat[-1]["content"] + self._instructed}]

    @property
    def notices(self) -> list[str]:
        """What is odd about the data, in sentences."""
        first = {problem.id for problem in self.problems if "-" not in problem.id}
        again = len(self.problems) - len(first)
        told = [f"{again} of the {len(self.problems)} problems repeat an earlier prompt."] if again else []
        seen = len(self._problems.get("test", ())) - len(self._held_of_test)
        if seen:
            told.append(f"{seen} problems of the test split are in the train split too, and are not evaluated.")
        return told

    # --- splitting -----------------------------------------------------------------------------------------

    def train(self) -> list[Problem]:
        """The problems that are not held out, in the order of the data."""
        held = self._held
        return [problem for problem in self._problems[tables.TRAIN] if _prompt_of(problem) not in held]

    def evaluation(self) -> dict[str, list[Problem]]:
        """The split `held_out`."""
        held = self._held_of_test or [p for p in self._problems[tables.TRAIN] if _prompt_of(p) in self._held]
        if self.at_most and len(held) > self.at_most:
            chosen = {problem.id for problem in sorted(held, key=lambda p: fraction(p.id))[: self.at_most]}
            held = [problem for problem in held if problem.id in chosen]
        return {"held_out": held}

    @cached_property
    def _held_of_test(self) -> list[Problem]:
        """The problems of the data's own test split, without those whose prompts are trained."""
        own = self._problems.get("test") or self._problems.get("validation") or []
        trained = {_prompt_of(problem) for problem in self._problems[tables.TRAIN]}
        return [problem for problem in own if _prompt_of(problem) not in trained]

    @cached_property
    def _held(self) -> frozenset[str]:
        """The prompts with the lowest hashes: at least one is held out, and at least one is not."""
        if self._held_of_test:
            return frozenset()
        prompts = sorted({_prompt_of(problem) for problem in self._problems[tables.TRAIN]}, key=fraction)
        below = sum(fraction(prompt) < self.held_out for prompt in prompts)
        return frozenset(prompts[: min(max(below, 1), len(prompts) - 1)])

    # --- judging -------------------------------------------------------------------------------------------

    @property
    def judges_apart(self) -> bool:
        """True with a judge: all of them work in other processes, or behind an endpoint."""
        return self.judge_by is not None

    def judge(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        """By the judge if there is one; otherwise 1 for the answer, spaces around it and thoughts aside."""
        pairs = zip(problems, texts, strict=True)
        if not self._wiring:
            matches = [thought(text, self.thinking_tag)[1].strip() == problem.answer.strip() for problem, text in pairs]
            return [Verdict(float(ok), ok) for ok in matches]
        judge, columns = self._wiring
        outcomes = judge([self._arguments(problem, text, columns) for problem, text in pairs])
        return [Verdict(score, score is not None and score >= self.correct_from, reason) for score, reason in outcomes]

    def spent(self) -> dict[str, float]:
        """What the judge has used since it was last asked, by metric; empty for judges that cost nothing."""
        return self._wiring[0].spent() if self._wiring and hasattr(self._wiring[0], "spent") else {}

    def _arguments(self, problem: Problem, text: str, columns: set[str] | None) -> dict[str, Any]:
        known = self._known(problem.about, problem.prompt, text, problem.answer)
        return known if columns is None else {name: value for name, value in known.items() if name in columns}

    def _known(self, row: Mapping[str, Any], prompt: str, response: str, gold: str) -> dict[str, Any]:
        """Everything a judge may ask for, under the names of the columns and the fixed names."""
        thoughts, final = thought(response, self.thinking_tag)
        fixed: dict[str, Any] = {"prompt": prompt, "response": response, "thoughts": thoughts, "final": final}
        if self.answer in row:
            fixed["answer"] = row[self.answer]
        elif gold:
            fixed["answer"] = gold
        return {self.prompt: prompt, **row, **fixed}

    @cached_property
    def _wiring(self) -> tuple[Any, set[str] | None] | None:
        """The judge and the names it is given (None: all there are); no value without a judge."""
        if self.judge_by is None:
            return None
        if self.judge_by.endswith(".toml"):
            from whet.tasks.endpoint import judge_from

            judge: Any = judge_from(Path(self.judge_by))
        else:
            memory = int(self.judge_memory * 1e9)
            named = JUDGES.get(self.judge_by, self.judge_by)
            judge = Judge(named, self.judge_seconds, memory=memory, retries=self.judge_retries)
        required, optional = judge.parameters()
        for where, row in (placed for rows in self._splits.values() for placed in rows):
            known = self._known(row, "", "", self.gold(row))
            for name in required:
                if name not in known:
                    raise Refused(
                        f"the judge {self.judge_by} asks for {name!r}, and {where} has no such "
                        f"column; it can ask for: {', '.join(known)}."
                    )
        return judge, None if optional is None else {*required, *optional}


def _prompt_of(problem: Problem) -> str:
    """What makes two problems the same question: the whole chat where there is one."""
    messages = problem.about.get("messages")
    return json.dumps(messages, ensure_ascii=False) if messages else problem.prompt
