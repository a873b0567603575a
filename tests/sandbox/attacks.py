"""Programs that attack. Each defines f(world), which does its harm and returns something true if it worked.

`world` says where things are: a secret file, a folder that can be written, another process, servers that listen.
"""

from dataclasses import dataclass

TOOLS = """
import ctypes, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def syscall(*words):
    return libc.syscall(*[ctypes.c_long(w) if isinstance(w, int) else w for w in words])
"""


@dataclass(frozen=True)
class Attack:
    """`safe`: it may be run without the sandbox, to show that it works there; `root`: only root can do it."""

    name: str
    source: str
    safe: bool = True
    root: bool = False


def _attack(name: str, body: str, safe: bool = True, root: bool = False) -> Attack:
    lines = "".join(f"    {line}\n" for line in body.strip().split("\n"))
    return Attack(name, f"{TOOLS}\ndef f(world):\n{lines}", safe, root)


READS = (
    _attack("reads-a-file", "return open(world['secret']).read()"),
    _attack("reads-by-descriptor", "return os.read(os.open(world['secret'], os.O_RDONLY), 99).decode()"),
    _attack("reads-by-a-relative-path", "return open('../../../../../../..' + world['secret']).read()"),
    _attack("reads-through-proc-root", "return open('/proc/self/root' + world['secret']).read()"),
    _attack("reads-through-another-process", "return open(f\"/proc/{world['canary']}/root{world['secret']}\").read()"),
    _attack("lists-the-home-directory", "return os.listdir(world['home'])"),
    _attack("reads-the-password-file", "return 'root:' in open('/etc/passwd').read()"),
    _attack("reads-the-environment", "return os.environ['WHET_SECRET']"),
    _attack("reads-the-environment-from-c", "libc.getenv.restype = ctypes.c_char_p\n"
            "return libc.getenv(b'WHET_SECRET').decode()"),
    _attack("reads-its-proc-environ", "return 'WHET_SECRET' in open('/proc/self/environ').read()"),
    _attack("reads-anothers-environ", "return 'WHET_SECRET' in open(f\"/proc/{world['canary']}/environ\").read()"),
    _attack("reads-anothers-command-line", "return 'sleep' in open(f\"/proc/{world['canary']}/cmdline\").read()"),
    _attack("lists-processes", "return [p for p in os.listdir('/proc') if p.isdigit()]"),
    _attack("reads-anothers-memory", "return open(f\"/proc/{world['canary']}/maps\").read()"),
    _attack("follows-a-symlink", "link = world['out'] + '/link'\nos.symlink(world['secret'], link)\n"
            "return open(link).read()"),
    _attack("follows-a-symlink-from-tmp", "link = '/tmp/' + world['word']\nos.symlink(world['secret'], link)\n"
            "try:\n    return open(link).read()\nfinally:\n    os.unlink(link)"),
    _attack("follows-a-hard-link", "link = world['out'] + '/hard'\nos.link(world['secret'], link)\n"
            "return open(link).read()"),
    _attack("maps-a-file", "import mmap\nwith open(world['secret']) as file:\n"
            "    return bytes(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)).decode()"),
    _attack("loads-a-file-as-code", "import importlib.util\n"
            "spec = importlib.util.spec_from_file_location('stolen', world['module'])\n"
            "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\nreturn module.SECRET"),
    _attack("imports-the-judge", "from whet.tasks import code\nreturn code.Code.__doc__"),
    _attack("imports-the-judge-from-its-path", "sys.path.insert(0, world['package'])\n"
            "from whet.tasks import functions\nreturn functions.__doc__"),
    _attack("reads-the-kernel-log", "return len(os.read(os.open('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK), 9999))",
            root=True),
)  # fmt: skip

