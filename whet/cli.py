"""The command line: one command for each thing a reader of papers wants to do."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from whet.refusal import Refused

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="The RL reading list you can run. Start with [bold]whet train grpo[/], then look at [bold]whet report[/].",
)
out = Console(highlight=False)
RUNS = Annotated[str, typer.Option("--runs", help="The folder that holds the runs.")]


@app.command(name="list")
def list_(
    stage: Annotated[str, typer.Option(help="Only recipes that change this stage, such as loss.")] = "",
    shelf: Annotated[str, typer.Option(help="Only this shelf, such as objective.")] = "",
    word: Annotated[str, typer.Argument(help="Only recipes whose line holds this word.")] = "",
) -> None:
    """Every recipe: what is new in it, what it builds on and what it needs."""
    from whet.shelf import index

    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in ("recipe", "year"):
        table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    rows = sorted(index().items(), key=lambda item: (item[1]["date"], item[0]))
    shown = 0
    for name, row in rows:
        if (stage and stage not in row["stages"]) or (shelf and shelf != row["shelf"]):
            continue
        if word and word.lower() not in f"{name} {row['title']} {row['new']}".lower():
            continue
        facts = [f"changes {', '.join(row['stages'])}, on {row['base']}"] if row["base"] else ["the start of all"]
        facts += [f"needs {', '.join(row['needs'])}"] if row["needs"] else []
        table.add_row(f"[bold]{name}[/]", row["date"][:4], f"{row['new']}\n[dim]{' · '.join(facts)}[/]")
        shown += 1
    out.print(table)
    out.print(f"\n{shown} of {len(rows)} recipes. [bold]whet show NAME[/] tells more; join them with a plus sign.")


@app.command()
def show(recipe: Annotated[str, typer.Argument(help="A recipe, or several joined by +.")]) -> None:
    """One recipe: its equation, what is new, settings with their sources, needs, and where it departs."""
    from whet.describe import shown

    out.print(shown(recipe))


@app.command()
def cite(recipe: Annotated[str, typer.Argument(help="A recipe, or several joined by +.")]) -> None:
    """BibTeX of exactly what a recipe uses."""
    from whet.cite import bibtex
    from whet.shelf import load

    print(bibtex(load(recipe)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe, several joined by + (grpo+k2_loss), or a file.")] = "grpo",
    task: Annotated[str, typer.Option(help="compose, countdown, digits, or a .jsonl file of your own.")] = "compose",
    model: Annotated[str, typer.Option(help="A Hugging Face model directory; the shipped base without it.")] = "",
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many updates.")] = None,
    budget: Annotated[str, typer.Option(help="Stop after this time in training steps: 90s, 2m, 1h.")] = "",
    seed: Annotated[int, typer.Option(help="Seeds the order of problems and every response.")] = 0,
    judge: Annotated[str, typer.Option(help="For .jsonl: your function, as path/to/my.py:score.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest response.")] = None,
    eval_every: Annotated[int, typer.Option(min=0, help="A quick evaluation after so many updates; 0 for none.")] = 20,
    eval_samples: Annotated[int, typer.Option(min=1, help="Responses to each held-out problem.")] = 64,
    runs: RUNS = "runs",
    name: Annotated[str, typer.Option(help="A name for the run; made from recipe, task and time without it.")] = "",
    resume: Annotated[str, typer.Option(help="Go on with this run, from its last checkpoint.")] = "",
    profile: Annotated[
        bool, typer.Option("--profile", help="Say at the end where the time of the steps went.")
    ] = False,
) -> None:
    """Train a model, and leave a run with a report.

    Any setting of the recipe can follow, by its address: [bold]--loss.high=0.3 --sample.responses=8[/]
    ([bold]whet show RECIPE[/] lists them), and any option of the task: [bold]--task.levels=1,2[/].
    """
    from whet.live import LiveView
    from whet.train import Run, resume_run, start_run

    view = LiveView(out, profile=profile)
    if resume:
        _end(resume_run(resume, runs, view, steps=steps, budget=seconds_of(budget)))
        return
    typed = settings_of(context.args)
    options: dict[str, Any] = {"judge": judge, "max_tokens": max_tokens}
    options |= {address[5:]: typed.pop(address) for address in list(typed) if address.startswith("task.")}
    run = Run(
        recipe=recipe, task=task, model=model, steps=steps, budget=seconds_of(budget), seed=seed,
        eval_every=eval_every, eval_samples=eval_samples, out=runs, name=name,
        settings=typed, options={k: v for k, v in options.items() if v},
    )  # fmt: skip
    _end(start_run(run, view))


def _end(store: Any) -> None:
    from whet.report.run import write
    from whet.report.text import before_after

    out.print(before_after(store))
    out.print(f"report: [bold]{write(store)}[/]")
    if store.about["status"] == "failed":
        sys.exit(1)


@app.command(name="eval")
def eval_(
    model: Annotated[
        str, typer.Argument(help="A run, or a Hugging Face model directory; the shipped base if empty.")
    ] = "",
    task: Annotated[str, typer.Option(help="compose, countdown, digits, or a .jsonl file.")] = "",
    samples: Annotated[int, typer.Option(min=1, help="Responses to each held-out problem.")] = 64,
    judge: Annotated[str, typer.Option(help="For .jsonl: your function, as path/to/my.py:score.")] = "",
    runs: RUNS = "runs",
) -> None:
    """pass@k of a model on a task's held-out problems."""
    from whet.live import evaluation_table

    out.print(evaluation_table(model, task, samples, judge, runs, out))


