"""Running programs that nobody has read: in bubblewrap, under a seccomp filter and resource limits.

A program defines a function; it is called with arguments that come from here, and what it returns comes back as
plain JSON values. It sees no file but Python's own library, no network, no other process, no environment. It may
not start processes or threads, write files, send signals, open sockets or wait. It is ended when it computes too long,
takes too much memory or says too much. What its answers should be never enters the sandbox.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from whet.refusal import Refused
from whet.sandbox import filters
from whet.sandbox.server import Lost, Server

START_SECONDS = 30.0
GRACE_SECONDS = 10.0  # beyond its own limit, before the server of a sandbox counts as lost
MASKED = ("python3*/site-packages", "python3*/dist-packages", "python3/dist-packages")
INSIDE = Path(__file__).with_name("inside.py")


@dataclass(frozen=True)
class Program:
    """Source text that defines the function `entry`, and the arguments of each call, as plain JSON values."""

    source: str
    entry: str
    calls: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Limits:
    """For one program with all its calls: processor time in whole s, memory and output in bytes. Ours.

    `wall` is the time of the clock, in s, in which the machine must have had that much processor time for it. A
    program cannot wait, so where it is over the machine is to blame, and the program is unknown.
    """

    seconds: int = 2
    wall: float = 60.0
    memory: int = 256 << 20
    output: int = 64 << 10


@dataclass(frozen=True)
class Answer:
    """What the calls returned, one value each; None where `how` says why there are none.

    `lost` is True where the sandbox failed and not the program.
    """

    values: list[Any] | None
    how: str = ""
    lost: bool = False


# --- what the sandbox is made of ---------------------------------------------------------------------------


def _command(bwrap: str, told: int) -> list[str]:
    """bwrap with namespaces of its own for everything, nothing to write to, and a bare Python.

    It tells the descriptor `told` the process id of the first process inside. It is not asked to die with its
    parent: that would be the thread that started it.
    """
    unshared = [f"--unshare-{name}" for name in ("user", "pid", "net", "ipc", "uts", "cgroup-try")]
    fixed = ["--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--new-session", "--chdir", "/", "--info-fd"]
    null = ["--dev-bind", "/dev/null", "/dev/null"]
    libraries = ["--setenv", "LD_LIBRARY_PATH", "/python/lib"]
    mounts = [*_system_libraries(), *_python(), *null, "--remount-ro", "/"]
    python = ["/python/bin/python3", "-I", "-S", "-B", "-X", "utf8", "-c", INSIDE.read_text(encoding="utf-8")]
    return [bwrap, *unshared, *fixed, str(told), *libraries, *mounts, *python]


def _system_libraries() -> list[str]:
    """Shared libraries, without the Python packages among them: whet may be one, and it knows the answers."""
    words = ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for place in map(Path, ("/usr/lib", "/usr/lib64", "/lib", "/lib64")):
        if place.is_symlink():
            words += ["--symlink", os.readlink(place), str(place)]
        elif place.is_dir():
            words += ["--ro-bind", str(place), str(place)]
            words += [word for pattern in MASKED for path in place.glob(pattern) for word in ("--tmpfs", str(path))]
    return words


def _python() -> list[str]:
    """This Python's executable and standard library, under /python wherever it was installed."""
    base = Path(sys.base_prefix)
    executable = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    whole = base / "lib" if (base / "conda-meta").is_dir() else library  # conda's modules need libraries beside it
    words = ["--ro-bind", str(executable), "/python/bin/python3"]
    words += ["--ro-bind", str(whole), f"/python/{whole.relative_to(base)}"]
    for shared in {*base.glob("lib/libpython*.so*")} - {*whole.glob("*")}:
        words += ["--ro-bind", str(shared), f"/python/lib/{shared.name}"]
    for masked in (library / "site-packages", library / "dist-packages"):
        if masked.is_dir():
            words += ["--tmpfs", f"/python/{masked.relative_to(base)}"]
    return words


# --- one sandbox -------------------------------------------------------------------------------------------


