"""Judging while responses are still being written: for tasks whose judges work in other processes.

A judge that runs elsewhere costs the sampler nothing, so the responses to a problem are judged as soon as the last of
them has ended. One thread asks the task, for all problems that are complete by then, so that a task is never
asked twice at once.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import Any

from whet.tasks import Problem, Verdict


class Beside:
    """The verdicts on `counts[i]` responses to `problems[i]`, asked for as they come. A context: leaving it waits."""

    def __init__(self, task: Any, problems: Sequence[Problem], counts: Sequence[int]) -> None:
        self.task, self.problems = task, [p for p, n in zip(problems, counts, strict=True) for _ in range(n)]
        self.owner = [i for i, n in enumerate(counts) for _ in range(n)]
        self.missing = list(counts)
        self.texts: dict[int, str] = {}
        self.verdicts: dict[int, Verdict] = {}
        self.complete: list[int] = []
        self.lock, self.asked = Lock(), list[Future[None]]()
        self.thread = ThreadPoolExecutor(1)

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.thread.shutdown(cancel_futures=True)

    def ended(self, rows: Sequence[int], texts: Sequence[str]) -> None:
        """Some responses have ended; the problems that are complete with them are judged from here on."""
        self.texts.update(zip(rows, texts, strict=True))
        done = set()
        for row in rows:
            self.missing[self.owner[row]] -= 1
            if not self.missing[self.owner[row]]:
                done.add(self.owner[row])
        with self.lock:
            self.complete += [row for row, owner in enumerate(self.owner) if owner in done]
        if done:
            self.asked.append(self.thread.submit(self._judge))

    def _judge(self) -> None:
        with self.lock:
            rows, self.complete = self.complete, []
        if rows:
            found = self.task.judge([self.problems[row] for row in rows], [self.texts[row] for row in rows])
            self.verdicts.update(zip(rows, found, strict=True))

    def of(self, texts: Sequence[str]) -> list[Verdict]:
        """All verdicts, in the order of the responses; those that nobody told of are judged now."""
        rest = [row for row in range(len(texts)) if row not in self.texts]
        if rest:
            self.ended(rest, [texts[row] for row in rest])
        for one in self.asked:
            one.result()
        return [self.verdicts[row] for row in range(len(texts))]
