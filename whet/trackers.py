"""The trackers that people have, as views of a run: TensorBoard, Weights & Biases, trackio. None needs a network."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from whet.evaluate import by_split, pass_at
from whet.prepare import Run
from whet.recipe import Recipe
from whet.refusal import Refused
from whet.runs.store import Evaluated, Store
from whet.view import View

NAMES = ("tensorboard", "wandb", "trackio")


class Together(View):
    """Several views of one run: whatever is told to this one is told to each of them, in order."""

    def __init__(self, views: Sequence[View]) -> None:
        self.views = list(views)

    @contextmanager
    def measuring(self, engine: Any) -> Iterator[None]:
        """Inside what each of them measures with."""
        with ExitStack() as stack:
            for view in self.views:
                stack.enter_context(view.measuring(engine))
            yield


def _to_each(name: str) -> Callable[..., None]:
    def tell(self: Together, *said: Any) -> None:
        for view in self.views:
            getattr(view, name)(*said)

    return tell


for _name in [name for name in vars(View) if not name.startswith("_") and name != "measuring"]:
    setattr(Together, _name, _to_each(_name))


class Tracker(View):
    """Metrics by step into one tracker; `open`, `log` and `close` are all that a tracker has to know."""

    def starts(self, store: Store, recipe: Recipe, run: Run) -> None:
        """Open the tracker under the run's name, with everything that the run was made from."""
        about = store.about
        settings = {row["address"]: row["value"] for row in about["settings"]}
        self.open(store, {**about["run"], "recipe": recipe.name, "task": about["task"], "settings": settings})

    def evaluated(self, step: int, rows: list[Evaluated]) -> None:
        """pass@1 by split."""
        self.log(step, {f"held_out/{split}/pass@1": pass_at(mine, 1) for split, mine in by_split(rows).items()})

    def stepped(self, step: int, told: dict[str, float], progress: float) -> None:
        """Every metric of an update."""
        self.log(step, {f"train/{name}": value for name, value in told.items()})

    def ends(self, store: Store, sentence: str) -> None:
        """Close the tracker."""
        self.close()

    def open(self, store: Store, config: dict[str, Any]) -> None:
        """Begin a run."""
        raise NotImplementedError

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Some numbers of one step."""
        raise NotImplementedError

    def close(self) -> None:
        """End the run."""
        raise NotImplementedError


class TensorBoard(Tracker):
    """Event files in the run's own folder, `tensorboard/`."""

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise Refused(_missing("tensorboard")) from None
        self.writer: Any = None
        self.kind = SummaryWriter

    def open(self, store: Store, config: dict[str, Any]) -> None:
        """Begin a run."""
        self.writer = self.kind(str(store.folder / "tensorboard"))
        self.writer.add_text("config", "\n".join(f"    {name}: {value}" for name, value in config.items()))

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Some numbers of one step."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """End the run."""
        if self.writer:
            self.writer.close()


class Wandb(Tracker):
    """A run of the project `whet` under the folder of the run; WANDB_MODE, WANDB_PROJECT and the like are heeded."""

    module = "wandb"

    def __init__(self) -> None:
        from importlib import import_module

        try:
            self.library = import_module(self.module)
        except ImportError:
            raise Refused(_missing(self.module)) from None
        self.run: Any = None

    def open(self, store: Store, config: dict[str, Any]) -> None:
        """Begin a run."""
        import os

        project = os.environ.get("WANDB_PROJECT", "whet")
        self.run = self.library.init(
            project=project, name=store.name, config=config, dir=str(store.folder), reinit="finish_previous"
        )

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Some numbers of one step."""
        self.run.log(numbers, step=step)

    def close(self) -> None:
        """End the run."""
        if self.run:
            self.run.finish()


class Trackio(Wandb):
    """A run of the project `whet` in trackio's own database; TRACKIO_DIR is heeded."""

    module = "trackio"

    def open(self, store: Store, config: dict[str, Any]) -> None:
        """Begin a run."""
        self.run = self.library.init(project="whet", name=store.name, config=config, embed=False)


KINDS: dict[str, type[Tracker]] = dict(zip(NAMES, (TensorBoard, Wandb, Trackio), strict=True))


def tracked(view: View, names: str) -> View:
    """The view, and the trackers named behind commas beside it; a missing one is refused before anything begins."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in KINDS:
            raise Refused(f"there is no tracker {name!r}: it is {', '.join(NAMES)}.")
    return Together([view, *(KINDS[name]() for name in wanted)]) if wanted else view


def _missing(name: str) -> str:
    return f"--track {name} needs {name}: pip install 'whet[{name}]'."
