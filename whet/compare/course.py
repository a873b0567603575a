"""The metrics of a run, as its first and its last fifth tell them."""

from dataclasses import dataclass

from whet.runs.store import Store


@dataclass(frozen=True)
class Course:
    """The metrics of a run: the mean of the first and of the last fifth of the updates, and all known values."""

    store: Store

    def known(self, name: str) -> list[float]:
        """Every logged value that is a number."""
        found = self.store.metrics(name).get(name)
        return [] if found is None else [float(x) for x in found[1] if x == x]

    def when(self, name: str, value: float) -> int:
        """The first update with this value."""
        steps, values = self.store.metrics(name)[name]
        return int(steps[values == value][0])

    def ends(self, name: str) -> tuple[float, float] | None:
        """First and last fifth; None with fewer than five values."""
        values = self.known(name)
        few = len(values) // 5
        return (sum(values[:few]) / few, sum(values[-few:]) / few) if few else None

    def late(self, name: str, default: float = 0.0) -> float:
        """The mean of the last fifth, or of the little there is; the default where there is nothing."""
        values = self.known(name)
        tail = values[-max(1, len(values) // 5) :]
        return sum(tail) / len(tail) if tail else default
