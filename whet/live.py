"""What a run looks like while it goes on: a table that refreshes in a terminal, lines in a log file."""

import time
from collections.abc import Callable, Mapping
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
from whet.models.setup import Setup
from whet.prepare import Run
from whet.recipe import Recipe
from whet.report.facts import by_reason
from whet.runs.store import Evaluated, Store
from whet.view import View

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
        self.line = self.unjudged = ""
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
        for notice in store.about.get("notices", ()):
            self.out.print(f"[yellow]note:[/] {notice}")
        if self.out.is_terminal:
            self.live = Live(self, console=self.out, refresh_per_second=4)
            self.live.start()

    def __rich__(self) -> RenderableType:
        return Group(self.table(), Text(self.unjudged, style="yellow"), Text(self.line, style="dim"), self.bar)

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

    def unknown(self, reasons: Mapping[str, int]) -> None:
        """Some responses could not be judged."""
        before, self.unjudged = self.unjudged, f"not judged so far: {by_reason(reasons)}"
        if self.live is None and not before:
            self.out.print(self.unjudged, markup=False)

    def says(self, sentence: str) -> None:
        """Something that a reader of the run should know."""
        self.line = sentence
        if self.live is None:
            self.out.print(sentence)

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


def evaluation_table(
    model: str, task: str, samples: int, options: dict[str, Any], runs: str, out: Console, drawn_by: str = "local",
    setup: Setup | None = None,
) -> Table:  # fmt: skip
    """pass@k of a model, or of a run's last checkpoint, by split."""
    from whet.engines.choice import Choice
    from whet.engines.local import LocalEngine
    from whet.evaluate import evaluate
    from whet.prepare import BASE, resolved, run_of
    from whet.tasks.shelf import make

    run = run_of(model, runs)
    options = {**(run.options if run and task in ("", run.task) else {}), **options}
    path, task = resolved(model, task, runs)
    setup = run.setup.asked_only() if run else setup
    engine = Choice(drawn_by).applied(LocalEngine.load(path or BASE, setup=setup))
    found = make(task, **options)
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


def checked(out: Console, run: Run) -> str:
    """The self-check of a model and a task, one line for each check; the sentence of the first that fails."""
    from whet.prepare import prepared, recipe_of
    from whet.selfcheck import findings

    recipe = recipe_of(run)
    task, engine, run = prepared(run, recipe)
    sentence = ""
    for one in findings(engine, task, recipe, run.seed):
        mark = "[green]passed[/]" if one.ok else "[red]failed[/]"
        out.print(f"{mark}  {one.name:<30} {one.number:>10.3g} {one.unit}  [dim]{one.seconds:.2f} s[/]")
        sentence = sentence or ("" if one.ok else f"Self-check, {one.name}: {one.sentence}.")
    return sentence
