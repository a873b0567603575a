"""The loop around `step`: evaluate, train, keep checkpoints, stop on time, leave a run that can be looked at."""

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from whet import checkpoints, closely, evaluate, guards, identity, selfcheck
from whet.batch import Batch
from whet.draw import generator
from whet.prepare import DEFAULT_STEPS, Run, asked, choices_of, prepared, recipe_of, run_from
from whet.recipe import Recipe, Refused, needs
from whet.refusal import NotFinite
from whet.runs.files import alone, guarded, slug
from whet.runs.store import Evaluated, Store, find, fresh
from whet.settings import settings
from whet.step import State, step
from whet.tasks.shelf import others_taught
from whet.trackers import tracked
from whet.view import View

HALF = 0.5  # ours: a judge that fails so often is not waited for until the window is full
KL_EVERY, KEEP_EVERY, WATCH = 5, 10, 2  # updates; ours: looking closely costs time


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
        self.state, self.ledger = State(recipe), checkpoints.Ledger()
        self.guard, self.choice, _ = choices_of(run)
        self.scores: dict[int, float] = {}
        self.taught = others_taught(engine.card, task)
        problems = list(task.train())
        if not problems:
            raise Refused(f"{task.name} has no training problems.")
        order = torch.randperm(len(problems), generator=generator(run.seed, 1)).tolist()
        self.pool = [problems[i] for i in order]

    def progress(self) -> float:
        """Share of the run that is done, by whichever bound is nearer."""
        by_steps = self.state.step / self.run.steps if self.run.steps else 0.0
        by_time = self.ledger.spent / self.run.budget if self.run.budget else 0.0
        by_tokens = self.ledger.tokens / self.run.tokens if self.run.tokens else 0.0
        return min(max(by_steps, by_time, by_tokens), 1.0)

    def go(self) -> tuple[str, str]:
        """Train until a bound is reached; returns how it ended, as a status and a sentence."""
        if self.state.step == 0:
            self.evaluate()
        with _interrupts() as asked:
            while self.progress() < 1:
                self.now_and_then()
                self.one_step()
                trouble = self.trouble()
                if asked or trouble:
                    return "failed" if trouble else "stopped", self.saved(trouble)
        self.checkpoint()
        self.evaluate()
        return "finished", f"Finished after {self.state.step} updates."

    def one_step(self) -> None:
        """One update, its metrics and, now and then, its responses; not taken where a number is not finite."""
        before = closely.weights(self.engine) if self.state.step % KEEP_EVERY == WATCH else []
        began = time.perf_counter()
        watch = guards.Watch(self.engine, self.state.recipe, self.guard.spike, self.ledger.norms)
        try:
            with self.view.measuring(self.engine):
                self.state, batch = step(watch, self.task, self.pool, self.state, self.run.seed, self.progress())
        except NotFinite as why:
            self.not_taken(watch, why, time.perf_counter() - began)
            return
        seconds = time.perf_counter() - began
        self.remember(seconds, (sum(batch.unknown.values()), batch.drawn), lost=0)
        self.ledger.norms = watch.norms
        self.ledger.reasons.update(batch.unknown)
        if batch.unknown:
            self.store.tell(unknown=dict(self.ledger.reasons))
            self.view.unknown(self.ledger.reasons)
        self.ledger.tokens += batch.told["drawn_tokens"]
        told = {
            **batch.told,
            **getattr(self.task, "spent", dict)(),
            "seconds": seconds,
            "peak_memory": closely.peak_memory(self.engine),
        }
        if self.guard.spike:
            told["spikes"] = float(watch.spikes)
        if len(batch):
            told["tokens_per_second"] = told["sampled_tokens"] / seconds
            if self.state.step % KL_EVERY == 1:
                told["kl"] = self.engine.kl_to_start(batch)
                told["step_kl"] = closely.step_kl(self.engine, batch)
            if before:
                told |= closely.entropy_change(self.engine, batch, before)
            if self.state.step % KEEP_EVERY == 1:
                told["half_agreement"] = closely.halves_agree(self.engine, self.state, batch)
                self.keep("train", batch.rows(range(min(len(batch), 64))))
        self.store.log(self.state.step, told)
        self.view.stepped(self.state.step, told, self.progress())

    def not_taken(self, watch: guards.Watch, why: NotFinite, seconds: float) -> None:
        """A step that met a number which is not finite: the policy stays, the batch is kept, the run goes on."""
        watch.put_back()
        self.state = replace(self.state, step=self.state.step + 1)
        place = guards.keep(self.store.folder, watch, self.state.step, why)
        self.remember(seconds, (0, 0), lost=self.ledger.lost + 1)
        self.store.log(self.state.step, {"not_taken": 1.0, "seconds": seconds})
        self.note(f"Step {self.state.step} was not taken, stage {why.stage}: {why}; its batch is in {place}.")
        self.view.stepped(self.state.step, {"not_taken": 1.0}, self.progress())

    def remember(self, seconds: float, unknown: tuple[int, int], lost: int) -> None:
        """Keep in the ledger what a step was like."""
        self.ledger.spent += seconds
        self.ledger.unknown = [*self.ledger.unknown, unknown][-self.guard.window :]
        self.ledger.lost = lost

    def now_and_then(self) -> None:
        """Before a step: a quick evaluation and a checkpoint, where they are due after the updates done so far."""
        done, every = self.state.step, self.run.eval_every
        before = max(self.scores.values(), default=float("-inf"))
        if every and done and done % every == 0:
            self.evaluate(quick=True)
        better = self.scores.get(done, float("-inf")) > before
        if done and (done % self.run.save_every == 0 or better):
            self.checkpoint()

    def trouble(self) -> str:
        """A sentence when too many rewards are unknown, or too many steps were not taken; empty otherwise."""
        if self.ledger.lost >= guards.PATIENCE:
            return (
                f"Stopped after {self.state.step} updates, of which the last {self.ledger.lost} were not taken: "
                + str(self.store.about["notes"][-1]["sentence"])
            )
        recent, bound, window = self.ledger.unknown, self.guard.unknown, self.guard.window
        drawn = sum(d for _, d in recent)
        share = sum(u for u, _ in recent) / max(drawn, 1)
        if share <= bound or (len(recent) < window and share < HALF):
            return ""
        worst, times = self.ledger.reasons.most_common(1)[0]
        return (
            f"Stopped after {self.state.step} updates: the judge could not judge {share:.0%} of the last {drawn} "
            f"responses (most often: {worst}, {times} times), and the bound is {100 * bound:.3g}%: repair the judge, "
            "or move the bound with --guard.unknown."
        )

    def evaluate(self, quick: bool = False) -> None:
        """Held-out problems: all splits, or a few responses to the one that the run is about when `quick`.

        In full, what else the model was taught is asked too: forgetting shows there.
        """
        splits = [self.task.focus] if quick else None
        samples = min(8, self.run.eval_samples) if quick else self.run.eval_samples
        tasks = [self.task] if quick else [self.task, *self.taught]
        start = self.state.step == 0 and not quick and bool(self.run.model)
        if self.has_evaluated(samples, splits or [split for task in tasks for split in task.evaluation()]):
            return  # before the run was stopped here
        self.store.forget_evaluation(self.state.step)
        start = start and self.choice.engine == "local"
        self.engine.sampler.publish()  # what is measured is the policy as it is now, however old the sampler's may be

        def keep(split: str, batch: Batch) -> None:
            self.keep(split, batch.rows(range(0, len(batch), samples)))

        how = asked(self.run)
        rows: list[Evaluated] = []
        for task in tasks:
            make = partial(evaluate.evaluate, self.engine, task, samples, splits, self.view.evaluating, keep)
            rows += evaluate.remembered_start(Path(self.run.model), task, samples, make, how) if start else make()
        self.store.evaluated(self.state.step, rows)
        self.know_scores()
        self.view.evaluated(self.state.step, rows)

    def has_evaluated(self, samples: int, splits: list[str]) -> bool:
        """True when the store has an evaluation of these splits, as thorough, after this many updates."""
        rows = [row for step, row in self.store.evaluations() if step == self.state.step]
        enough = {row.split for row in rows if row.tries >= samples}
        return enough >= set(splits)

    def know_scores(self) -> None:
        """pass@1 on the split that the run is about, by step: which checkpoint is the best."""
        found: dict[int, list[Evaluated]] = {}
        for step_, row in self.store.evaluations():
            if row.split == self.task.focus and step_:
                found.setdefault(step_, []).append(row)
        self.scores = {step_: evaluate.pass_at(rows, 1) for step_, rows in found.items()}

    def note(self, sentence: str) -> None:
        """Say something, and keep it with the run."""
        self.store.note(self.state.step, sentence)
        self.view.says(sentence)

    def keep(self, split: str, batch: Batch) -> None:
        """Some responses with the numbers of their tokens, for reading."""
        seen: dict[str, Any] = {name: batch[name] for name in ("logp", "push") if name in batch.fields}
        asked = self.engine.as_asked(batch)
        self.store.rollouts(self.state.step, asked, self.engine.pieces(batch), seen, split)

    def checkpoint(self) -> None:
        """The policy as a Hugging Face directory, and what is needed to go on from it."""
        checkpoints.write(self.store.folder, self.engine, self.state, self.ledger, self.scores)

    def saved(self, trouble: str = "") -> str:
        """Save the run where it stops, and what to say of it. What stopped it is not held against a resumed run."""
        if trouble:
            self.ledger = replace(self.ledger, unknown=[], lost=0)
        on = f"`whet train --resume {self.store.folder}` goes on"
        try:
            self.checkpoint()
        except NotFinite as why:
            return f"{trouble} {why} {on} from the checkpoint before."
        return f"{trouble} {on}." if trouble else f"Stopped by Ctrl-C. {on}."


