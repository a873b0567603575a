"""Hostile judges: whatever one does, its own response is unknown with the reason, and nothing else happens."""

import os
import signal
import time

import pytest

from whet.tasks import judging, processes
from whet.tasks.judging import Judge

JUDGE = '''
import ctypes, os, signal, subprocess, sys, time

class Own(BaseException): pass
class Float(float):
    def __float__(self): raise ZeroDivisionError
class Many:
    shape, item = (3,), None

def stubborn():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

def canary(path):
    """What a process that is left behind would do: write a moment later."""
    time.sleep(1.5)
    open(path, "w").close()
    os._exit(0)

def forked(path):
    if os.fork() == 0: canary(path)

def daemon(path):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: canary(path)
        os._exit(0)

def judge(response, path=""):
    act = response.split()[0]
    if act == "raises": raise KeyError("private")
    if act == "own": raise Own
    if act == "interrupts": raise KeyboardInterrupt
    if act == "exits": sys.exit(0)
    if act == "generator": raise GeneratorExit
    if act == "nan": return float("nan")
    if act == "inf": return -float("inf")
    if act == "huge": return 10**400
    if act == "text": return "1"
    if act == "bytes": return b"x" * 100_000_000
    if act == "list": return [1.0, 2.0]
    if act == "array": return Many()
    if act == "complex": return 1j
    if act == "float": return Float(1)
    if act == "name": raise type("N" * 10**6 + "\\n", (Exception,), {})
    if act == "prints":
        for _ in range(100): print("x" * 1_000_000)
    if act == "descriptor":
        for _ in range(3): os.write(2, b"x" * 1_000_000)
    if act == "hangs": time.sleep(60)
    if act == "stubborn": stubborn()
    if act == "blocks":
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        time.sleep(60)
    if act == "stops": os.kill(os.getpid(), signal.SIGSTOP)
    if act == "dies": os._exit(3)
    if act == "aborts": os.abort()
    if act == "segfaults": ctypes.string_at(0)
    if act == "memory": return len(bytearray(10**11))
    if act == "fills":
        kept = []
        while True: kept.append(bytearray(10**7))
    if act == "recursion": return judge(response)
    if act == "forks": os.fork()
    if act == "forked": forked(path)
    if act == "daemon": daemon(path)
    if act == "program": subprocess.Popen(["sh", "-c", f"sleep 1.5; touch {path}"], start_new_session=True)
    if act == "daemon-and-hangs":
        daemon(path)
        time.sleep(60)
    if act == "daemon-and-dies":
        daemon(path)
        time.sleep(0.2)
        os._exit(4)
    if act == "closes": os.closerange(3, 256)
    if act == "signals": os.kill(os.getppid(), signal.SIGUSR1)
    if act == "signals-all": os.kill(-1, signal.SIGUSR1)
    if act == "quiet-signal":
        try: os.kill(os.getppid(), signal.SIGUSR1)
        except OSError: pass
    return True
'''

REASONS = {
    "raises": "judge raised KeyError",
    "own": "judge raised Own",
    "interrupts": "judge raised KeyboardInterrupt",
    "exits": "judge raised SystemExit",
    "generator": "judge raised GeneratorExit",
    "nan": "judge returned nan",
    "inf": "judge returned -inf",
    "huge": "judge returned a number too large",
    "text": "judge returned str, not a number",
    "bytes": "judge returned bytes, not a number",
    "list": "judge returned a list of 2, not a number",
    "array": "judge returned 3 numbers, not one",
    "complex": "judge returned complex, not a number",
    "float": "judge raised ZeroDivisionError",
    "name": "judge raised " + "N" * 60,
    "prints": "judge printed over 1 MB",
    "descriptor": "judge printed over 1 MB",
    "hangs": "judge took over 0.7 s",
    "stubborn": "judge took over 0.7 s",
    "blocks": "judge took over 0.7 s",
    "stops": "judge took over 0.7 s",
    "dies": "judge process ended with status 3",
    "closes": "judge process ended with status 1",
    "aborts": "judge process was ended by SIGABRT",
    "segfaults": "judge process was ended by SIGSEGV",
    "memory": "judge process took too much memory",
    "fills": "judge process took too much memory",
    "recursion": "judge raised RecursionError",
    "forks": "judge left a process behind",
    "forked": "judge left a process behind",
    "daemon": "judge left a process behind",
    "program": "judge left a process behind",
    "daemon-and-hangs": "judge took over 0.7 s",
    "daemon-and-dies": "judge process ended with status 4",
    "signals": "judge raised PermissionError",
    "signals-all": "judge raised PermissionError",
    "quiet-signal": "",
}
LEAVES = [act for act in REASONS if act.startswith(("forked", "daemon", "program"))]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    path = tmp_path_factory.mktemp("judges") / "hostile.py"
    path.write_text(JUDGE)
    return f"{path}:judge"


