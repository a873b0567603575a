"""Writing files so that a reader finds the old content or the new one, and saying in a sentence why it failed."""

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from whet.refusal import Refused

ADVICE = {
    errno.ENOSPC: "Free some space, or choose a folder on another disk.",
    errno.EDQUOT: "Free some space, or choose a folder on another disk.",
    errno.EFBIG: "Raise the limit on the size of files, or choose another folder.",
    errno.EROFS: "Choose a folder that can be written to.",
    errno.EACCES: "Choose a folder that belongs to you.",
    errno.EPERM: "Choose a folder that belongs to you.",
}

LOCK = ".lock"


@contextmanager
def guarded(doing: str, path: Path) -> Iterator[None]:
    """Turns an error of the disk or of the database into a sentence: `guarded("write", path)`."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = (os.strerror(number) if number else str(error)).rstrip(".")
        advice = ADVICE.get(number or 0, "")
        if "disk is full" in reason:
            advice = ADVICE[errno.ENOSPC]
        if "readonly" in reason:
            advice = ADVICE[errno.EROFS]
        raise Refused(f"Could not {doing} {path}: {reason}. {advice}".rstrip()) from error


def write_aside(path: Path, data: bytes) -> None:
    """Write a file beside its place, force it to disk and move it there: never half a file, never none."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    with guarded("write", path):
        try:
            with open(aside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            if aside.exists():
                aside.unlink()


def settle(folder: Path) -> None:
    """Force every file of a folder to disk, then the folder's own list of names."""
    for path in (*sorted(path for path in folder.rglob("*") if path.is_file()), folder):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        except OSError as error:  # some file systems cannot force a folder to disk; files they can
            if path is not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(number)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside, this process is the only one that writes the run in a folder; a second one is refused.

    The lock is the operating system's: it ends with the process, however that ends.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0)
    with guarded("lock", folder):
        try:
            lock.acquire()
        except Timeout:
            raise Refused(
                f"{folder} is being written by another process: wait until that has ended, or train under another name."
            ) from None
    try:
        yield
    finally:
        lock.release()


def slug(text: str) -> str:
    """A text as a part of a file name: letters, digits and + _ . - only.

    >>> slug("my recipes/new.py:grpo+kl")
    'my-recipes-new.py-grpo+kl'
    """
    return re.sub(r"[^\w+.-]+", "-", text).strip("-.")[:100] or "run"
