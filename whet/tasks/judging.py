"""The user's judge in worker processes: whatever it does, a response is judged or *unknown with a reason*.

Each worker has pipes of its own, so that one that dies, hangs or writes nonsense takes no other with it.
"""

import json
import math
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from whet.refusal import Refused
from whet.sandbox.server import Lost, Server
from whet.tasks import processes, worker
from whet.tasks.worker import Outcome

CHUNK = 64  # calls in one message to a worker: a fast judge then costs far less than 1 ms a response
SLICE = 0.5  # seconds after which a worker hands back what it has, so that slow judges share the workers
IMPORT_SECONDS = 120.0  # for the import of the judge's module, which may load something large
AGAIN = ("judge took", "judge raised", "judge process")  # another try may find another outcome
MOST_AGAIN = 32  # responses of one batch that get another try: with more, the judge itself is at fault
MOST_HANGING = 32  # time-outs in one batch, more than anything else, after which the judge is asked no more
BEGIN = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from whet.tasks.worker import main; main()"

Row = Mapping[str, Any]


@dataclass
class _Asked:
    """One batch on its way: what is known of each row, and what was tried."""

    rows: Sequence[Row]
    known: dict[int, Outcome] = field(default_factory=dict)
    again: set[int] = field(default_factory=set)
    tries: Counter[int] = field(default_factory=Counter)
    hung: int = 0

    def hopeless(self) -> bool:
        """True when hardly anything but time-outs comes back."""
        return self.hung >= MOST_HANGING and 2 * self.hung > len(self.known)

    def note(self, i: int, outcome: Outcome, retries: int) -> bool:
        """Keep an outcome, unless its row is to be judged once more: then True."""
        self.tries[i] += 1
        if self.tries[i] <= retries and outcome[1].startswith(AGAIN) and len(self.again | {i}) <= MOST_AGAIN:
            self.again.add(i)
            return True
        self.known[i] = outcome
        return False


class Judge:
    """A judge by its name, `path/to/my.py:score` or `module:score`; processes start when first needed.

    `seconds` bounds one call and `memory` (bytes) one process. A call that raised, hung or died is tried `retries`
    more times, as a judge may ask a service that is away for a moment.
    """

    def __init__(
        self, named: str, seconds: float = 5.0, workers: int = 2, memory: int = 4 << 30, retries: int = 1
    ) -> None:
        self.named, self.seconds, self.workers = named, seconds, workers
        self.memory, self.retries = memory, retries
        self._idle: SimpleQueue[Server] = SimpleQueue()

    def parameters(self) -> tuple[list[str], list[str] | None]:
        """The parameters that the judge must be given, and those it may be given: None means any."""
        server, head = self._started()
        self._idle.put(server)
        return head["required"], head["optional"]

    def __call__(self, rows: Sequence[Row]) -> list[Outcome]:
        """One outcome for each row, in order; a row holds the arguments by parameter name."""
        asked = _Asked(rows)
        todo = [range(at, min(at + CHUNK, len(rows))) for at in range(0, len(rows), CHUNK)]
        with ThreadPoolExecutor(self.workers) as threads:
            while todo and not asked.hopeless():
                found = list(threads.map(lambda places: self._outcomes(asked, places), todo))
                todo = [
                    left for places, mine in zip(todo, found, strict=True) for left in self._left(asked, places, mine)
                ]
        given_up = (None, f"judge was asked no more after {asked.hung} time-outs")
        return [asked.known.get(i, given_up) for i in range(len(rows))]

    def _left(self, asked: _Asked, places: range, found: list[Outcome]) -> list[range]:
        """What is still to be judged of a chunk, after these outcomes of its first rows.

        One by one if it failed as a whole, so that only the culprit is unknown.
        """
        pairs = zip(places, found, strict=False)
        again = [range(i, i + 1) for i, outcome in pairs if asked.note(i, outcome, self.retries)]
        rest = places[len(found) :]
        return again + ([rest] if found and rest else [range(i, i + 1) for i in rest])

    def _outcomes(self, asked: _Asked, places: range) -> list[Outcome]:
        """The outcomes of the first rows of a chunk; none if a chunk of several failed as a whole."""
        if asked.hopeless():
            return []
        server = self._taken()
        # A call that starts just before the slice ends still has all of its seconds.
        limit = self.seconds if len(places) == 1 else self.seconds + SLICE
        try:
            head, _ = server.ask({"rows": [asked.rows[i] for i in places], "seconds": SLICE}, limit)
            found = _believed(head, len(places))
        except Lost as lost:
            server.close()
            processes.stop_orphans()
            asked.hung += lost.code is None and len(places) == 1
            return [(None, self._why(lost.code))] if len(places) == 1 else []
        self._idle.put(server)
        return found

    def _taken(self) -> Server:
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._started()[0]

    def _started(self) -> tuple[Server, dict[str, Any]]:
        """A new worker that has imported the judge, and what it says of the judge's parameters."""
        name, value = processes.MARK.split("=")
        server = Server([sys.executable, "-c", BEGIN, json.dumps(sys.path)], {**os.environ, name: value})
        about = {"named": self.named, "memory": self.memory, "rules": _rules().hex()}
        try:
            head, _ = server.ask(about, IMPORT_SECONDS)
        except Lost as lost:
            server.close()
            if lost.code is None:
                raise Refused(f"the judge {self.named} took over {IMPORT_SECONDS:.0f} s to import.") from None
            raise Refused(f"the judge {self.named} ends its process when it is imported.") from None
        if "unusable" in head:
            server.close()
            raise Refused(str(head["unusable"]))
        return server, head

    def _why(self, code: int | None) -> str:
        if code is None:
            return f"judge took over {self.seconds:g} s"
        if code == worker.OUT_OF_MEMORY:
            return "judge process took too much memory"
        if code >= 0:
            return f"judge process ended with status {code}"
        known = {int(number) for number in signal.Signals}
        return f"judge process was ended by {signal.Signals(-code).name if -code in known else -code}"


def _believed(head: Mapping[str, Any], count: int) -> list[Outcome]:
    """The outcomes in an answer, if they are outcomes: a judge may have written it."""
    found = head.get("outcomes")
    if not isinstance(found, list) or not 0 < len(found) <= count:
        raise Lost
    for outcome in found:
        score, reason = outcome if isinstance(outcome, list) and len(outcome) == 2 else (0, None)
        number = isinstance(score, float) and math.isfinite(score)
        if not isinstance(reason, str) or not (number if not reason else score is None):
            raise Lost
    return [(score, reason[:120]) for score, reason in found]


def _rules() -> bytes:
    """A filter that keeps this process safe from a judge's signals; none where there is no libseccomp."""
    from whet.sandbox import filters

    if sys.platform != "linux":
        return b""
    try:
        return filters.sparing(os.getpid(), os.getpgid(0))
    except Refused:
        return b""