def start_run(run: Run, view: View | None = None, recipe_value: Recipe | None = None, task_value: Any = None) -> Store:
    """A new run, from the arguments to the report's data. Refused in one sentence where it cannot begin.

    A recipe or a task that was made in Python is used as it is.
    """
    run = replace(run, steps=DEFAULT_STEPS) if not (run.steps or run.budget or run.tokens) else run
    if run.name and slug(run.name) != run.name:
        raise Refused(f"A run cannot be named {run.name!r}: use letters, digits and + _ . - only.")
    recipe, guard = recipe_of(run, recipe_value), choices_of(run)[0]
    task, engine, run = prepared(run, recipe, task_value)
    if guard.check:
        selfcheck.require(engine, task, recipe, run.seed)
    about = identity.about(run, recipe, task, engine)  # whatever can be refused is, before there is a folder
    folder = Path(run.out) / run.name if run.name else fresh(run.out, recipe.name, Path(task.name).stem, run.seed)
    Store.free(folder)
    with guarded("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        store = Store.create(folder, about)
        return _carried_through(Trainer(run, recipe, task, engine, store, tracked(view or View(), run.track)))


def resume_run(
    name: str,
    out: str = "runs",
    view: View | None = None,
    steps: int | None = None,
    budget: float | None = None,
    typed: Mapping[str, str] | None = None,
    recipe_value: Recipe | None = None,
    task_value: Any = None,
) -> Store:
    """A run that was stopped, from its last whole checkpoint on, or from its beginning where it has none.

    More steps or time where they are given, and other values for the settings `typed`; bit for bit the run that was
    never stopped where nothing is.
    """
    store = find(name, out)
    with alone(store.folder):
        before = run_from(store)
        run = replace(before, steps=steps or before.steps, budget=budget or before.budget)
        run = replace(run, settings={**run.settings, **(typed or {})})
        recipe, was = recipe_of(run, recipe_value), recipe_of(before, recipe_value)
        task, engine, run = prepared(run, recipe, task_value)
        trainer = Trainer(run, recipe, task, engine, store, tracked(view or View(), run.track))
        made_from = identity.made_from(run, recipe, task, engine)
        told = identity.compared(store.about.get("made_from", {}), made_from)
        old, new = settings(was), settings(recipe)
        changed = {address: value for address, value in new.items() if old.get(address) != value}
        if run.settings.get("guard.spike") != before.settings.get("guard.spike"):
            told.append("the bound on the gradient norm, guard.spike, changed")
        told += [f"{address} was {old.get(address)} and is now {value}" for address, value in changed.items()]
        if (run.steps, run.budget) != (before.steps, before.budget) and "progress" in needs(recipe):
            told.append("its length changed, and this recipe reads how much of the run is done")
        damaged = _set_back(trainer, changed)
        for sentence in damaged + [f"From here on it is another run than it was: {one}." for one in told]:
            trainer.note(sentence)
        store.tell(run=asdict(run), steps=run.steps, made_from=made_from)
        store.status("running", f"It goes on from step {trainer.state.step}.")
        return _carried_through(trainer)


def _set_back(trainer: Trainer, changed: Mapping[str, Any]) -> list[str]:
    """Everything as the newest whole checkpoint has it, the store too; sentences about damaged ones."""
    kept = checkpoints.read(trainer.store.folder)
    if kept is not None:
        kept.restore(trainer.engine)
        trainer.state, trainer.ledger = kept.state(trainer.state.recipe, changed), kept.ledger()
    trainer.store.rewind(trainer.state.step)
    checkpoints.clear(trainer.store.folder)
    trainer.know_scores()
    return kept.damaged if kept else []


def _carried_through(trainer: Trainer) -> Store:
    store = trainer.store
    trainer.view.starts(store, trainer.state.recipe, trainer.run)
    try:
        store.status(*trainer.go())
    except KeyboardInterrupt:
        store.status("stopped", f"Interrupted at once after {trainer.state.step} updates.")
        raise
    except Exception as error:
        why = str(error) if isinstance(error, Refused) else f"It broke: {type(error).__name__}: {error}"
        with suppress(Refused):  # a full disk, perhaps: what happened first is what is raised
            store.status("failed", why)
        raise
    finally:
        trainer.view.ends(store, store.state[1])
    return store


class _Callable(ModuleType):
    """`whet.train(...)` trains, and `whet.train` stays the module: a user writes the first, the code the second."""

    def __call__(self, *values: Any, **named: Any) -> Any:
        from whet.api import train

        return train(*values, **named)


sys.modules[__name__].__class__ = _Callable
