"""The loop around `step`: evaluate, train, keep checkpoints, stop on time, leave a run that can be looked at."""

import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from whet import __version__, checkpoints, describe, evaluate, shelf
from whet.batch import Batch
from whet.draw import generator
from whet.recipe import Recipe, Refused, lineage, with_settings
from whet.runs.store import Evaluated, Store, find, fresh
from whet.step import State, step


@dataclass(frozen=True)
class Run:
    """Everything that a run is made from; the rest are settings of the recipe's parts, in `settings`."""

    recipe: str = "grpo"
    task: str = "compose"
    model: str = ""
    steps: int | None = None
    budget: float | None = None
    seed: int = 0
    eval_every: int = 0
    eval_samples: int = 64
    save_every: int = 50
    out: str = "runs"
    name: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    settings: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


UNKNOWN_BOUND = 0.05  # ours: beyond this share of unknown rewards over WINDOW steps the run stops
WINDOW = 10
DEFAULT_STEPS = 60  # ours: about two minutes on two cores with the shipped base
MICRO_LR = 1e-2  # ours: for the fresh micro model of `digits`
KL_EVERY, KEEP_EVERY = 5, 10  # updates; ours: looking closely costs time
BASE = Path(__file__).parent / "models" / "base"


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

    def ends(self, store: Store, sentence: str) -> None:
        """The run is over, and its report can be written."""


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C asks the run to stop after the step in progress; a second one stops it at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not in the main thread: a notebook's own interrupt stays
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


class Trainer:
    """A run in progress: its parts, its state and its store."""

    def __init__(self, run: Run, recipe: Recipe, task: Any, engine: Any, store: Store, view: View) -> None:
        self.run, self.task, self.engine, self.store, self.view = run, task, engine, store, view
        self.state = State(recipe)
        self.spent = 0.0
        self.unknown: list[tuple[int, int]] = []
        self.reasons: Counter[str] = Counter()
        problems = list(task.train())
        if not problems:
            raise Refused(f"{task.name} has no training problems.")
        order = torch.randperm(len(problems), generator=generator(run.seed, 1)).tolist()
        self.pool = [problems[i] for i in order]

    def progress(self) -> float:
        """Share of the run that is done, by whichever bound is nearer."""
        by_steps = self.state.step / self.run.steps if self.run.steps else 0.0
        by_time = self.spent / self.run.budget if self.run.budget else 0.0
        return min(max(by_steps, by_time), 1.0)

    def go(self) -> tuple[str, str]:
        """Train until a bound is reached; returns how it ended, as a status and a sentence."""
        if self.state.step == 0:
            self.evaluate()
        with _interrupts() as asked:
            while self.progress() < 1:
                self.one_step()
                trouble = self.trouble()
                if asked or trouble:
                    self.checkpoint()
                    on = f"`whet train --resume {self.store.folder}` goes on."
                    return ("failed", trouble) if trouble else ("stopped", f"Stopped by Ctrl-C. {on}")
                self.now_and_then()
        self.checkpoint()
        self.evaluate()
        return "finished", f"Finished after {self.state.step} updates."

    def one_step(self) -> None:
        """One update, its metrics and, now and then, its responses."""
        began = time.perf_counter()
        with self.view.measuring(self.engine):
            self.state, batch = step(self.engine, self.task, self.pool, self.state, self.run.seed, self.progress())
        seconds = time.perf_counter() - began
        self.spent += seconds
        self.unknown.append((sum(batch.unknown.values()), batch.drawn))
        self.reasons.update(batch.unknown)
        told = {**batch.told, "seconds": seconds}
        if len(batch):
            told["tokens_per_second"] = told["sampled_tokens"] / seconds
            if self.state.step % KL_EVERY == 1:
                told["kl"] = self.engine.kl_to_start(batch)
            if self.state.step % KEEP_EVERY == 1:
                self.keep("train", batch.rows(range(min(len(batch), 64))))
        self.store.log(self.state.step, told)
        self.view.stepped(self.state.step, told, self.progress())

    def now_and_then(self) -> None:
        """A quick evaluation and a checkpoint, where they are due and the run goes on."""
        every = self.run.eval_every
        if every and self.state.step % every == 0 and self.progress() < 1:
            self.evaluate(quick=True)
        if self.state.step % self.run.save_every == 0:
            self.checkpoint()

    def trouble(self) -> str:
        """A sentence when too many rewards are unknown; empty otherwise."""
        recent = self.unknown[-WINDOW:]
        drawn = sum(d for _, d in recent)
        share = sum(u for u, _ in recent) / max(drawn, 1)
        if share <= UNKNOWN_BOUND or (len(recent) < WINDOW and share < 0.5):
            return ""
        worst, times = self.reasons.most_common(1)[0]
        return (
            f"Stopped after {self.state.step} updates: the judge could not judge {share:.0%} of the last {drawn} "
            f"responses (most often: {worst}, {times} times), and the bound is {UNKNOWN_BOUND:.0%}."
        )

    def evaluate(self, quick: bool = False) -> None:
        """Held-out problems: all splits, or a few responses to the one that the run is about when `quick`."""
        splits = [self.task.focus] if quick else None
        samples = min(8, self.run.eval_samples) if quick else self.run.eval_samples

        def keep(split: str, batch: Batch) -> None:
            self.keep(split, batch.rows(range(0, len(batch), samples)))

        def make() -> list[Evaluated]:
            return evaluate.evaluate(self.engine, self.task, samples, splits, self.view.evaluating, keep)

        model = Path(self.run.model)
        start = self.state.step == 0 and not quick and bool(self.run.model)
        rows = evaluate.remembered_start(model, self.task, samples, make) if start else make()
        self.store.evaluated(self.state.step, rows)
        self.view.evaluated(self.state.step, rows)

    def keep(self, split: str, batch: Batch) -> None:
        """Some responses with the numbers of their tokens, for reading."""
        seen: dict[str, Any] = {name: batch[name] for name in ("logp", "push") if name in batch.fields}
        self.store.rollouts(self.state.step, batch, self.engine.pieces(batch), seen, split)

    def checkpoint(self) -> None:
        """The policy as a Hugging Face directory, and what is needed to go on from it."""
        checkpoints.write(self.store.folder, self.engine, self.state, self.spent)


