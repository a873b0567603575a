"""What a run looks like while it goes on: a table that refreshes in a terminal, lines in a log file."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from whet.engines.profile import Profiler
from whet.evaluate import by_split, pass_at
from whet.metrics import METRICS
from whet.recipe import Recipe
from whet.runs.store import Evaluated, Store
from whet.train import Run, View

SHOWN = (
    "reward", "correct", "entropy", "kl", "length", "clip_fraction", "silent_groups", "unknown", "grad_norm",
    "tokens_per_second",
)  # fmt: skip
BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40
EVERY = 10  # updates between two lines, where the output is no terminal


def sparkline(values: list[float], width: int = WIDTH) -> str:
    """The last `width` values as bars between their smallest and their largest.

    >>> sparkline([0, 1, 2, 3])
    '▁▃▅█'
    """
    values = [value for value in values[-width:] if value == value]
    if not values:
        return ""
    low, high = min(values), max(values)
    if high == low:
        return BARS[0] * len(values)
    return "".join(BARS[int((value - low) / (high - low) * (len(BARS) - 1))] for value in values)


class LiveView(View):
    """A run in a terminal."""

    def __init__(self, out: Console, profile: bool = False) -> None:
        self.out = out
        self.profiler = Profiler() if profile else None
        self.values: dict[str, list[float]] = {}
        self.evaluations: list[tuple[int, list[Evaluated]]] = []
        self.line = ""
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=out,
        )  # fmt: skip
        self.training = self.bar.add_task("training", total=1.0)
        self.looking: Any = None
        self.live: Live | None = None

    def starts(self, store: Store, recipe: Recipe, run: Run) -> None:
        """The run exists; nothing has been sampled."""
        bounds = [f"{run.steps} updates" if run.steps else "", f"{run.budget:.0f} s" if run.budget else ""]
        self.out.print(f"[bold]{recipe.name}[/] on {run.task}: {recipe.new}")
        self.out.print(f"[dim]{store.folder} · seed {run.seed} · {' or '.join(b for b in bounds if b)}[/]")
        if self.out.is_terminal:
            self.live = Live(self, console=self.out, refresh_per_second=4)
            self.live.start()

    def __rich__(self) -> RenderableType:
        return Group(self.table(), Text(self.line, style="dim"), self.bar)

    def table(self) -> Table:
        """The newest value of each metric, and its course."""
        table = Table(box=None, header_style="dim", pad_edge=False)
        for head, how in (("", "left"), ("now", "right"), ("course", "left"), ("unit", "left")):
            table.add_column(head, justify=how)  # type: ignore[arg-type]
        for name in SHOWN:
            values = self.values.get(name, [])
            now = f"{values[-1]:.4g}" if values else "–"
            table.add_row(name.replace("_", " "), now, f"[cyan]{sparkline(values)}[/]", f"[dim]{METRICS[name].unit}[/]")
        return table

    def measuring(self, engine: Any) -> AbstractContextManager[Any]:
        """A profile of the steps, where one was asked for."""
        return self.profiler.measuring(engine) if self.profiler else nullcontext()

    def evaluating(self, share: float) -> None:
        """An evaluation has come this far, 0 to 1."""
        if self.looking is None:
            self.looking = self.bar.add_task("evaluating", total=1.0)
        self.bar.update(self.looking, completed=share)
        if share >= 1:
            self.bar.remove_task(self.looking)
            self.looking = None

    def evaluated(self, step: int, rows: list[Evaluated]) -> None:
        """An evaluation is complete."""
        self.evaluations.append((step, rows))
        scores = " · ".join(f"{split} {pass_at(mine, 1):.3f}" for split, mine in by_split(rows).items())
        self.line = f"held-out pass@1 after {step} updates: {scores}"
        if self.live is None:
            self.out.print(self.line)

    def stepped(self, step: int, told: dict[str, float], progress: float) -> None:
        """An update was made."""
        for name, value in told.items():
            self.values.setdefault(name, []).append(value)
        self.bar.update(self.training, completed=progress, description=f"update {step}")
        if self.live is None and step % EVERY == 0:
            self.out.print(f"update {step}: " + " · ".join(f"{n} {told[n]:.4g}" for n in SHOWN if n in told))

    def ends(self, store: Store, sentence: str) -> None:
        """The run is over."""
        if self.live is not None:
            self.live.stop()
        self.out.print(sentence)
        if self.profiler and self.profiler.machine:
            self.out.print(self.profiler.table())


def with_progress(out: Console, what: str, work: Callable[[Callable[[float], None]], Any]) -> Any:
    """Run `work(tell)` with a bar that `tell(share)` moves; a line every tenth where the output is no terminal."""
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=out,
    )
    task, said = bar.add_task(what, total=1.0), [0]

    def tell(share: float) -> None:
        bar.update(task, completed=share)
        if not out.is_terminal and int(share * 10) > said[0]:
            said[0] = int(share * 10)
            out.print(f"{what}: {share:.0%}")

    with bar if out.is_terminal else nullcontext():
        return work(tell)


def evaluation_table(model: str, task: str, samples: int, judge: str, runs: str, out: Console) -> Table:
    """pass@k of a model, or of a run's last checkpoint, by split."""
    from whet.engines.local import LocalEngine
    from whet.evaluate import evaluate
    from whet.tasks.shelf import make
    from whet.train import BASE, resolved

    path, task = resolved(model, task, runs)
    engine = LocalEngine.load(path or BASE)
    found = make(task, **({"judge": judge} if judge else {}))
    began = time.perf_counter()
    rows = with_progress(out, "evaluating", lambda tell: evaluate(engine, found, samples, progress=tell))
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k <= samples]
    table = Table(
        box=None,
        header_style="bold",
        pad_edge=False,
        title=f"{path or 'the shipped base'} on {task}",
        title_justify="left",
    )
    for head in ("split", "problems", *(f"pass@{k}" for k in ks), "entropy", "length"):
        table.add_column(head, justify="left" if head == "split" else "right")
    for split, mine in by_split(rows).items():
        means = [sum(getattr(row, name) for row in mine) / len(mine) for name in ("entropy", "mean_length")]
        table.add_row(split, str(len(mine)), *(f"{pass_at(mine, k):.3f}" for k in ks), *(f"{m:.3g}" for m in means))
    table.caption = f"{samples} responses to each problem, in {time.perf_counter() - began:.0f} s"
    return table
