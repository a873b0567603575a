"""A process that is asked and answers: a line of JSON goes in, a line of JSON and some bytes come out, in time.

Nothing of what it says is believed: no pickle is read, and a reader that is kept waiting gives up.
"""

import contextlib
import json
import os
import select
import subprocess
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST_LINE = 16 << 20  # bytes of an answer without an end


class Lost(Exception):
    """No answer came. `code` is how the process ended by itself; None where it goes on, or says nonsense."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__(code)
        self.code = code


class Server:
    """One such process; it is killed when the last reference to this object is gone, or the interpreter ends."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], **more: Any) -> None:
        pipe = subprocess.PIPE
        more = {"stderr": subprocess.DEVNULL, **more}
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, env=dict(env), bufsize=0, **more)
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()  # type: ignore[union-attr]
        os.set_blocking(self._in, False)
        self._end = os.pidfd_open(self.process.pid) if hasattr(os, "pidfd_open") else None
        self._rest = b""
        self.close = weakref.finalize(self, _close, self.process, self._end)

    def ask(self, request: Any, seconds: float) -> tuple[dict[str, Any], bytes]:
        """The answer to a request, within so many seconds."""
        until = time.monotonic() + seconds
        self.tell(json.dumps(request), until)
        return self.hear(until)

    def tell(self, line: str, until: float) -> None:
        """Send one line."""
        text = line.encode() + b"\n"
        while text:
            self._wait(until, self._in, select.POLLOUT)
            try:
                text = text[os.write(self._in, text) :]
            except BlockingIOError:
                continue
            except OSError:
                raise Lost(self._code()) from None

    def hear(self, until: float) -> tuple[dict[str, Any], bytes]:
        """The next answer: its line, and the bytes that the line announces."""
        while b"\n" not in self._rest:
            self._more(until)
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            head = json.loads(line)
            count = int(head.get("bytes", 0))
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise Lost from None
        while len(self._rest) < count:
            self._more(until)
        said, self._rest = self._rest[:count], self._rest[count:]
        return head, said

    def _more(self, until: float) -> None:
        self._wait(until, self._out, select.POLLIN)
        more = os.read(self._out, 1 << 16)
        if not more or len(self._rest) > LONGEST_LINE:
            raise Lost(self._code())
        self._rest += more

    def _wait(self, until: float, pipe: int, event: int) -> None:
        """Until the pipe is ready; Lost when the process ends first, or the time is over."""
        poll = select.poll()
        poll.register(pipe, event)
        if self._end is not None:  # a pipe can outlive the process, in the hands of one that it started
            poll.register(self._end, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(max(until - time.monotonic(), 0) * 1000)]
        if pipe not in ready:
            raise Lost(self._code() if ready else None)

    def _code(self) -> int | None:
        """How the process ended; None if it did not, soon."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(1.0)
        return None


def _close(process: "subprocess.Popen[bytes]", end: int | None) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()
    if end is not None:
        os.close(end)
