"""What runs in a judge's worker process. Imports nothing heavy: a worker starts in a fraction of a second."""

import contextlib
import importlib
import importlib.util
import inspect
import json
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from numbers import Real
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

from whet.sandbox.inside import install, libc
from whet.tasks.processes import below, stop

PR_SET_CHILD_SUBREAPER = 36
MOST_PRINTED = 1 << 20  # bytes that one call may print
OUT_OF_MEMORY = 77  # the status with which a process ends that has used up its memory

Outcome = tuple[float | None, str]  # a score, or None and the reason in one short phrase


class Unusable(ValueError):
    """The judge cannot be used; the message is one sentence."""


def _module(where: str) -> ModuleType:
    path = Path(where)
    if path.suffix != ".py":
        sys.path.insert(0, "")
        return importlib.import_module(where)
    if not path.is_file():
        raise Unusable(f"there is no judge file {where}: check the path before the colon.")
    sys.path.insert(0, str(path.parent.resolve()))  # so that it can import its neighbours
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=8)
def judge_named(named: str) -> Callable[..., Any]:
    """The function that `path/to/my.py:score` or `module:score` names."""
    where, colon, name = named.rpartition(":")
    if not colon or not where or not name:
        raise Unusable(f"the judge {named!r} must be written path/to/my.py:function or module:function.")
    try:
        module = _module(where)
    except Unusable:
        raise
    except BaseException as error:
        message = " ".join(str(error).split())[:200]
        raise Unusable(f"the judge {where} does not import: {_kind(error)}: {message}.") from error
    judge = getattr(module, name, None)
    if not callable(judge):
        functions = [word for word, thing in vars(module).items() if inspect.isfunction(thing)]
        close = get_close_matches(name, functions, n=1, cutoff=0.0)
        hint = f"; the nearest is {close[0]!r}" if close else "; it defines none"
        raise Unusable(f"{where} has no function {name!r}{hint}.")
    return judge


def parameters(named: str) -> tuple[list[str], list[str] | None]:
    """The parameters that a judge must be given, and those it may be given: None means any."""
    try:
        found = list(inspect.signature(judge_named(named)).parameters.values())
    except Unusable:
        raise
    except (TypeError, ValueError) as error:
        raise Unusable(f"the judge {named} does not tell its parameters: wrap it in a Python function.") from error
    if any(p.kind is p.POSITIONAL_ONLY for p in found):
        raise Unusable(f"the judge {named} has parameters without a name: remove the / from its signature.")
    by_name = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in by_name if p.default is p.empty]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in found)
    return required, None if takes_any else [p.name for p in by_name if p.default is not p.empty]


# --- the process --------------------------------------------------------------------------------------------


class _Printed:
    """What the process prints goes into a pipe that is emptied and counted: it fills no terminal and no disk."""

    def __init__(self) -> None:
        self.count = 0
        self.reading, writing = os.pipe()
        for descriptor in (1, 2):
            os.dup2(writing, descriptor)
        os.close(writing)
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        while more := os.read(self.reading, 1 << 16):
            self.count += len(more)


