"""None of the attacking programs gets through, or gets reward; without the sandbox they do, so the tests can fail."""

import contextlib
import json
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pyseccomp
import pytest

from tests.sandbox.attacks import AGAINST_US, ALL, FORGERIES, READS, TOOLS, WRITES
from whet.sandbox import Limits, Program, Sandbox, Sandboxes, filters
from whet.sandbox.server import Server
from whet.tasks import Problem
from whet.tasks.code import Code

LIMITS = Limits(seconds=1)
PLAIN = "import json, sys\nsource, world = json.load(sys.stdin)\nexec(source)\nr = f(world)\nsys.exit(0 if r else 3)"
FIRST_JUDGE = (
    "import json, sys\nsource, calls, expected = json.load(sys.stdin)\nspace = {}\nexec(source, space)\n"
    "ok = all(space['f'](*x) == y for x, y in zip(calls, expected))\n"
    "print('PASS' if ok else 'FAIL')\nsys.exit(0 if ok else 1)"
)


class World:
    """Things that an attack could reach, and whether it did."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.word = folder, f"whet-{secrets.token_hex(8)}"
        (folder / "out").mkdir(parents=True)
        (folder / "secret").write_text(self.word)
        (folder / "victim").write_text("as it was")
        (folder / "module.py").write_text(f"SECRET = {self.word!r}")
        self.canary = subprocess.Popen(["sleep", "600"], env={**os.environ, "WHET_SECRET": self.word})
        self.tcp, self.udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        self.unix, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        at = [("127.0.0.1", 0), ("127.0.0.1", 0), str(folder / "unix"), "\0" + self.word]
        self.sockets = (self.tcp, self.udp, self.unix, self.abstract)
        for one, address in zip(self.sockets, at, strict=True):
            one.bind(address)
            one.setblocking(False)
            if one is not self.udp:
                one.listen()
        self.signals: list[int] = []
        self.before = self.state()

    def about(self) -> dict:
        names = {name: str(self.folder / name) for name in ("secret", "victim", "out", "unix")}
        ports = {"tcp": self.tcp.getsockname()[1], "udp": self.udp.getsockname()[1]}
        places = {"home": str(Path.home()), "package": str(Path(__file__).parents[2])}
        return {**names, **ports, **places, "module": names["secret"][:-6] + "module.py", "word": self.word,
                "canary": self.canary.pid}  # fmt: skip

    def state(self) -> list:
        """Everything that an attack could have changed."""
        files = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_socket() or path.is_fifo() or path.is_char_device():
                files[str(path)] = ("special",)
                continue
            about = path.lstat()
            files[str(path)] = (about.st_mode, about.st_size, int(about.st_mtime), about.st_nlink)
        pid = self.canary.pid
        alive = self.canary.poll() is None and "T" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
        nice = os.getpriority(os.PRIO_PROCESS, pid) if alive else None
        return [files, alive, nice, os.sched_getaffinity(pid) if alive else None, self._called(), len(self.signals)]

    def _called(self) -> int:
        count = 0
        for one in self.sockets:
            with contextlib.suppress(BlockingIOError):
                one.recv(99) if one is self.udp else one.accept()
                count += 1
        return count

    def close(self) -> None:
        self.canary.kill()
        self.canary.wait()
        for one in self.sockets:
            one.close()


@pytest.fixture
def world(tmp_path, monkeypatch):
    made = World(tmp_path / "world")
    monkeypatch.setenv("WHET_SECRET", made.word)
    before = signal.signal(signal.SIGUSR1, lambda *_: made.signals.append(1))
    yield made
    signal.signal(signal.SIGUSR1, before)
    made.close()


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("WHET_SECRET", "whet-of-the-parent")
    made = Sandboxes(LIMITS, workers=2)
    made.ready()
    yield made
    patch.undo()


def test_there_are_many_of_them():
    names = [attack.name for attack in ALL]
    assert len(set(names)) == len(names)
    assert len(names) + len(FORGERIES) + len(AGAINST_US) >= 100


def test_no_attack_gets_through(world, boxes):
    answers = boxes.run([Program(attack.source, "f", ((world.about(),),)) for attack in ALL])
    for attack, answer in zip(ALL, answers, strict=True):
        worked = answer.values is not None and any(answer.values)
        assert not worked, f"{attack.name} got {answer.values}"
        assert not answer.lost, f"{attack.name} took its sandbox with it"
        assert world.word not in repr(answer), attack.name
    assert world.state() == world.before
    [right] = boxes.run([Program("def f(x): return x + 1", "f", ((1,),))])
    assert right.values == [2]
    assert boxes.idle.qsize() <= 2


@pytest.mark.parametrize("attack", [a for a in ALL if a.safe], ids=lambda attack: attack.name)
def test_without_the_sandbox_it_does(attack, world):
    if attack.root and os.getuid() != 0:
        pytest.skip("only root can do this")
    if "syscall(" in attack.source.removeprefix(TOOLS) and platform.machine() != "x86_64":
        pytest.skip("its system call has another number here")
    given = json.dumps([attack.source, world.about()])
    paths = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "WHET_SECRET": world.word}
    done = subprocess.run(
        [sys.executable, "-S", "-c", PLAIN] if "judge" not in attack.name else [sys.executable, "-c", PLAIN],
        input=given, text=True, capture_output=True, env=paths, timeout=30,
    )  # fmt: skip
    changed = world.state() != world.before
    assert done.returncode == 0 or changed, done.stderr[-500:]


def test_without_the_filter_the_namespaces_still_keep_what_is_outside(world, monkeypatch):
    """Two layers: each is tested without the other. What gets through here ends at the sandbox's own walls."""
    everything = filters._bytes(pyseccomp.SyscallFilter(pyseccomp.ALLOW))
    monkeypatch.setattr(filters, "computing_only", lambda: everything)
    monkeypatch.setattr(Sandbox, "_prove", lambda _: None)
    attacks = [attack for attack in ALL if attack.name not in ("bombs", "kills-everything", "kills-the-server")]
    answers = Sandboxes(Limits(seconds=1, wall=2.0), 2).run(
        [Program(attack.source, "f", ((world.about(),),)) for attack in attacks]
    )
    through = {a.name for a, answer in zip(attacks, answers, strict=True) if answer.values and any(answer.values)}
    assert {"forks", "listens"} <= through  # so it is the filter that stops these
    assert not through & {attack.name for attack in (*READS, *WRITES)}
    assert world.word not in repr(answers)
    assert world.state() == world.before