def start_run(run: Run, view: View | None = None) -> Store:
    """A new run, from the arguments to the report's data. Refused in one sentence where it cannot begin."""
    run = replace(run, steps=DEFAULT_STEPS) if run.steps is None and run.budget is None else run
    recipe = with_settings(shelf.load(run.recipe), run.settings)
    task, engine, run = _prepared(run)
    folder = Path(run.out) / run.name if run.name else fresh(run.out, recipe.name, Path(run.task).stem, run.seed)
    store = Store.create(folder, about(run, recipe, task, engine))
    return _carried_through(Trainer(run, recipe, task, engine, store, view or View()))


def resume_run(
    name: str,
    out: str = "runs",
    view: View | None = None,
    steps: int | None = None,
    budget: float | None = None,
) -> Store:
    """A run that was stopped, from its last checkpoint on; more steps or time where they are given."""
    store = find(name, out)
    run = Run(**store.about["run"])
    run = replace(run, steps=steps or run.steps, budget=budget or run.budget)
    recipe = with_settings(shelf.load(run.recipe), run.settings)
    task, engine, run = _prepared(run)
    trainer = Trainer(run, recipe, task, engine, store, view or View())
    trainer.state, trainer.spent = checkpoints.read(store.folder, engine, recipe)
    store.rewind(trainer.state.step)
    store.tell(run=asdict(run), steps=run.steps)
    store.status("running", f"It goes on from step {trainer.state.step}.")
    return _carried_through(trainer)


def _prepared(run: Run) -> tuple[Any, Any, Run]:
    """The task and the engine of a run; without a model it is the shipped base, or for `digits` a fresh one."""
    from whet.engines.local import LocalEngine
    from whet.tasks.shelf import make

    torch.manual_seed(run.seed)
    task = make(run.task, **run.options)
    if not run.model and run.task == "digits":
        from whet.models import tiny

        model, tokenizer = tiny.micro(run.seed)
        return task, LocalEngine(model, tokenizer, lr=MICRO_LR), run
    run = replace(run, model=run.model or str(BASE))
    engine = LocalEngine.load(run.model, run.device, run.dtype)
    if engine.token_budget < task.max_tokens:
        raise Refused(
            f"a token budget of {engine.token_budget} is smaller than one response of up to {task.max_tokens} tokens: "
            "raise token_budget or lower max_tokens."
        )
    return task, engine, run


def _carried_through(trainer: Trainer) -> Store:
    store = trainer.store
    trainer.view.starts(store, trainer.state.recipe, trainer.run)
    try:
        store.status(*trainer.go())
    except KeyboardInterrupt:
        store.status("stopped", f"Interrupted at once after {trainer.state.step} updates.")
        raise
    except Refused as refusal:
        store.status("failed", str(refusal))
        raise
    except Exception as error:
        store.status("failed", f"It broke: {type(error).__name__}: {error}")
        raise
    finally:
        trainer.view.ends(store, store.state[1])
    return store


def about(run: Run, recipe: Recipe, task: Any, engine: Any) -> dict[str, Any]:
    """What a run says of itself in run.json: enough to make it again, and to explain it in its report."""
    import transformers

    papers = [r.paper for r in lineage(recipe) if r.paper.title]
    return {
        "recipe": recipe.name,
        "new": recipe.new,
        "task": task.name,
        "base": Path(run.model).name if run.model else "a fresh micro model",
        "seed": run.seed,
        "steps": run.steps,
        "focus": task.focus,
        "elsewhere": list(task.elsewhere),
        "settings": [{**row, "value": engine.lr} if row["address"] == "update.lr" and row["value"] is None else row
                     for row in describe.settings_table(recipe)],
        "equation": describe.equation(recipe),
        "papers": [{**asdict(paper), "link": paper.link} for paper in dict.fromkeys(papers)],
        "departs": list(recipe.departs),
        "run": asdict(run),
        "command": " ".join(["whet", *sys.argv[1:]]) if sys.argv[0].endswith("whet") else "",
        "versions": {
            "whet": __version__, "torch": torch.__version__, "transformers": transformers.__version__,
            "python": sys.version.split()[0],
        },
    }  # fmt: skip


def resolved(model: str, task: str, out: str) -> tuple[str, str]:
    """A model directory and a task, from a directory, a run's name or nothing."""
    if not model or (Path(model) / "config.json").is_file():
        return model, task or "compose"
    if Path(model).is_dir() and not (Path(model) / "run.json").is_file():
        return model, task or "compose"  # the loader says what is missing
    store = find(model, out)
    return str(checkpoints.newest(store.folder)), task or store.about["run"]["task"]
