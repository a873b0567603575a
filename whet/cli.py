"""The command line: one command for each thing a reader of papers wants to do."""

import math
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whet import commands
from whet.commands import PICKLE, TRUST
from whet.refusal import Refused

if TYPE_CHECKING:
    from whet.models.setup import Setup

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="The RL reading list you can run. Start with [bold]whet train grpo[/], then look at [bold]whet report[/].",
)
out = Console(highlight=False)
ENGINE = Annotated[
    str, typer.Option(help="What draws the responses: local or vllm, which has [bold]--engine.dtype[/] and more.")
]
TASK = Annotated[str, typer.Option(help="compose, countdown, digits, code, gsm8k, math, aime, or data of your own.")]
PROFILE = Annotated[bool, typer.Option("--profile", help="Say at the end where the time of the steps went.")]
OPTIMISER = Annotated[str, typer.Option(help="adamw, or adamw_8bit: its memory in 8 bits, by bitsandbytes.")]
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
    task: TASK = "compose",
    model: Annotated[str, typer.Option(help="A Hugging Face model directory; the shipped base without it.")] = "",
    engine: ENGINE = "local",
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many updates.")] = None,
    budget: Annotated[str, typer.Option(help="Stop after this time in training steps: 90s, 2m, 1h.")] = "",
    seed: Annotated[int, typer.Option(help="Seeds the order of problems and every response.")] = 0,
    judge: Annotated[str, typer.Option(help="For your data: path/to/my.py:score, math, choices, or judge.toml.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest response.")] = None,
    eval_every: Annotated[int, typer.Option(min=0, help="A quick evaluation after so many updates; 0 for none.")] = 20,
    eval_samples: Annotated[int, typer.Option(min=1, help="Responses to each held-out problem.")] = 64,
    save_every: Annotated[int, typer.Option(min=1, help="A checkpoint after so many updates.")] = 50,
    runs: RUNS = "runs",
    name: Annotated[str, typer.Option(help="A name for the run; made from recipe, task and time without it.")] = "",
    resume: Annotated[str, typer.Option(help="Go on with this run, from its last checkpoint.")] = "",
    lora: Annotated[str, typer.Option(help="Train adapters: r=16, or r=16,alpha=32,targets=q_proj|v_proj.")] = "",
    freeze: Annotated[str, typer.Option(help="Weights not to train, by name: '*embed*,*.layers.0.*'.")] = "",
    recompute: Annotated[bool, typer.Option(help="Compute layers again in the backward pass, to save memory.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, or bfloat16 to compute in.")] = "float32",
    system: Annotated[str, typer.Option(help="The system message of every chat.")] = "",
    thinking: Annotated[str, typer.Option(help="on or off, for chat templates that know enable_thinking.")] = "",
    tokens_at_once: Annotated[int, typer.Option(min=1, help="Tokens in one pass: fewer need less memory.")] = 16384,
    trust_remote_code: TRUST = False,
    allow_pickle: PICKLE = False,
    optimiser: OPTIMISER = "adamw",
    graph: Annotated[bool, typer.Option(help="On a GPU: draw in recorded steps; not measured yet.")] = False,
    track: Annotated[str, typer.Option(help="Also tell tensorboard, wandb or trackio, joined by commas.")] = "",
    profile: PROFILE = False,
) -> None:
    """Train a model, and leave a run with a report.

    Any setting of the recipe can follow, by its address: [bold]--loss.high=0.3 --sample.responses=8[/]
    ([bold]whet show RECIPE[/] lists them), and any option of the task: [bold]--task.levels=1,2[/].
    What watches a run: [bold]--guard.unknown=0.05 --guard.window=10[/] (share of responses without a verdict at which
    it stops), [bold]--guard.spike=10[/] (times the usual gradient norm), [bold]--guard.check[/] and [bold].memory[/].
    With vLLM also [bold]--engine.dtype=bfloat16[/], [bold]--engine.publish_every=4[/] (a policy that grows old on
    purpose) and [bold]--engine.memory=0.4[/] (its share of the GPU).
    """
    from whet.live import LiveView
    from whet.prepare import Run
    from whet.runs.store import find
    from whet.train import resume_run, start_run

    typed = settings_of(context.args)
    view = LiveView(out, profile=profile)
    if resume:
        _only_to_resume(context, find(resume, runs).about["run"])
        _end(resume_run(resume, runs, view, steps=steps, budget=seconds_of(budget), typed=typed))
        return
    typed |= {"engine": engine} if engine != "local" else {}
    run = Run(
        recipe=recipe, task=task, model=model, steps=steps, budget=seconds_of(budget), seed=seed,
        eval_every=eval_every, eval_samples=eval_samples, save_every=save_every, out=runs, name=name,
        settings=typed, options=_task_options(typed, judge, max_tokens), track=track, setup=_setup(context.params),
    )  # fmt: skip
    _end(start_run(run, view))


