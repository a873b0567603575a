"""Where a run shows itself: the calls that a live table, a tracker or a notebook answers."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from whet.prepare import Run
from whet.recipe import Recipe
from whet.runs.store import Evaluated, Store


class View:
    """Where a run shows itself; this one shows nothing."""

    def starts(self, store: Store, recipe: Recipe, run: Run) -> None:
        """The run exists; nothing has been sampled."""

    def measuring(self, engine: Any) -> AbstractContextManager[Any]:
        """What a step is made inside of: a profile, where one is asked for."""
        return nullcontext()

    def evaluating(self, share: float) -> None:
        """An evaluation has come this far, 0 to 1."""

    def evaluated(self, step: int, rows: list[Evaluated]) -> None:
        """An evaluation is complete."""

    def stepped(self, step: int, told: dict[str, float], progress: float) -> None:
        """An update was made."""

    def unknown(self, reasons: Mapping[str, int]) -> None:
        """Some responses could not be judged: how many of the whole run, by reason."""

    def says(self, sentence: str) -> None:
        """Something that a reader of the run should know."""

    def ends(self, store: Store, sentence: str) -> None:
        """The run is over, and its report can be written."""
