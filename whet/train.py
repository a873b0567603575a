"""The loop around `step`: evaluate, train, keep checkpoints, stop on time, leave a run that can be looked at."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from whet import __version__, evaluate
from whet.batch import Batch
from whet.draw import generator
from whet.recipe import Recipe, Refused, with_settings
from whet.runs.store import Evaluated, Store
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


class View:
    """Where a run shows itself; this one shows nothing."""

    def starts(self, store: Store, recipe: Recipe, run: Run) -> None:
        """The run exists; nothing has been sampled."""

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
        self.start: list[Evaluated] = []
        self.spent = 0.0
        self.unknown: list[tuple[int, int]] = []
        problems = list(task.train())
        if not problems:
            raise Refused(f"{task.name} has no training problems.")
        order = torch.randperm(len(problems), generator=generator(run.seed, 1)).tolist()
        self.pool = [problems[i] for i in order]

    def progress(self) -> float:
        """Share of the run that is done, by whichever bound is nearer."""
        shares = [0.0]
        if self.run.steps is not None:
            shares.append(self.state.step / max(self.run.steps, 1))
        if self.run.budget:
            shares.append(self.spent / self.run.budget)
        return min(max(shares), 1.0)

    def go(self) -> str:
        """Train until a bound is reached; returns a sentence about how it ended."""
        self.evaluate()
        with _interrupts() as asked:
            while self.progress() < 1:
                self.one_step()
                trouble = self.trouble()
                if asked or trouble:
                    self.checkpoint()
                    self.evaluate(quick=bool(asked))
                    stopped = f"Stopped by Ctrl-C after {self.state.step} steps."
                    return trouble or stopped + f" `whet train --resume {self.store.folder}` goes on."
                every = self.run.eval_every
                if every and self.state.step % every == 0 and self.progress() < 1:
                    self.evaluate(quick=True)
                if self.state.step % self.run.save_every == 0:
                    self.checkpoint()
            self.checkpoint()
            self.evaluate()
        return f"Finished after {self.state.step} steps."

    def one_step(self) -> None:
        """One update, its metrics and, now and then, its responses."""
        began = time.perf_counter()
        self.state, batch = step(self.engine, self.task, self.pool, self.state, self.run.seed, self.progress())
        seconds = time.perf_counter() - began
        self.spent += seconds
        self.unknown.append((sum(batch.unknown.values()), batch.drawn))
        for reason, count in batch.unknown.items():
            self.store.unknown(self.state.step, reason, count)
        if not batch.told:  # nothing to learn from: every group was dropped or unknown
            return
        told = {**batch.told, "seconds": seconds, "tokens_per_second": batch.told["sampled_tokens"] / seconds}
        if self.state.step % 5 == 1:
            told["kl"] = self.engine.kl_to_start(batch)
            self.store.rollouts(self.state.step, batch.rows(range(min(len(batch), 32))), self.engine.pieces(batch))
        self.store.log(self.state.step, told)
        self.view.stepped(self.state.step, told, self.progress())

    def trouble(self) -> str:
        """A sentence when too many rewards are unknown; empty otherwise."""
        recent = self.unknown[-WINDOW:]
        drawn = sum(d for _, d in recent)
        share = sum(u for u, _ in recent) / max(drawn, 1)
        if share <= UNKNOWN_BOUND or (len(recent) < WINDOW and share < 0.5):
            return ""
        reasons = self.store.unknown_reasons()
        worst = max(reasons, key=lambda reason: reasons[reason])
        return (
            f"Stopped after {self.state.step} steps: the judge could not judge {share:.0%} of the last {drawn} "
            f"responses (most often: {worst}), and the bound is {UNKNOWN_BOUND:.0%}."
        )

    def evaluate(self, quick: bool = False) -> None:
        """Held-out problems: all splits, or the one that the run is about when `quick`."""
        splits = [self.task.focus] if quick else None
        samples = min(8, self.run.eval_samples) if quick else self.run.eval_samples

        def keep(split: str, batch: Batch) -> None:
            self.store.rollouts(self.state.step, batch.rows(range(0, len(batch), samples)), self.engine.pieces(batch), split)

        def make() -> list[Evaluated]:
            return evaluate.evaluate(self.engine, self.task, samples, splits, self.view.evaluating, keep)

        first = self.state.step == 0 and not quick
        rows = evaluate.remembered_start(Path(self.engine.path), self.task, samples, make) if first else make()
        self.start = self.start or rows
        self.store.evaluated(self.state.step, rows)
        self.view.evaluated(self.state.step, rows)

    def checkpoint(self) -> None:
        """The policy as a Hugging Face directory, and what is needed to go on from it."""
        raise NotImplementedError