# --- reward ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task():
    return Code(size=8, seconds=1)


def test_no_forgery_gets_reward_and_none_is_unknown(task):
    for problem in task.train():
        names = [*FORGERIES, *AGAINST_US]
        texts = [({**FORGERIES, **AGAINST_US})[name] for name in names]
        found = task.judge([problem] * (len(texts) + 1), [*texts, task.demonstrate(problem)])
        for name, verdict in zip(names, found[:-1], strict=True):
            assert verdict.score == 0.0, f"{name} got {verdict}"
            assert not verdict.correct
        assert found[-1].correct  # whatever the others left behind


def test_what_the_calls_should_return_is_never_sent(task, monkeypatch):
    sent = []
    tell = Server.tell
    monkeypatch.setattr(Server, "tell", lambda server, line, until: (sent.append(line), tell(server, line, until)))
    about = {"calls": [["argument-77aa"]], "expected": ["expected-8c1f"]}
    problem = Problem(id="x", prompt="def f(s):\n", answer="", about=about)
    found = task.judge([problem] * 2, ["    return 'expected' + '-8c1f'", "    return s"])
    assert [verdict.score for verdict in found] == [1.0, 0.0]
    assert any("argument-77aa" in line for line in sent)
    assert not any("expected-8c1f" in line for line in sent)


@pytest.mark.parametrize("name", FORGERIES)
def test_the_judge_that_one_writes_first_believes_it(name, task):
    problem = task.train()[0]
    given = json.dumps([FORGERIES[name], problem.about["calls"], problem.about["expected"]])
    done = subprocess.run([sys.executable, "-S", "-c", FIRST_JUDGE], input=given, text=True, capture_output=True)
    assert "PASS" in done.stdout or done.returncode == 0