def _setup(typed: dict[str, Any]) -> "Setup":
    """The setup, whose fields are options of the same names."""
    from whet.models.setup import Setup

    return Setup(**{field.name: typed[field.name] for field in fields(Setup)})


def _only_to_resume(context: typer.Context, run: dict[str, Any]) -> None:
    """Refused where something was typed beside --resume that would make it another run."""
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        typed = source is not None and source.name == "COMMANDLINE" and value != run.get(name)
        if typed and name not in ("resume", "steps", "budget", "runs", "profile"):
            raise Refused(
                f"{name.replace('_', '-')} cannot change when a run goes on: beside --resume there can be --steps, "
                "--budget, --runs, --profile and settings such as --update.lr=1e-4; for anything else start a new run."
            )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def check(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe, or several joined by +.")] = "grpo",
    task: Annotated[str, typer.Option(help="compose, countdown, digits, or a .jsonl file of your own.")] = "compose",
    model: Annotated[str, typer.Option(help="A Hugging Face model directory; the shipped base without it.")] = "",
    seed: Annotated[int, typer.Option(help="Seeds the problems and responses that are looked at.")] = 0,
    judge: Annotated[str, typer.Option(help="For .jsonl: your function, as path/to/my.py:score.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest response.")] = None,
    trust_remote_code: TRUST = False,
    allow_pickle: PICKLE = False,
) -> None:
    """What the mathematics takes for granted, tried on this model and task: what every run does before it begins.

    Settings of the recipe and options of the task can follow, as for [bold]whet train[/].
    """
    from whet.live import checked
    from whet.models.setup import Setup
    from whet.prepare import Run

    typed = settings_of(context.args)
    options = _task_options(typed, judge, max_tokens)
    setup = Setup(trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    run = Run(recipe=recipe, task=task, model=model, seed=seed, settings=typed, options=options, setup=setup)
    sentence = checked(out, run)
    if sentence:
        raise Refused(sentence)


def _task_options(typed: dict[str, str], judge: str, max_tokens: int | None) -> dict[str, Any]:
    """The options of the task, taken out of what was typed as --task.levels=1."""
    options: dict[str, Any] = {"judge": judge, "max_tokens": max_tokens}
    options |= {address[5:]: typed.pop(address) for address in list(typed) if address.startswith("task.")}
    return {name: value for name, value in options.items() if value}


def _end(store: Any) -> None:
    from whet.report.run import write
    from whet.report.text import before_after

    out.print(before_after(store))
    out.print(f"report: [bold]{write(store)}[/]")
    if store.about["status"] == "failed":
        sys.exit(1)


@app.command(name="eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def eval_(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="A run, or a Hugging Face model directory; the shipped base if empty.")
    ] = "",
    task: Annotated[str, typer.Option(help="A task or data, as for train; a run's own without it.")] = "",
    samples: Annotated[int, typer.Option(min=1, help="Responses to each held-out problem.")] = 64,
    judge: Annotated[str, typer.Option(help="For your data: path/to/my.py:score, math, choices, or judge.toml.")] = "",
    engine: ENGINE = "local",
    trust_remote_code: TRUST = False,
    allow_pickle: PICKLE = False,
    runs: RUNS = "runs",
) -> None:
    """pass@k of a model on a task's held-out problems; options of the task follow, as [bold]--task.path=gsm8k[/]."""
    from whet.live import evaluation_table
    from whet.models.setup import Setup

    options = {name.removeprefix("task."): value for name, value in settings_of(context.args).items()}
    options |= {"judge": judge} if judge else {}
    setup = Setup(trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    out.print(evaluation_table(model, task, samples, options, runs, out, engine, setup))


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


def _more() -> None:
    """The commands about several runs stand in their own file."""
    from whet.compare.commands import more

    app.add_typer(more)


_more()


commands.add(app)


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
    if not 0 < seconds < math.inf:
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
        Console(stderr=True, highlight=False).print(f"[red]whet:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
