"""Seccomp filters, made once outside and given to a process as bytes (libseccomp writes them for this machine)."""

import errno
import os
import tempfile
from functools import lru_cache
from typing import Any

from whet.refusal import Refused

# What a program needs that computes, reads Python's library and writes to a pipe. Everything else is refused, so
# there is no new process or thread, no signal to another process, no socket, no mount, no trace. And no waiting: so a
# program that is late took processor time, which is bounded, or the machine had none for it, which is not its fault.
FREE = (
    "read", "readv", "pread64", "write", "writev", "close", "close_range", "lseek", "fstat", "stat", "lstat",
    "newfstatat", "statx", "access", "faccessat", "faccessat2", "getdents64", "getdents", "getcwd", "readlink",
    "readlinkat", "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "sigaltstack", "restart_syscall", "set_robust_list", "rseq", "membarrier", "sched_yield",
    "sched_getaffinity", "clock_gettime", "clock_getres", "gettimeofday", "time", "times", "getrusage", "getrandom",
    "getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "uname", "exit", "exit_group",
)  # fmt: skip
READING_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_DIRECTORY | 0o100000  # O_LARGEFILE
SENDS = ("kill", "tkill", "tgkill", "pidfd_open", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "prlimit64", "ptrace",
         "process_vm_writev")  # fmt: skip


def _seccomp() -> Any:
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError):  # it raises RuntimeError where libseccomp is missing
        raise Refused("libseccomp is missing: install it (Debian and Ubuntu: apt install libseccomp2).") from None
    return pyseccomp


@lru_cache(maxsize=1)
def computing_only() -> bytes:
    """For programs of a model: only what is in FREE, files for reading only, signals to nobody."""
    s = _seccomp()
    made = s.SyscallFilter(s.ERRNO(errno.EPERM))
    for name in FREE:
        _add(made, s.ALLOW, name)
    writing = 0xFFFFFFFF & ~READING_FLAGS
    _add(made, s.ALLOW, "openat", s.Arg(2, s.MASKED_EQ, writing, os.O_RDONLY))
    _add(made, s.ALLOW, "open", s.Arg(1, s.MASKED_EQ, writing, os.O_RDONLY))
    for wake in (1, 129):  # FUTEX_WAKE, private too; where there is one thread, waiting is waiting for ever
        _add(made, s.ALLOW, "futex", s.Arg(1, s.EQ, wake))
    for command in (1, 2, 3, 1030):  # F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC; not F_SETOWN, which sends signals
        _add(made, s.ALLOW, "fcntl", s.Arg(1, s.EQ, command))
    for request in (0x5451, 0x5401):  # FIOCLEX, TCGETS; not TIOCSTI, which types into a terminal
        _add(made, s.ALLOW, "ioctl", s.Arg(1, s.EQ, request))
    return _bytes(made)


@lru_cache(maxsize=8)
def sparing(pid: int, group: int) -> bytes:
    """For judges: no signal and no new limit to this process, to its group, or to every process at once."""
    s = _seccomp()
    made = s.SyscallFilter(s.ALLOW)
    for name in SENDS:
        place = 1 if name == "ptrace" else 0
        _add(made, s.ERRNO(errno.EPERM), name, s.Arg(place, s.MASKED_EQ, 0xFFFFFFFF, pid))
    for whole in {0xFFFFFFFF, -group & 0xFFFFFFFF, -pid & 0xFFFFFFFF}:
        _add(made, s.ERRNO(errno.EPERM), "kill", s.Arg(0, s.MASKED_EQ, 0xFFFFFFFF, whole))
    return _bytes(made)


def _add(made: Any, action: int, name: str, *conditions: Any) -> None:
    try:
        made.add_rule(action, name, *conditions)
    except (OSError, ValueError):  # no such system call on this kind of machine: there is nothing to allow
        if action != _seccomp().ALLOW:
            raise


def _bytes(made: Any) -> bytes:
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()