@pytest.fixture
def signals():
    """The SIGUSR1 that arrive at this process."""
    came = []
    before = signal.signal(signal.SIGUSR1, lambda *_: came.append(1))
    yield came
    signal.signal(signal.SIGUSR1, before)


def rows(acts, folder):
    return [{"response": f"{act} {i}", "path": str(folder / f"{act}-{i}")} for i, act in enumerate(acts)]


def test_whatever_a_judge_does_only_its_own_response_is_unknown_and_nothing_is_left(named, tmp_path, signals, capfd):
    judge = Judge(named, seconds=0.7, memory=300_000_000, retries=0)  # filled long before the time is up
    acts = [act for hostile in REASONS for act in (hostile, "fine")]
    found = judge(rows(acts, tmp_path))
    assert {act: reason for act, (_, reason) in zip(acts, found, strict=True) if act != "fine"} == REASONS
    assert found[1::2] == [(1.0, "")] * len(REASONS)
    time.sleep(1.8)
    assert not list(tmp_path.iterdir())  # no process that was left behind lived to write its file
    assert not signals
    assert "x" * 1000 not in capfd.readouterr().out
    del judge
    assert not [pid for pid, of in processes.parents().items() if of == os.getpid() and _is_worker(pid)]


def _is_worker(pid):
    try:
        return b"whet.tasks.worker" in open(f"/proc/{pid}/cmdline", "rb").read()
    except OSError:
        return False


def test_without_the_guards_the_same_judges_do_their_harm(named, tmp_path, signals, monkeypatch):
    """Otherwise the test above could not fail."""
    monkeypatch.setattr(judging, "_rules", lambda: b"")
    monkeypatch.setattr(processes, "stop_orphans", lambda: None)
    judge = Judge(named, seconds=0.7, retries=0)
    found = judge(rows(["signals", "daemon-and-dies"], tmp_path))
    assert found[0] == (1.0, "")
    time.sleep(2)
    assert signals
    assert list(tmp_path.iterdir())


def test_a_judge_that_writes_nonsense_into_the_pipes_costs_one_response(tmp_path):
    path = tmp_path / "breaks.py"
    path.write_text(
        "import os\n"
        "def judge(response):\n"
        "    if response != 'garbage': return 1\n"
        "    for fd in range(3, 64):\n"
        "        try:\n"
        "            if not os.get_blocking(fd): continue\n"
        "            os.write(fd, b'\\x7f\\xff\\xff\\xff and no more')\n"
        "        except OSError: pass\n"
        "    os._exit(1)\n"
    )
    judge = Judge(f"{path}:judge", seconds=0.5, retries=0)
    found = judge([{"response": "fine"}, {"response": "garbage"}, {"response": "fine"}])
    assert [score for score, _ in found] == [1.0, None, 1.0]
    assert found[1][1].startswith("judge ")


def test_a_call_that_fails_now_and_then_is_tried_again(tmp_path):
    path = tmp_path / "flaky.py"
    path.write_text(
        "import os\n"
        "def judge(response):\n"
        f"    seen = {str(tmp_path)!r} + '/seen-' + response\n"
        "    if not os.path.exists(seen):\n"
        "        open(seen, 'w').close()\n"
        "        raise ConnectionError\n"
        "    return 0.5\n"
    )
    once = [{"response": str(i)} for i in range(4)]
    assert Judge(f"{path}:judge", retries=0)(once) == [(None, "judge raised ConnectionError")] * 4
    assert Judge(f"{path}:judge")([{"response": str(i)} for i in range(4, 8)]) == [(0.5, "")] * 4


def test_a_judge_that_always_hangs_is_given_up_before_the_night_is_over(tmp_path, monkeypatch):
    path = tmp_path / "hangs.py"
    path.write_text("import time\ndef judge(response): time.sleep(60)\n")
    monkeypatch.setattr(judging, "MOST_HANGING", 4)
    judge = Judge(f"{path}:judge", seconds=0.2, retries=0)
    started = time.perf_counter()
    reasons = [reason for _, reason in judge([{"response": "x"}] * 200)]
    assert time.perf_counter() - started < 20
    assert reasons.count("judge took over 0.2 s") >= 4
    assert reasons[-1].startswith("judge was asked no more after")


def test_a_slow_import_is_no_time_out(tmp_path):
    path = tmp_path / "slow.py"
    path.write_text("import time\ntime.sleep(1.5)\ndef judge(response): return 1\n")
    judge = Judge(f"{path}:judge", seconds=0.3, retries=0)
    assert judge([{"response": "x"}] * 200) == [(1.0, "")] * 200


def test_what_a_judge_starts_when_imported_may_live_on(tmp_path):
    path = tmp_path / "helped.py"
    path.write_text(
        "import subprocess\n"
        "helper = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "def judge(response):\n"
        "    helper.stdin.write(b'1\\n')\n"
        "    helper.stdin.flush()\n"
        "    return float(helper.stdout.readline())\n"
    )
    assert Judge(f"{path}:judge", retries=0)([{"response": "x"}] * 5) == [(1.0, "")] * 5
