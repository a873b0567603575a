"""Training from Python, as in a notebook: the same runs as on the command line, with recipes and tasks as values.

report = whet.train(model="path/to/model", task="problems.jsonl", judge="math",
                    recipe=grpo.with_(loss=partial(clip, high=0.28)), steps=100)
report                       # draws itself
report.metrics()["reward"]   # steps and values
report.export("my-model")
"""

import html
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from whet.cli import seconds_of
from whet.models.setup import Setup
from whet.prepare import Run
from whet.recipe import Recipe
from whet.refusal import Refused
from whet.runs.store import Store
from whet.train import resume_run, start_run
from whet.view import View

IN_PYTHON = "made in Python: "  # before the name of a recipe or task that cannot be loaded by its name


class Report:
    """What a run left. It draws itself in a notebook, and prints its table elsewhere."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def path(self) -> Path:
        """The report as an HTML file."""
        return self.store.folder / "report.html"

    @property
    def model(self) -> Path:
        """The directory of the trained model, or of its adapters."""
        from whet.checkpoints import newest

        return newest(self.store.folder)

    def metrics(self) -> dict[str, Any]:
        """Every metric as (steps, values)."""
        return self.store.metrics()

    def samples(self, split: str = "train") -> list[dict[str, Any]]:
        """The kept responses, with the numbers of their tokens."""
        return self.store.samples(split=split)

    def export(self, folder: str | Path, adapters: bool = False) -> Path:
        """The model as a Hugging Face directory, with a model card."""
        from whet.export import export

        return export(self.store, Path(folder), adapters)

    def __repr__(self) -> str:
        from whet.report.text import before_after

        console = Console(width=100, color_system=None)
        with console.capture() as said:
            console.print(f"{self.store.name}: {self.store.state[1]}")
            console.print(before_after(self.store))
        return said.get().rstrip()

    def _repr_html_(self) -> str:
        page = html.escape(self.path.read_text(encoding="utf-8"), quote=True)
        style = "width:100%;height:900px;border:0"
        return f'<iframe title="{html.escape(self.store.name)}" style="{style}" srcdoc="{page}"></iframe>'


def train(
    model: str | Path = "",
    task: Any = "compose",
    recipe: str | Recipe = "grpo",
    *,
    judge: str = "",
    steps: int | None = None,
    budget: str | float = "",
    seed: int = 0,
    max_tokens: int | None = None,
    settings: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    setup: Setup | None = None,
    lora: str = "",
    eval_every: int = 0,
    eval_samples: int = 64,
    save_every: int = 50,
    out: str | Path = "runs",
    name: str = "",
    track: str = "",
    resume: str = "",
    view: View | None = None,
) -> Report:
    """Train a model, and return its report; raises `whet.Refused` with one sentence where that cannot be.

    `recipe` and `task` are names, files or values. `settings` are settings of the recipe by address, `options` those
    of the task. A run whose recipe or task was a value is resumed by passing the same values again.
    """
    from whet.live import LiveView
    from whet.report.run import write

    recipe_value = recipe if isinstance(recipe, Recipe) else None
    task_value = None if isinstance(task, str | Path) else task
    view = view or LiveView(Console())
    seconds = seconds_of(budget) if isinstance(budget, str) else budget
    if resume:
        store = resume_run(
            resume, str(out), view, steps=steps, budget=seconds, recipe_value=recipe_value, task_value=task_value
        )
        write(store)
        return Report(store)
    asked = {"judge": judge, "max_tokens": max_tokens, **(options or {})}
    if task_value is not None and any(asked.values()):
        raise Refused("judge, max_tokens and options are for tasks by name: set them on the task that you pass.")
    run = Run(
        recipe=IN_PYTHON + recipe.name if isinstance(recipe, Recipe) else recipe,
        task=str(task) if isinstance(task, str | Path) else IN_PYTHON + task.name,
        model=str(model), steps=steps, budget=seconds, seed=seed, eval_every=eval_every, eval_samples=eval_samples,
        save_every=save_every, out=str(out), name=name, track=track,
        setup=replace(setup or Setup(), lora=lora or (setup.lora if setup else "")),
        settings={address: str(value) for address, value in (settings or {}).items()},
        options={key: value for key, value in asked.items() if value},
    )  # fmt: skip
    store = start_run(run, view, recipe_value, task_value)
    write(store)
    return Report(store)
