"""From what was typed to the parts of a run: its recipe, task and engine; and back from a run's name."""

import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy
import torch

from whet import checkpoints, shelf
from whet.engines.choice import Choice
from whet.guards import Guard
from whet.models import lora
from whet.models.setup import Setup
from whet.recipe import Recipe, needs
from whet.refusal import Refused
from whet.runs.store import Store, find
from whet.settings import settings, with_settings

DEFAULT_STEPS = 60  # ours: about two minutes on two cores with the shipped base
MICRO_LR = 1e-2  # ours: for the fresh micro model of `digits`
BASE = Path(__file__).parent / "models" / "base"


@dataclass(frozen=True)
class Run:
    """Everything that a run is made from; the rest are settings of the recipe's parts, in `settings`.

    Among the settings, `guard.*` are those of `whet.guards.Guard`, and `engine` and `engine.*` those of
    `whet.engines.choice.Choice`.
    """

    recipe: str = "grpo"
    task: str = "compose"
    model: str = ""
    steps: int | None = None
    budget: float | None = None
    tokens: float | None = None
    seed: int = 0
    eval_every: int = 0
    eval_samples: int = 64
    save_every: int = 50
    out: str = "runs"
    name: str = ""
    setup: Setup = field(default_factory=Setup)
    track: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def choices_of(run: Run) -> tuple[Guard, Choice, dict[str, Any]]:
    """What the settings of a run are of: what watches it, what draws its responses, and the rest, of its recipe."""
    guard, rest = Guard.of(run.settings)
    choice, rest = Choice.of(rest)
    return guard, choice, rest


def recipe_of(run: Run, recipe: Recipe | None = None) -> Recipe:
    """The recipe that a run names, or the one that is given, with the run's settings."""
    return with_settings(recipe or shelf.load(run.recipe), choices_of(run)[2])


def seed_everything(seed: int) -> None:
    """The global generators, which no stage of whet uses: a user's own parts may."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def prepared(run: Run, recipe: Recipe, task: Any = None) -> tuple[Any, Any, Run]:
    """The task, unless it is given, and the engine; without a model the shipped base, or for `digits` a fresh one.

    Refused where the machine's memory is too small for the recipe.
    """
    from whet.engines.local import LocalEngine
    from whet.models import load, memory
    from whet.tasks.shelf import make

    seed_everything(run.seed)
    guard, choice, _ = choices_of(run)
    if run.setup.graph and choice.engine != "local":
        raise Refused(f"--graph is for the engine local, {choice.engine} records steps by itself: leave --graph out.")
    task = make(run.task, **run.options) if task is None else task
    if not run.model and run.task == "digits":
        from whet.models import tiny

        model, tokenizer = tiny.micro(run.seed)
        return task, choice.applied(LocalEngine(model, tokenizer, lr=MICRO_LR)), run
    run = replace(run, model=run.model or str(BASE))
    if run.setup.tokens_at_once < task.max_tokens:
        raise Refused(
            f"{run.setup.tokens_at_once} tokens at once are fewer than one response of up to {task.max_tokens}: raise "
            "--tokens-at-once or lower --max-tokens."
        )
    folder = load.checked(run.model, run.setup)
    if guard.memory:
        rows = settings(recipe).get("choose.prompts", 16) * settings(recipe).get("sample.responses", 16)
        memory.refuse_if_short(folder, run.setup, needs=needs(recipe), rows=rows, max_tokens=task.max_tokens)
    return task, choice.applied(LocalEngine.load(run.model, run.setup.device, setup=run.setup)), run


def asked(run: Run) -> str:
    """How a run asks and judges, for telling its start from another's: the chat, the options, the judge's own file."""
    judge = Path(str(run.options.get("judge", "")).rpartition(":")[0] or run.options.get("judge", ""))
    text = judge.read_text(encoding="utf-8", errors="replace") if judge.is_file() else ""
    return f"{run.setup.asked_only()} {sorted(run.options.items())} {text}"


def run_from(store: Store) -> Run:
    """What a run was made from."""
    said = dict(store.about["run"])
    before = {name: said.pop(name) for name in ("device", "dtype") if name in said}  # as version 0.1.0 wrote them
    return Run(**{**said, "setup": Setup(**said.get("setup", before))})


def run_of(model: str, out: str) -> Run | None:
    """The run that a model is from, where it is named by a run and not by a directory."""
    return None if not model or is_model(Path(model)) else run_from(find(model, out))


def is_model(folder: Path) -> bool:
    """True for a directory of a model or adapters, and for one that is no run: the loader says what is missing."""
    if (folder / "config.json").is_file() or lora.is_adapter(folder):
        return True
    return folder.is_dir() and not (folder / "run.json").is_file()


def resolved(model: str, task: str, out: str) -> tuple[str, str]:
    """A model directory and a task, from a directory, a run's name or nothing."""
    if not model or is_model(Path(model)):
        return model, task or "compose"
    store = find(model, out)
    return str(checkpoints.newest(store.folder)), task or store.about["run"]["task"]