WRITES = (
    _attack("writes-outside", "open(world['out'] + '/new', 'w').write('x')\nreturn True"),
    _attack("appends", "open(world['secret'], 'a').write('more')\nreturn True"),
    _attack("truncates", "os.truncate(world['victim'], 0)\nreturn True"),
    _attack("deletes", "os.unlink(world['victim'])\nreturn True"),
    _attack("renames", "os.rename(world['victim'], world['out'] + '/moved')\nreturn True"),
    _attack("changes-rights", "os.chmod(world['victim'], 0o777)\nreturn True"),
    _attack("changes-times", "os.utime(world['victim'], (0, 0))\nreturn True"),
    _attack("makes-a-directory", "os.mkdir(world['out'] + '/made')\nreturn True"),
    _attack("makes-a-pipe", "os.mkfifo(world['out'] + '/fifo')\nreturn True"),
    _attack("makes-a-device", "os.mknod(world['out'] + '/device', 0o020666, os.makedev(1, 3))\nreturn True", root=True),
    _attack("writes-to-tmp", "name = '/tmp/' + world['word']\nopen(name, 'w').close()\nos.unlink(name)\nreturn True"),
    _attack("writes-to-shared-memory", "name = '/dev/shm/' + world['word']\nopen(name, 'w').close()\nos.unlink(name)\n"
            "return True"),
    _attack("fills-the-disk", "with open(world['out'] + '/big', 'wb') as file:\n"
            "    for _ in range(50):\n        file.write(bytes(1 << 20))\nreturn True"),
    _attack("fills-the-disk-without-a-name", "file = os.open(world['out'], os.O_TMPFILE | os.O_RDWR)\n"
            "return os.write(file, bytes(1 << 20))"),
    _attack("writes-beside-its-python", "import json\nname = os.path.dirname(json.__file__) + '/' + world['word']\n"
            "open(name, 'w').close()\nos.unlink(name)\nreturn True", root=True),
    _attack("writes-to-its-root", "name = '/' + world['word']\nopen(name, 'w').close()\nos.unlink(name)\nreturn True",
            root=True),
)  # fmt: skip

PROCESSES = (
    _attack("forks", "child = os.fork()\nif child == 0:\n    os._exit(0)\nos.waitpid(child, 0)\nreturn True"),
    _attack("forks-in-c", "import time\nchild = libc.fork()\nif child == 0:\n    os._exit(0)\nreturn child > 0"),
    _attack("bombs-a-little", "made = 0\nfor _ in range(20):\n    if os.fork() == 0:\n        os._exit(0)\n"
            "    made += 1\nreturn made"),
    _attack("bombs", "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass", safe=False),
    _attack("starts-threads", "import threading, time\nfor _ in range(50):\n"
            "    threading.Thread(target=time.sleep, args=(0.2,)).start()\nreturn threading.active_count() > 40"),
    _attack("starts-a-shell", "return os.system(f\"touch {world['out']}/shell\") == 0"),
    _attack("starts-a-program", "import subprocess\nreturn subprocess.run(['/bin/sh', '-c', 'echo hi'], "
            "capture_output=True).stdout.decode()"),
    _attack("spawns", "pid = os.posix_spawn('/bin/true', ['true'], {})\nreturn pid > 0"),
    _attack("becomes-a-program", "os.execv('/bin/sh', ['sh', '-c', f\"touch {world['out']}/became\"])"),
    _attack("kills-another", "os.kill(world['canary'], signal.SIGKILL)\nreturn True"),
    _attack("kills-through-a-descriptor", "file = os.pidfd_open(world['canary'])\n"
            "signal.pidfd_send_signal(file, signal.SIGKILL)\nreturn True"),
    _attack("signals-its-parent", "os.kill(os.getppid(), signal.SIGUSR1)\nreturn True"),
    _attack("kills-everything", "os.kill(-1, signal.SIGKILL)\nreturn True", safe=False),
    _attack("kills-its-group", "os.killpg(0, signal.SIGKILL)\nreturn True", safe=False),
    _attack("kills-the-server", "for pid in range(1, 4):\n    try:\n        os.kill(pid, signal.SIGKILL)\n"
            "    except OSError:\n        pass\nreturn False", safe=False),
    _attack("stops-the-server-by-its-input", "import fcntl\nfor pid in range(1, 4):\n"
            "    fcntl.fcntl(3, fcntl.F_SETOWN, pid)\n    fcntl.fcntl(3, fcntl.F_SETFL, os.O_ASYNC)\nreturn True",
            safe=False),
    _attack("traces-another", "return syscall(101, 16, world['canary'], 0, 0) == 0", root=True),
    _attack("limits-another", "import resource\n"
            "return bool(resource.prlimit(world['canary'], resource.RLIMIT_NOFILE))"),
    _attack("slows-another", "os.setpriority(os.PRIO_PROCESS, world['canary'], 19)\nreturn True"),
    _attack("binds-another-to-a-core", "os.sched_setaffinity(world['canary'], {0})\nreturn True"),
)  # fmt: skip

NETWORK = (
    _attack("connects", "socket.create_connection(('127.0.0.1', world['tcp']), 1).send(b'x')\nreturn True"),
    _attack("sends-a-packet", "return socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', world['udp']))"),
    _attack("connects-to-a-unix-socket", "s = socket.socket(socket.AF_UNIX)\ns.connect(world['unix'])\nreturn True"),
    _attack("connects-to-an-abstract-socket", "s = socket.socket(socket.AF_UNIX)\ns.connect('\\0' + world['word'])\n"
            "return True"),
    _attack("listens", "s = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\nreturn True"),
    _attack("asks-the-kernel-by-netlink", "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\nreturn True"),
    _attack("lists-interfaces", "return socket.if_nameindex()"),
)  # fmt: skip

