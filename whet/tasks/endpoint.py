"""Judges that ask a model behind an OpenAI-compatible endpoint: a rubric, or comparisons in pairs.

They are named by a TOML file, `--judge judge.toml`:

    kind = "rubric"                          # or "pairs"
    url = "http://localhost:8000/v1"
    model = "Qwen/Qwen3-8B"
    rubric = "10 is a correct and short proof, 0 is none."
    key = "OPENAI_API_KEY"                   # the environment variable that holds the key; optional
    dollars_per_million = [0.15, 0.6]        # for tokens in and out; optional
    per_minute = 500                         # requests; optional

What cannot be asked or understood is unknown, with the reason. The same question is asked once: answers are kept
in the user's cache by their content. Retries, with growing pauses and the endpoint's Retry-After, are the client's.
"""

import hashlib
import json
import os
import re
import sqlite3
import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from itertools import combinations
from pathlib import Path
from typing import Any

from whet.refusal import Refused
from whet.tasks.worker import Outcome

RUBRIC = """You grade a response to a task.

Task:
{prompt}

Response:
{response}

Reference answer, if any:
{answer}

How to grade: {rubric}

Say on the last line only: Score: <a number from 0 to 10>"""
PAIRS = """You compare two responses to a task.

Task:
{prompt}

Response A:
{one}

Response B:
{other}

What is better: {rubric}

Say on the last line only: Better: A, Better: B or Better: tie"""
WORTH = {"A": 1.0, "B": 0.0, "tie": 0.5}


@dataclass(frozen=True)
class Settings:
    """What the TOML file may say. `tokens` bounds an answer; `opponents` the comparisons of a response in pairs."""

    kind: str
    url: str
    model: str
    rubric: str = "correct, complete and short is best."
    key: str = ""
    dollars_per_million: tuple[float, float] = (0.0, 0.0)
    per_minute: float = 0.0
    tokens: int = 512
    at_once: int = 8
    retries: int = 4
    seconds: float = 60.0
    opponents: int = 4
    cache: str = ""


def judge_from(path: Path) -> "Rubric | Pairs":
    """The judge that a TOML file describes."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(f"there is no judge file {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is not TOML: {error}.") from None
    known = {each.name: each for each in fields(Settings)}
    odd = sorted(set(said) - set(known))
    if odd:
        raise Refused(f"{path} says {odd[0]!r}, which an endpoint's judge does not know: it knows {', '.join(known)}.")
    absent = [name for name in ("kind", "url", "model") if not isinstance(said.get(name), str)]
    if absent:
        such = {"kind": " or ".join(f'kind = "{kind}"' for kind in KINDS), "url": 'url = "http://localhost:8000/v1"'}
        line = such.get(absent[0], 'model = "Qwen/Qwen3-8B"')
        raise Refused(f"{path} does not say its {absent[0]}: write {line}.")
    if said["kind"] not in KINDS:
        raise Refused(f"{path} is of kind {said['kind']!r}: it is {' or '.join(KINDS)}.")
    settings = Settings(**{**said, "dollars_per_million": tuple(said.get("dollars_per_million", (0.0, 0.0)))})
    return KINDS[settings.kind](settings)


class Unanswered(Exception):
    """The endpoint gave no answer; the message is the reason in a few words."""


@dataclass
class Endpoint:
    """A model that is asked questions, several at once, and each question once."""

    settings: Settings
    used: dict[str, float] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)
    next_at: float = 0.0

    def __post_init__(self) -> None:
        try:
            from openai import OpenAI
        except ImportError:
            raise Refused("a judge behind an endpoint needs the client: pip install 'whet[judge]'.") from None
        told = self.settings
        key = os.environ.get(told.key, "") if told.key else "none"
        if not key:
            raise Refused(f"the environment has no {told.key}, which should hold the key for {told.url}.")
        self.client = OpenAI(base_url=told.url, api_key=key, timeout=told.seconds, max_retries=told.retries)
        folder = Path(told.cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "whet")
        folder.mkdir(parents=True, exist_ok=True)
        self.kept = sqlite3.connect(folder / "judged.sqlite", check_same_thread=False, isolation_level=None, timeout=30)
        self.kept.execute("create table if not exists answers (question text primary key, answer text)")

    def ask(self, questions: Sequence[str]) -> list[str | Unanswered]:
        """The answers, in order; a failure stands in the place of its answer."""
        distinct = list(dict.fromkeys(questions))
        with ThreadPoolExecutor(self.settings.at_once) as pool:
            answers = dict(zip(distinct, pool.map(self._answer, distinct), strict=True))
        return [answers[question] for question in questions]

    def _answer(self, question: str) -> str | Unanswered:
        told = self.settings
        name = hashlib.sha256(json.dumps([told.url, told.model, told.tokens, question]).encode()).hexdigest()
        with self.lock:
            row = self.kept.execute("select answer from answers where question = ?", (name,)).fetchone()
        if row:
            self._count(judge_cached=1)
            return row[0]
        try:
            answer = self._asked(question)
        except Unanswered as nothing:
            return nothing
        with self.lock:
            self.kept.execute("insert or replace into answers values (?, ?)", (name, answer))
        return answer

    def _asked(self, question: str) -> str:
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

        self._wait()
        try:
            said = self.client.chat.completions.create(
                model=self.settings.model, messages=[{"role": "user", "content": question}],
                temperature=0.0, max_tokens=self.settings.tokens,
            )  # fmt: skip
            answer = said.choices[0].message.content
        except APITimeoutError:
            raise Unanswered("judge endpoint took too long") from None
        except APIConnectionError:
            raise Unanswered(f"judge endpoint {self.settings.url} is down") from None
        except APIStatusError as error:
            raise Unanswered(f"judge endpoint said {error.status_code}") from None
        except (APIError, ValueError, TypeError, AttributeError, IndexError):
            raise Unanswered("judge endpoint sent no chat completion") from None
        if not isinstance(answer, str):
            raise Unanswered("judge endpoint sent no chat completion")
        tokens = [getattr(said.usage, f"{kind}_tokens", 0) or 0 for kind in ("prompt", "completion")]
        prices = zip(tokens, self.settings.dollars_per_million, strict=True)
        self._count(judge_requests=1, judge_tokens=sum(tokens), judge_dollars=sum(n * p for n, p in prices) / 1e6)
        return answer

    def _wait(self) -> None:
        """Until the next request may be sent, where their number in a minute is bounded."""
        if not self.settings.per_minute:
            return
        with self.lock:
            mine = max(self.next_at, time.monotonic())
            self.next_at = mine + 60 / self.settings.per_minute
        time.sleep(max(mine - time.monotonic(), 0))

    def _count(self, **more: float) -> None:
        with self.lock:
            for name, value in more.items():
                self.used[name] = self.used.get(name, 0.0) + value

    def spent(self) -> dict[str, float]:
        """Requests, tokens, dollars and answers from the cache since this was last asked."""
        with self.lock:
            used, self.used = self.used, {}
        return {"judge_requests": 0.0, "judge_tokens": 0.0, "judge_dollars": 0.0, "judge_cached": 0.0} | used


class _Asking:
    """What the two kinds share: the endpoint, and the arguments that they take from a row."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.endpoint = settings, Endpoint(settings)
        self.spent = self.endpoint.spent

    def parameters(self) -> tuple[list[str], list[str] | None]:
        """What must be given, and what may be."""
        return ["prompt", "final"], ["answer"]