class _Requests:
    """The lines of the process that this one works for. When that one is gone, this one goes too, busy or not."""

    def __init__(self) -> None:
        self.lines: SimpleQueue[bytes] = SimpleQueue()
        self.reading = os.fdopen(os.dup(0), "rb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.reading:
            self.lines.put(line)
        stop(below(os.getpid()))
        os._exit(0)


@dataclass
class _Process:
    """This worker: its id, what it may keep running, and what it printed."""

    pid: int = 0
    kept: frozenset[int] = frozenset()
    printed: _Printed | None = None


_here = _Process()


def main() -> None:
    """Judge until the process that asks is gone. The first line tells the judge's name and what bounds this process.

    What the judge's module starts when it is imported may go on; what a call starts ends with it.
    """
    answers = os.dup(1)
    requests = _Requests()
    _here.pid, _here.printed = os.getpid(), _Printed()
    about = json.loads(requests.lines.get())
    _bound(about["memory"], bytes.fromhex(about["rules"]))
    try:
        required, optional = parameters(about["named"])
    except Unusable as error:
        _say(answers, {"unusable": str(error)})
        return
    _here.kept = frozenset(below(_here.pid))
    _say(answers, {"required": required, "optional": optional})
    judge = judge_named(about["named"])
    while True:
        request = json.loads(requests.lines.get())
        _say(answers, {"outcomes": chunk(judge, request["rows"], request["seconds"])})


def _bound(memory: int, rules: bytes) -> None:
    """Limits of this process: `memory` in bytes, and rules against signals to the one that it works for."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere a judge has a time limit, and no memory limit
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # whatever it starts stays below it
    if rules:
        install(rules)


def _say(answers: int, what: Any) -> None:
    line = json.dumps(what).encode() + b"\n"
    while line:
        line = line[os.write(answers, line) :]


def chunk(judge: Callable[..., Any], rows: Sequence[Mapping[str, Any]], seconds: float) -> list[Outcome]:
    """Judge rows in order until `seconds` have passed, one at least; the caller sends the rest again."""
    started = time.monotonic()
    outcomes: list[Outcome] = []
    for row in rows:
        outcomes.append(_watched(judge, row))
        if time.monotonic() - started > seconds:
            break
    return outcomes


def _watched(judge: Callable[..., Any], row: Mapping[str, Any]) -> Outcome:
    """One call, and what it left behind besides its score."""
    before = _here.printed.count if _here.printed else 0
    outcome = _judged(judge, row)
    if os.getpid() != _here.pid:
        os._exit(0)  # a fork of this process came back from the call too
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    if _here.printed and _here.printed.count - before > MOST_PRINTED:
        outcome = None, f"judge printed over {MOST_PRINTED >> 20} MB"
    if _cleared():
        outcome = None, "judge left a process behind"
    return outcome


def _cleared() -> bool:
    """End the processes that this worker did not have when the judge's module had been imported; True if any lived.

    Again and again until there is none: while one is being found, it may be starting another.
    """
    found = False
    until = time.monotonic() + 2.0
    while time.monotonic() < until and (left := _left_behind()):
        found = True
        stop(left)
    return found


def _left_behind() -> set[int]:
    """Processes below this one that are not its own from the start; Linux tells, others do not."""
    if sys.platform != "linux":
        return set()
    with contextlib.suppress(ChildProcessError):
        # Asks whether there is a child, and changes nothing: nearly always there is none.
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in _here.kept:
                break
            os.waitpid(ended.si_pid, os.WNOHANG)
        return below(_here.pid) - _here.kept
    return set()


def _judged(judge: Callable[..., Any], row: Mapping[str, Any]) -> Outcome:
    try:
        return _score(judge(**row))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # what fills the memory may still be there: the next call gets a fresh process
    except BaseException as error:  # whatever the user's code raises is one unknown, not a crash
        return None, f"judge raised {_kind(error)}"


def _kind(thing: Any) -> str:
    """The name of a type, as one short printable word."""
    name = type.__getattribute__(type(thing), "__name__")
    return "".join(c for c in str(name)[:60] if c.isprintable()) or "something"


def _score(said: Any) -> Outcome:
    if said is None:
        return None, "judge returned None"
    if hasattr(said, "shape") and hasattr(said, "item"):  # an array or a tensor
        if math.prod(said.shape) != 1:
            return None, f"judge returned {math.prod(said.shape)} numbers, not one"
        said = said.item()
    if isinstance(said, (list, tuple)):
        return None, f"judge returned a {_kind(said)} of {len(said)}, not a number"
    if not isinstance(said, Real):
        return None, f"judge returned {_kind(said)}, not a number"
    try:
        score = float(said)
    except OverflowError:
        return None, "judge returned a number too large"
    return (score, "") if math.isfinite(score) else (None, f"judge returned {score}")