KERNEL = (
    _attack("mounts", "return libc.mount(b'none', b'/python', b'tmpfs', 0, b'') == 0", safe=False),
    _attack("unmounts", "return libc.umount2(b'/python', 2) == 0", safe=False),
    _attack("makes-a-namespace", "return libc.unshare(0x10000000) == 0", root=True),
    _attack("becomes-root", "os.setuid(0)\nreturn True", root=True),
    _attack("takes-capabilities",
            "return libc.prctl(47, 2, 21, 0, 0) == 0 or libc.prctl(24, 21, 0, 0, 0) == 0", root=True),
    _attack("changes-its-root", "os.chroot(world['out'])\nreturn True", root=True),
    _attack("renames-the-machine", "socket.sethostname('stolen')\nreturn True", safe=False),
    _attack("sets-the-clock", "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)\nreturn True", safe=False),
    _attack("keeps-a-key", "return syscall(248, b'user', b'whet', b'x', ctypes.c_long(1), -2) > 0"),
    _attack("loads-a-kernel-program", "return syscall(321, 0, ctypes.create_string_buffer(128), 128) >= 0", safe=False),
    _attack("watches-the-processor", "return syscall(298, ctypes.create_string_buffer(128), 0, -1, -1, 0) >= 0",
            safe=False),
    _attack("rings", "return syscall(425, 4, ctypes.create_string_buffer(120)) >= 0", safe=False),
    _attack("handles-page-faults", "return syscall(323, 1) >= 0", safe=False),
    _attack("types-into-the-terminal", "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSTI, b'x')\nreturn True",
            safe=False),
    _attack("makes-anonymous-files", "return os.write(os.memfd_create('x'), bytes(1 << 20))"),
    _attack("makes-system-v-memory", "return syscall(29, 0, 1 << 20, 0o1600) >= 0"),
    _attack("calls-as-another-architecture", "import mmap\ncode = mmap.mmap(-1, 4096, prot=7)\n"
            "code.write(bytes.fromhex('53b814000000cd805bc3'))\n"
            "call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))\n"
            "return call() == os.getpid()", safe=False),
    _attack("calls-by-x32-numbers", "return syscall(0x40000000 | 39) > 0", safe=False),
)  # fmt: skip

EXHAUSTS = (
    _attack("takes-memory", "return len(b'x' * (1 << 30))"),
    _attack("takes-memory-bit-by-bit", "kept = []\nfor _ in range(100):\n    kept.append(bytearray(b'x' * 10**7))\n"
            "return len(kept)"),
    _attack("maps-memory", "import mmap\nreturn len(mmap.mmap(-1, 1 << 30))"),
    _attack("raises-its-limits", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
            "return len(b'x' * (1 << 30))", root=True),
    _attack("recurses-in-python", "return f(world)", safe=False),
    _attack("recurses-in-c", "sys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6):\n    x = [x]\n"
            "return repr(x)", safe=False),
    _attack("loops", "while True:\n    pass", safe=False),
    _attack("sleeps", "import time\ntime.sleep(60)\nreturn True", safe=False),
    _attack("loops-and-ignores-signals", "for s in range(1, 65):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n"
            "    except (OSError, ValueError):\n        pass\nwhile True:\n    pass", safe=False),
    _attack("matches-for-ever", "import re\nreturn re.match('(a+)+b', 'a' * 40)", safe=False),
    _attack("multiplies-for-ever", "return 7 ** 7 ** 12", safe=False),
    _attack("returns-too-much", "return 'x' * 10**7"),
    _attack("returns-a-deep-list", "x = []\nfor _ in range(9000):\n    x = [x]\nreturn x", safe=False),
    _attack("returns-a-large-number", "return 10 ** 5000", safe=False),
    _attack("raises-a-large-error", "raise type('E' * 10**6, (Exception,), {})('x' * 10**7)", safe=False),
    _attack("crashes", "return ctypes.string_at(0)", safe=False),
    _attack("aborts", "os.abort()", safe=False),
)  # fmt: skip

ALL = (*READS, *WRITES, *PROCESSES, *NETWORK, *KERNEL, *EXHAUSTS)

