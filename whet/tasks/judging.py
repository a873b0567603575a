"""The user's judge in worker processes: whatever it does, a response is judged or *unknown with a reason*."""

import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as TimedOut
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from whet.refusal import Refused
from whet.tasks import worker
from whet.tasks.spawning import CleanSpawn
from whet.tasks.worker import Outcome

CHUNK = 64  # calls in one message to a worker: a fast judge then costs far less than 1 ms a response
SLICE = 0.5  # seconds after which a worker hands back what it has, so that slow judges share the workers
IMPORT_SECONDS = 120.0  # for the first import of the judge's module, which may load something large

Row = Mapping[str, Any]


class Judge:
    """A judge by its name, `path/to/my.py:score` or `module:score`; processes start when first needed."""

    def __init__(self, named: str, seconds: float = 5.0, workers: int = 2) -> None:
        self.named, self.seconds, self.workers = named, seconds, workers
        self.pool: ProcessPool | None = None

    def parameters(self) -> tuple[list[str], list[str] | None]:
        """The parameters that the judge must be given, and those it may be given: None means any."""
        try:
            return self._ready().schedule(worker.parameters, args=[self.named], timeout=IMPORT_SECONDS).result()
        except worker.Unusable as error:
            raise Refused(str(error)) from None
        except TimedOut:
            raise Refused(f"the judge {self.named} took over {IMPORT_SECONDS:.0f} s to import.") from None
        except (ProcessExpired, BrokenProcessPool):
            raise Refused(f"the judge {self.named} ends its process when it is imported.") from None

    def __call__(self, rows: Sequence[Row]) -> list[Outcome]:
        """One outcome for each row, in order; a row holds the arguments by parameter name."""
        outcomes: dict[int, Outcome] = {}
        todo = [range(at, min(at + CHUNK, len(rows))) for at in range(0, len(rows), CHUNK)]
        while todo:
            sent = [(places, self._send([rows[i] for i in places])) for places in todo]
            todo = []
            for places, future in sent:
                found = self._received(future, len(places))
                outcomes.update(zip(places, found, strict=False))
                todo += _again(places, len(found))
        return [outcomes[i] for i in range(len(rows))]

    def _send(self, rows: list[Row]) -> ProcessFuture:
        # A call that starts just before the slice ends still has all of its seconds.
        limit = self.seconds if len(rows) == 1 else self.seconds + SLICE
        return self._ready().schedule(worker.chunk, args=[self.named, rows, SLICE], timeout=limit)

    def _received(self, future: ProcessFuture, count: int) -> list[Outcome]:
        """The outcomes of the first rows of a chunk; none if a chunk of several failed as a whole."""
        try:
            return future.result()
        except TimedOut:
            return [(None, f"judge took over {self.seconds:g} s")] if count == 1 else []
        except (ProcessExpired, BrokenProcessPool):
            return [(None, "judge process died")] if count == 1 else []
        except worker.Unusable as error:  # the file was changed or removed while the run went on
            raise Refused(str(error)) from None

    def _ready(self) -> ProcessPool:
        """The worker processes: new ones if there are none, or if all of them have died between two calls."""
        if self.pool is None or not self.pool.active:
            self.pool = ProcessPool(max_workers=self.workers, context=CleanSpawn())
            weakref.finalize(self, _stop, self.pool)
        return self.pool


def _again(places: range, done: int) -> list[range]:
    """What is left of a chunk; one by one if it failed as a whole, so that only the culprit is unknown."""
    if done:
        return [places[done:]] if done < len(places) else []
    return [range(i, i + 1) for i in places]


def _stop(pool: ProcessPool) -> None:
    pool.stop()
    pool.join()