class Rubric(_Asking):
    """A number from 0 to 10 for each response, as a share of 10."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """One outcome for each row, in order."""
        questions = [
            RUBRIC.format(prompt=row["prompt"], response=row["final"], answer=row.get("answer", ""),
                          rubric=self.settings.rubric)
            for row in rows
        ]  # fmt: skip
        return [_graded(answer) for answer in self.endpoint.ask(questions)]


def _graded(answer: str | Unanswered) -> Outcome:
    """The number behind the last `Score:`, or on a line alone; anything else is unknown.

    >>> _graded("fine. Score: 7.5"), _graded("10"), _graded("great!"), _graded("Score: 11")
    ((0.75, ''), (1.0, ''), (None, 'judge said no score'), (None, 'judge said a score outside 0 to 10'))
    """
    if isinstance(answer, Unanswered):
        return None, str(answer)
    found = re.findall(r"(?i)score\W*(-?\d+(?:\.\d+)?)", answer) or re.findall(r"(?m)^\s*(-?\d+(?:\.\d+)?)\s*$", answer)
    if not found:
        return None, "judge said no score"
    score = float(found[-1]) / 10
    return (score, "") if 0 <= score <= 1 else (None, "judge said a score outside 0 to 10")


class Pairs(_Asking):
    """The share of comparisons with other responses to the same prompt that a response wins; a tie is half.

    Each pair is asked in both orders, since models favour a place. With more than `opponents` others, each response
    meets those that follow it in the round.
    """

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """One outcome for each row, in order; a response without an answered comparison is unknown."""
        pairs = self._pairs(rows)
        questions = [self._question(rows[i], rows[j]) for i, j in pairs]
        wins: list[list[float]] = [[] for _ in rows]
        reasons = ["judge had nothing to compare with" for _ in rows]
        for (i, j), answer in zip(pairs, self.endpoint.ask(questions), strict=True):
            worth, reason = _compared(answer)
            if worth is None:
                reasons[i] = reasons[j] = reason
                continue
            wins[i].append(worth)
            wins[j].append(1 - worth)
        return [(sum(w) / len(w), "") if w else (None, reason) for w, reason in zip(wins, reasons, strict=True)]

    def _pairs(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
        members: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            members.setdefault(str(row["prompt"]), []).append(i)
        met = set()
        for mine in members.values():
            reach = max(self.settings.opponents // 2, 1)
            near = ((a, b) for a in range(len(mine)) for b in range(a + 1, a + 1 + reach))
            everyone = len(mine) <= self.settings.opponents + 1
            places = combinations(range(len(mine)), 2) if everyone else ((a, b % len(mine)) for a, b in near)
            met |= {tuple(sorted((mine[a], mine[b]))) for a, b in places}
        return [order for i, j in sorted(met) for order in ((i, j), (j, i))]

    def _question(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
        return PAIRS.format(prompt=one["prompt"], one=one["final"], other=other["final"], rubric=self.settings.rubric)


def _compared(answer: str | Unanswered) -> Outcome:
    """What the first response of a pair is worth.

    >>> _compared("Better: A"), _compared("...\\nBetter: tie"), _compared("both")
    ((1.0, ''), (0.5, ''), (None, 'judge named no better one'))
    """
    if isinstance(answer, Unanswered):
        return None, str(answer)
    found = re.findall(r"(?i)better\W*(tie|A|B)\b", answer) or re.findall(r"(?m)^\s*(A|B|tie)\s*$", answer)
    if not found:
        return None, "judge named no better one"
    return WORTH[found[-1].upper() if len(found[-1]) == 1 else "tie"], ""


KINDS: dict[str, Any] = {"rubric": Rubric, "pairs": Pairs}
