"""How worker processes start: spawned, and without running the main script again.

A fork of a process with torch's threads can hang, so workers are spawned. Python's own spawn first runs the
main script in every worker: slow where it imports torch, and endless in a script without a `__main__` guard.
This module is imported by every worker, so it imports nothing heavy.
"""

import sys
from multiprocessing import popen_spawn_posix
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any


class _Popen(popen_spawn_posix.Popen):
    def _launch(self, process_obj: Any) -> None:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")  # a main without a file is not run again
        try:
            super()._launch(process_obj)  # type: ignore[misc]
        finally:
            sys.modules["__main__"] = main


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        return _Popen(process_obj)


class CleanSpawn(SpawnContext):
    """The context to give to a pool."""

    Process = _Process