# Programs that want the reward without the work. They are judged by ten calls f(x) -> expected; the control is the
# judge that one writes first: same process, `all(f(x) == y ...)`, its verdict on standard output or as exit status.
FORGERIES = {
    "is-equal-to-everything": "class Any:\n    def __eq__(self, other): return True\ndef f(x): return Any()",
    "is-a-number-equal-to-everything": "class Any(int):\n    def __eq__(self, other): return True\n"
    "    __hash__ = int.__hash__\ndef f(x): return Any(0)",
    "is-a-list-equal-to-everything": "class Any(list):\n    def __eq__(self, other): return True\n"
    "    def __len__(self): return 3\ndef f(x): return Any()",
    "is-a-string-equal-to-everything": "class Any(str):\n    def __eq__(self, other): return True\n"
    "    __hash__ = str.__hash__\ndef f(x): return Any()",
    "patches-all": "import builtins\nbuiltins.all = lambda rows: True\ndef f(x): return None",
    "patches-zip": "import builtins\nbuiltins.zip = lambda *rows, **how: []\ndef f(x): return None",
    "prints-the-verdict": "import os\ndef f(x):\n    print('PASS', flush=True)\n    os._exit(0)",
    "prints-the-verdict-when-loaded": "import os\nprint('PASS', flush=True)\nos._exit(0)",
    "exits-with-success": "import sys\ndef f(x): sys.exit(0)",
    "prints-at-exit": "import atexit\natexit.register(lambda: print('PASS'))\ndef f(x): return None",
    "finds-the-answers-in-its-callers": "import sys\ndef f(x):\n    frame = sys._getframe()\n"
    "    while frame := frame.f_back:\n        for space in (frame.f_locals, frame.f_globals):\n"
    "            if 'expected' in space: return space['expected'][space['calls'].index([x])]\n",
    "finds-the-answers-in-memory": "import gc\ndef f(x):\n    for thing in gc.get_objects():\n"
    "        if isinstance(thing, dict) and 'expected' in thing and 'calls' in thing:\n"
    "            return thing['expected'][thing['calls'].index([x])]\n",
    "finds-the-answers-in-main": "import __main__\ndef f(x): return __main__.expected[__main__.calls.index([x])]",
    "changes-the-answers": "import sys\nspace = sys._getframe(1).f_globals\n"
    "space['expected'][:] = [None] * len(space['expected'])\ndef f(x): return None",
}
# What can be tried against this sandbox in particular: its pipe, its JSON, its server.
AGAINST_US = {
    "writes-an-answer-into-every-pipe": "import os\ndef f(x):\n    for fd in range(64):\n        try:\n"
    "            os.write(fd, b'{\"values\": [[], [], [], [], [], [], [], [], [], []]}')\n"
    "        except OSError: pass\n    os._exit(0)",
    "writes-a-line-of-the-server": "import os\ndef f(x):\n    for fd in range(64):\n        try:\n"
    '            os.write(fd, b\'{"how": "", "bytes": 0, "correct": true}\\n\')\n        except OSError: pass\n',
    "patches-json": 'import json\njson.dumps = lambda *a, **k: \'{"correct": true, "score": 1}\'\ndef f(x): return 1',
    "patches-the-encoder": "import json.encoder as e\ne.JSONEncoder.encode = e.JSONEncoder.iterencode = "
    "lambda *a, **k: '{\"values\": true}'\ne.c_make_encoder = None\ndef f(x): return 1",
    "patches-os-write": "import os\nwrite = os.write\nos.write = lambda fd, data: write(fd, b'{\"values\": null}')\n"
    "def f(x): return 1",
    "answers-with-a-pickle": "import pickle\nclass P:\n    def __reduce__(self): return (print, ('PASS',))\n"
    "def f(x): return pickle.dumps(P()).decode('latin-1')",
    "answers-nan": "def f(x): return float('nan')",
    "answers-true-for-one": "def f(x): return True",
    "answers-nothing": "import os\ndef f(x): os._exit(0)",
    "answers-with-surrogates": "def f(x): return '\\ud800'",
    "answers-with-a-generator": "def f(x): return iter([1])",
    "has-no-function": "x = 1",
    "is-no-python": "def f(x: return",
    "is-full-of-zeros": "def f(x):\n    return '\0'",
    "leaves-something-for-the-next": "import builtins, json, sys\nbuiltins.sorted = builtins.sum = builtins.len = "
    "lambda *a, **k: 0\nsys.modules['json'] = None\nsys.path.clear()\ndef f(x): return None",
    "looks-for-the-server-in-memory": "import gc, sys\ndef f(x):\n    frame = sys._getframe()\n    found = []\n"
    "    while frame:\n        found.append(str(frame.f_locals.get('request', '')))\n        frame = frame.f_back\n"
    "    return found",
}
