"""What a worker process has started, and what it left behind. Imports nothing heavy: every worker imports it."""

import contextlib
import os
import secrets
import signal
from pathlib import Path

MARK = f"WHET_WORKER={secrets.token_hex(8)}"  # in the environment of a worker, and so of everything that it starts


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
    parent = parents()
    marked = {pid for pid in parent if pid != os.getpid() and MARK.encode() in _environment(pid)}
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
