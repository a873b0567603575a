"""How worker processes start, and what they leave behind.

A fork of a process with torch's threads can hang, so workers are spawned. Python's own spawn first runs the
main script in every worker: slow where it imports torch, and endless in a script without a `__main__` guard.
This module is imported by every worker, so it imports nothing heavy.
"""

import contextlib
import os
import secrets
import signal
import sys
from multiprocessing import popen_spawn_posix
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any

MARK = "WHET_WORKER"  # in the environment of a worker, and so of everything that it starts
TOKEN = secrets.token_hex(8)


class _Popen(popen_spawn_posix.Popen):
    def _launch(self, process_obj: Any) -> None:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")  # a main without a file is not run again
        os.environ[MARK] = TOKEN
        try:
            super()._launch(process_obj)  # type: ignore[misc]
        finally:
            sys.modules["__main__"] = main
            del os.environ[MARK]


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        return _Popen(process_obj)


class CleanSpawn(SpawnContext):
    """The context to give to a pool."""

    Process = _Process


def parents() -> dict[int, int]:
    """Process id → id of its parent, of every process that can be seen; empty without /proc."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # After the name, which may hold anything, come the state and the parent.
            found[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def below(pid: int) -> set[int]:
    """The processes that descend from one."""
    parent, found = parents(), {pid}
    while more := {child for child, of in parent.items() if of in found} - found:
        found |= more
    return found - {pid}


def stop_orphans() -> None:
    """Kill what workers of this process started and left behind when they ended, wherever it went."""
    mark = f"{MARK}={TOKEN}".encode()
    parent = parents()
    marked = {pid for pid in parent if pid != os.getpid() and mark in _environment(pid)}
    kept = {pid for pid in marked if parent[pid] == os.getpid()}  # the workers
    while more := {pid for pid in marked if parent[pid] in kept} - kept:
        kept |= more  # what a living worker started is its own
    stop(marked - kept)


def stop(pids: set[int]) -> None:
    """Kill processes, those that are gone aside."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