@app.command()
def report(
    run: Annotated[
        str, typer.Argument(help="A run by name, unique beginning or path; the last one if empty.")
    ] = "last",
    runs: RUNS = "runs",
) -> None:
    """Write a run's report again, as one HTML file that opens without a network."""
    from whet.report.run import write
    from whet.runs.store import find

    out.print(f"report: [bold]{write(find(run, runs))}[/]")


@app.command(name="runs")
def runs_(runs: RUNS = "runs") -> None:
    """All runs, newest last."""
    from whet.report.text import runs_table
    from whet.runs.store import all_runs

    out.print(runs_table(all_runs(runs)))


@app.command()
def samples(
    run: Annotated[str, typer.Argument(help="A run by name, unique beginning or path.")] = "last",
    step: Annotated[
        int | None, typer.Option(help="Only responses of this step; the last stored one without it.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, or the name of an evaluation split.")] = "train",
    color: Annotated[
        str, typer.Option(help="advantage, sampled_entropy, log_ratio, push or sampled_logp.")
    ] = "advantage",
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 12,
    runs: RUNS = "runs",
) -> None:
    """Responses of a run, each token coloured by a quantity."""
    from whet.report.text import samples_table
    from whet.runs.store import find

    out.print(samples_table(find(run, runs), step=step, split=split, quantity=color, limit=limit))


@app.command()
def base(
    folder: Annotated[Path, typer.Argument(help="Where to write the model.")],
    seed: Annotated[int, typer.Option(help="Seeds the weights and the examples.")] = 0,
) -> None:
    """Train the tiny base model from nothing, in at most eight minutes of training."""
    from whet.live import with_progress
    from whet.models.base import train_base

    with_progress(out, "training the base", lambda tell: train_base(folder, seed=seed, progress=tell))
    out.print(f"base: [bold]{folder}[/]")


# --- reading what was typed ------------------------------------------------------------------------------


def seconds_of(budget: str) -> float | None:
    """The seconds in `90s`, `2m` or `1h`; None for an empty string.

    >>> seconds_of("2m")
    120.0
    """
    if not budget:
        return None
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(budget[-1])
    try:
        seconds = float(budget[:-1]) * unit if unit else -1.0
    except ValueError:
        seconds = -1.0
    if seconds <= 0:
        raise Refused(f"--budget {budget!r} is not a time: write 90s, 2m or 1h.")
    return seconds


def settings_of(words: list[str]) -> dict[str, str]:
    """`--loss.high=0.3` and `--loss.high 0.3` as {address: value}.

    >>> settings_of(["--loss.high=0.3", "--sample.responses", "8"])
    {'loss.high': '0.3', 'sample.responses': '8'}
    """
    found, words = {}, list(words)
    while words:
        word = words.pop(0)
        address, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or (not equals and (not words or words[0].startswith("--"))):
            raise Refused(f"{word!r} is not a setting: write --loss.high=0.3; `whet show RECIPE` lists the settings.")
        found[address.replace("-", "_")] = value if equals else words.pop(0)
    return found


def main() -> None:
    """Run the command line; what cannot be done is one sentence and exit status 2."""
    try:
        app(standalone_mode=True)
    except Refused as error:
        Console(stderr=True, highlight=False).print(f"[red]whet:[/] {error}", soft_wrap=True)
        sys.exit(2)
