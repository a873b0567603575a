"""What runs inside the sandbox. It is given to a bare Python as one file, so it imports the standard library only.

    parent  ──request──►  server  ──fork──►  child: limits, filter, the program, its calls
            ◄──answer───          ◄──bytes──

The server runs no program: each gets a fork of it that can compute, read Python's library and write to one pipe,
and nothing else. It passes on the child's bytes unread. What the calls should return is known to the parent only,
so there is nothing here to be read, and a program that forges its answers has to know them.
"""

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time

# Imported before the fork, so that a program that imports them costs nothing; any other module of the library loads.
USUAL = (
    "bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools", "math",
    "operator", "random", "re", "statistics", "string", "typing",
)  # fmt: skip
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER_MODE = 38, 22, 2


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("rules", ctypes.c_char_p))


libc = ctypes.CDLL(None, use_errno=True)


def install(rules):
    """Put the calling thread, and all that it starts, under a seccomp filter (struct sock_filter[]), for good."""
    program = _Filter(len(rules) // 8, rules)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, FILTER_MODE, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")


def serve():
    """Read requests from standard input, a line of JSON each, and answer each with a line and the child's bytes."""
    for name in USUAL:
        __import__(name)
    os.environ.clear()
    sys.setrecursionlimit(10_000)
    rules = bytes.fromhex(sys.stdin.readline())
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open("/dev/null", os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    answers.write(b'{"ready": true}\n')
    answers.flush()
    for line in sys.stdin:
        said, how, lost = _in_child(json.loads(line), rules, nowhere)
        answers.write(json.dumps({"how": how, "lost": lost, "bytes": len(said)}).encode() + b"\n" + said)
        answers.flush()


def _in_child(request, rules, nowhere):
    """What the child wrote, how it ended ("", or a short phrase), and whether that was the machine's fault."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become_program(request, rules, nowhere, writing)
        finally:
            os._exit(70)
    os.close(writing)
    how = "nobody waits for it"
    try:
        said, how, lost = _collected(reading, request["wall"], request["output"])
    finally:
        os.close(reading)
        if how:  # otherwise it ends by itself: it cannot wait, and the kernel bounds what it computes
            os.kill(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if not how and code:
        computed = used.ru_utime + used.ru_stime
        if code == -signal.SIGXCPU or (code == -signal.SIGKILL and computed >= request["seconds"]):
            how = "took too long"
        elif code == -signal.SIGKILL:  # a program can signal nobody, itself included
            how, lost = "the system killed it", True
        else:
            how = f"ended with {_named(code)}"
    return said, how, lost


def _named(code):
    try:
        return signal.Signals(-code).name if code < 0 else f"status {code}"
    except ValueError:
        return f"signal {-code}"


def _collected(reading, wall, limit):
    """All bytes until the child ends, unless it says too much, or the machine has no time for it."""
    until, said = time.monotonic() + wall, b""
    while True:
        left = until - time.monotonic()
        ready = select.select([reading, 0], [], [], left)[0] if left > 0 else []
        if not ready:
            return b"", f"the machine had no time for it within {wall:.3g} s", True
        if 0 in ready:  # nothing is asked before this is answered: so it is the end, and nobody waits for an answer
            raise SystemExit
        more = os.read(reading, 65536)
        if not more:
            return said, "", False
        said += more
        if len(said) > limit:
            return b"", "said too much", False


# --- in the child ------------------------------------------------------------------------------------------


def _become_program(request, rules, nowhere, writing):
    os.dup2(nowhere, 0)
    os.dup2(writing, 3)
    os.closerange(4, 256)
    seconds = request["seconds"]
    limits: dict[str, object] = {
        "CPU": (seconds, seconds + 1),
        "AS": request["memory"],
        "FSIZE": 0,
        "NOFILE": 32,
        "NPROC": 0,
        "CORE": 0,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
        "STACK": (64 << 20, 64 << 20),
    }
    for name, value in limits.items():
        pair = value if isinstance(value, tuple) else (value, value)
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), pair)
    install(rules)
    said = _answers(request["source"], request["entry"], request["calls"])
    while said:
        said = said[os.write(3, said) :]
    os._exit(0)


def _answers(source, entry, calls):
    """The results of all calls as one JSON text; where something is raised, its name and where."""
    dumps = json.dumps
    try:
        space: dict = {"__name__": "program"}
        exec(compile(source, "program", "exec", dont_inherit=True), space)
        function = space[entry]
        return dumps({"values": [function(*arguments) for arguments in calls]}, allow_nan=False).encode()
    except MemoryError:
        return b'{"raised": "MemoryError"}'
    except BaseException as error:
        return dumps({"raised": type(error).__name__[:60]}).encode()


if __name__ == "__main__":
    serve()