class Sandbox:
    """One bubblewrap with a server in it that runs programs one after the other, each in a fork of its own."""

    def __init__(self) -> None:
        bwrap = shutil.which("bwrap")
        if sys.platform != "linux" or bwrap is None:
            raise Refused(
                "Programs of a model run in bubblewrap only, and there is none here: install it on Linux "
                "(Debian and Ubuntu: apt install bubblewrap), or choose another task."
            )
        rules = filters.computing_only()
        about, told = os.pipe()
        self.server = Server(_command(bwrap, told), {}, pass_fds=[told], stderr=subprocess.PIPE)
        os.close(told)
        self.close = weakref.finalize(self, _end, self.server, about)
        try:
            until = time.monotonic() + START_SECONDS
            self.server.tell(rules.hex(), until)
            self.server.hear(until)
        except Lost:
            complaint = self._complaint()
            self.close()
            raise Refused(f"bubblewrap makes no sandbox here ({complaint}): see `man bwrap`.") from None
        self._prove()

    def _complaint(self) -> str:
        self.server.process.kill()
        said = self.server.process.stderr.read(4096).decode(errors="replace")  # type: ignore[union-attr]
        return " ".join(said.split())[:200] or "it says nothing"

    def run(self, program: Program, limits: Limits) -> Answer:
        """Run a program and its calls. Lost where the sandbox does not answer."""
        request = {**asdict(program), **asdict(limits)}
        head, said = self.server.ask(request, limits.wall + GRACE_SECONDS)
        return Answer(None, head["how"], head["lost"]) if head["how"] else understood(said, len(program.calls))

    def _prove(self) -> None:
        """Refuse a sandbox that is none: a program tries what no program may do, and says what it could."""
        try:
            answer = self.run(Program(PROBE, "probe", ((os.getpid(), str(INSIDE)),)), Limits(seconds=20))
        except Lost:
            answer = Answer(None, "it does not answer")
        if answer.values != [[]]:
            self.close()
            raise Refused(f"the sandbox does not hold here ({answer.how or answer.values}): choose another task.")


PROBE = """
import os, socket
def probe(pid, path):
    def possible(act, *arguments):
        try:
            act(*arguments)
        except (OSError, RuntimeError):
            return False
        return True
    tries = {
        "fork": (lambda: os.fork() or os._exit(0),), "socket": (socket.socket,), "signal": (os.kill, pid, 0),
        "read": (open, path), "write": (open, "/tmp/x", "w"), "processes": (os.listdir, "/proc"),
    }
    return [name for name, (act, *arguments) in tries.items() if possible(act, *arguments)] + list(os.environ)
"""


def understood(said: bytes, calls: int) -> Answer:
    """The values in what a program wrote. Nothing in it is believed: it is parsed as plain JSON, or it is nothing.

    >>> understood(b'{"values": [1, "a"]}', 2), understood(b'[NaN]', 1).how
    (Answer(values=[1, 'a'], how='', lost=False), 'returned no plain value')
    """
    try:
        found = json.loads(said, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return Answer(None, "returned no plain value")
    raised = found.get("raised") if isinstance(found, dict) else None
    if isinstance(raised, str):
        return Answer(None, f"raised {raised}" if re.fullmatch(r"\w{1,60}", raised, re.ASCII) else "raised")
    values = found.get("values") if isinstance(found, dict) else None
    if not isinstance(values, list) or len(values) != calls:
        return Answer(None, "returned no plain value")
    return Answer(values)


def _no_constant(word: str) -> Any:
    raise ValueError(word)  # NaN and infinity are no JSON


def _end(server: Server, about: int) -> None:
    """Kill the first process of the sandbox, and with it the kernel kills every other one in there."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        os.set_blocking(about, False)
        with os.fdopen(about, "rb") as told:
            first = json.loads(told.read() or b"{}")["child-pid"]
        if server.process.poll() is None:  # bwrap waits for it, so the number is still its own
            os.kill(first, signal.SIGKILL)
    server.close()


# --- several -----------------------------------------------------------------------------------------------


class Sandboxes:
    """A few sandboxes side by side; they start when first needed, and a lost one is replaced."""

    def __init__(self, limits: Limits | None = None, workers: int | None = None) -> None:
        self.limits = limits or Limits()
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
        self.workers = workers or min(cores, 16)
        self.idle: SimpleQueue[Sandbox] = SimpleQueue()

    def ready(self) -> None:
        """Start one sandbox now: refused in one sentence where there can be none."""
        self.idle.put(self._taken())

    def run(self, programs: Sequence[Program]) -> list[Answer]:
        """One answer for each program, in order."""
        with ThreadPoolExecutor(self.workers) as threads:
            return list(threads.map(self._one, programs))

    def _taken(self) -> Sandbox:
        try:
            return self.idle.get_nowait()
        except Empty:
            return Sandbox()

    def _one(self, program: Program) -> Answer:
        """Twice at most: a sandbox may be lost to the machine's memory, which is not the program's fault."""
        why = "the sandbox was lost"
        for _ in range(2):
            try:
                sandbox = self._taken()
            except (Refused, OSError) as error:
                why = f"no new sandbox: {error}"[:200]
                continue
            try:
                answer = sandbox.run(program, self.limits)
            except Lost:
                sandbox.close()
                continue
            self.idle.put(sandbox)
            return answer
        return Answer(None, why, lost=True)
