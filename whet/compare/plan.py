"""A comparison before it runs: the same base, problems, order and evaluation for every recipe, seed by seed."""

import inspect
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from whet.compare import maths
from whet.prepare import BASE, Run
from whet.recipe import Recipe, function_of, needs
from whet.refusal import Refused
from whet.runs.files import slug
from whet.runs.store import Store
from whet.settings import with_settings


@dataclass(frozen=True)
class Budget:
    """What every run may spend: sampled tokens, updates or seconds of training; exactly one of them."""

    tokens: float | None = None
    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, text: str) -> "Budget":
        """`tokens=2e6`, `steps=100`, or a time as 90s, 2m, 1h.

        >>> Budget.of("tokens=2e6"), str(Budget.of("2m"))
        (Budget(tokens=2000000.0, steps=None, seconds=None), '120 s of training')
        """
        from whet.cli import seconds_of

        currency, equals, amount = text.partition("=")
        if not equals:
            return cls(seconds=seconds_of(text))
        try:
            number = float(amount)
        except ValueError:
            number = -1.0
        whole = currency == "tokens" or number == int(number) if math.isfinite(number) else False
        if currency not in ("tokens", "steps") or not whole or number < 1:
            raise Refused(f"--budget {text!r} is no budget: write tokens=2e6, steps=100, or a time as 90s, 2m, 1h.")
        return cls(steps=int(number)) if currency == "steps" else cls(tokens=number)

    def __str__(self) -> str:
        if self.tokens:
            return f"{self.tokens:,.0f} sampled tokens"
        return f"{self.steps} updates" if self.steps else f"{self.seconds:.0f} s of training"

    @property
    def typed(self) -> str:
        """As it is typed: what `of` reads back.

        >>> Budget.of(Budget.of("tokens=2e5").typed) == Budget.of("tokens=2e5")
        True
        """
        if self.tokens:
            return f"tokens={self.tokens!r}"
        return f"steps={self.steps}" if self.steps else f"{self.seconds!r}s"

    @property
    def currency(self) -> str:
        """The metric that adds up to what was spent."""
        return "drawn_tokens" if self.tokens else "steps" if self.steps else "seconds"


@dataclass(frozen=True)
class Job:
    """One run of a comparison and the folder that it leaves; the folder's name holds the key of all its inputs."""

    arm: str
    task: str
    seed: int
    run: Run
    base: str

    @property
    def folder(self) -> Path:
        """Where the run is, or will be."""
        return Path(self.run.out) / self.run.name

    @property
    def store(self) -> Store | None:
        """The run if it is over: finished, or failed by its own sentence; None where it has to be made."""
        if not (self.folder / "run.json").is_file():
            return None
        store = Store.open(self.folder)
        return store if store.state[0] in ("finished", "failed") else None


@dataclass(frozen=True)
class Plan:
    """What is compared. An arm is a recipe by name or expression, and its own settings behind an @."""

    arms: tuple[str, ...]
    tasks: tuple[str, ...] = ("compose",)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    budget: Budget = field(default_factory=lambda: Budget(steps=60))
    samples: int = 64
    eval_every: int = 0
    model: str = ""
    runs: str = "runs"
    settings: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = [arm for i, arm in enumerate(self.arms) if arm in self.arms[:i]]
        if twice:
            raise Refused(f"{twice[0]} is named twice: name every recipe once.")
        if not self.arms or not self.seeds or not self.tasks:
            raise Refused("A comparison needs at least one recipe, one task and one seed.")

    def checked(self) -> "Plan":
        """The plan, refused in one sentence where a recipe, a setting or a task is wrong, before anything runs."""
        from whet.tasks.shelf import make

        for task in self.tasks:
            there = make(task, **self.options)
            for arm in self.arms:
                recipe = maths.loaded(arm)
                if _demonstrated(recipe) and not hasattr(there, "demonstrate"):
                    raise Refused(f"{arm} learns from worked solutions, and the task {task} has none: leave it out.")
                if "label" in needs(recipe) and not hasattr(there, "label"):
                    raise Refused(
                        f"{arm} learns from which statements are right, and the task {task} does not say: leave it out."
                    )
        for arm in self.arms:
            self.job(arm, self.tasks[0], self.seeds[0])
        return self

    def jobs(self) -> list[Job]:
        """Every run: seed after seed, so that what is there when it is stopped is paired."""
        return [self.job(arm, task, seed) for seed in self.seeds for task in self.tasks for arm in self.arms]

    def job(self, arm: str, task: str, seed: int) -> Job:
        """One run, with its folder named after all that goes into it."""
        expression, own = maths.parted(arm)
        recipe = with_settings(maths.loaded(arm), self.settings)
        run = Run(
            recipe=expression, task=task, model=self.model, steps=self.budget.steps, budget=self.budget.seconds,
            tokens=self.budget.tokens, seed=seed, eval_every=self.eval_every, eval_samples=self.samples,
            save_every=10**9, out=self.runs, settings={**own, **self.settings}, options=self.options,
        )  # fmt: skip
        kept = {name: value for name, value in asdict(run).items() if name not in ("recipe", "settings", "out", "name")}
        base = maths.of_base(self.model or ("" if task == "digits" else str(BASE)))
        name = f"{slug(arm)[:60]}-{slug(Path(task).stem)[:30]}-s{seed}-{maths.key(recipe, base, kept)}"
        return Job(arm, task, seed, replace(run, name=name), base)


def _demonstrated(recipe: Recipe) -> bool:
    function = inspect.unwrap(function_of(recipe.sample))
    return any("demonstrations" in name for name in (function.__name__, *function.__code__.co_names))


def seeds_of(text: str, start: int = 0) -> tuple[int, ...]:
    """`5` for the seeds 0 to 4 (or that many from `start` on), or the seeds themselves: `10-14`, `0,3,7`.

    >>> seeds_of("3"), seeds_of("10-12"), seeds_of("0,3,7")
    ((0, 1, 2), (10, 11, 12), (0, 3, 7))
    """
    first, dash, last = text.partition("-")
    try:
        found = tuple(range(int(first), int(last) + 1)) if dash else tuple(int(word) for word in text.split(","))
    except ValueError:
        raise Refused(f"--seeds {text!r}: write a number of seeds (5), a range (10-14), or a list (0,3,7).") from None
    found = tuple(range(start, start + found[0])) if not dash and "," not in text else found
    if twice := [seed for i, seed in enumerate(found) if seed in found[:i]]:
        raise Refused(f"--seeds {text!r} has seed {twice[0]} twice: a seed is one run.")
    if not found:
        raise Refused(f"--seeds {text!r} is no seed at all: five are a good beginning.")
    return found
