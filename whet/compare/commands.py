"""The commands about several runs: compare, study, verify, calibrate, doctor, laws. Heavy imports wait inside."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from whet.refusal import Refused

more = typer.Typer()
out = Console(highlight=False)
RUNS = Annotated[str, typer.Option("--runs", help="The folder that holds the runs; what is there is used again.")]
OUT = Annotated[str, typer.Option("--out", help="The folder for the report.")]
SEEDS = Annotated[str, typer.Option(help="A number of seeds (5), a range (10-14) or a list (0,3,7).")]
BUDGET = Annotated[str, typer.Option(help="What every run may spend: tokens=2e6, steps=100, or 2m of training.")]
TASK = Annotated[str, typer.Option(help="compose, countdown, digits or a .jsonl file; several between commas.")]
SAMPLES = Annotated[int, typer.Option(min=1, help="Responses to each held-out problem.")]
MEASURE = Annotated[str, typer.Option(help="pass@1, pass@64, pass@1:SPLIT, entropy, forgetting, or a metric.")]


def _bound(delta: float | None) -> float | None:
    """The option --delta, refused where it bounds nothing."""
    if delta is not None and not 0 <= delta < math.inf:
        raise Refused(f"--delta {delta:g}: the largest difference that is a tie is a finite number from 0 on, as 0.02.")
    return delta


DELTA = Annotated[
    float | None, typer.Option(help="The largest difference that is a tie; 0.02 for shares.", callback=_bound)
]
WORKERS = Annotated[int, typer.Option(min=0, help="Runs at a time; as many as there are cores for 0.")]
MODEL = Annotated[str, typer.Option(help="A Hugging Face model directory; the shipped base without it.")]
FREE = {"allow_extra_args": True, "ignore_unknown_options": True}


def _split(words: list[str]) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """What was typed: names, settings of the recipes, options of the task."""
    from whet.cli import settings_of

    first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    typed = settings_of(words[first:])
    options = {address[5:]: typed.pop(address) for address in list(typed) if address.startswith("task.")}
    return words[:first], typed, options


@more.command(context_settings=FREE)
def compare(
    context: typer.Context,
    recipes: Annotated[list[str], typer.Argument(help="Recipes, as for `whet train`; or runs that are finished.")],
    task: TASK = "compose",
    seeds: SEEDS = "5",
    budget: BUDGET = "steps=60",
    measure: MEASURE = "pass@1",
    delta: DELTA = None,
    against: Annotated[str, typer.Option(help="Hold all others against this one, instead of every pair.")] = "",
    samples: SAMPLES = 64,
    eval_every: Annotated[int, typer.Option(min=0, help="Quick evaluations after so many updates; 0: none.")] = 0,
    model: MODEL = "",
    workers: WORKERS = 0,
    runs: RUNS = "runs",
    to: OUT = "comparisons",
    name: Annotated[str, typer.Option(help="A name for the report.")] = "",
) -> None:
    """Compare recipes at equal budget, over seeds, with intervals and a verdict on every pair.

    Same base, same problems in the same order and the same evaluation for all; pairs are taken seed by seed.
    Settings for all recipes follow by address ([bold]--update.lr=3e-4[/]), settings of one stand behind an @:
    [bold]whet compare grpo grpo@update.lr=3e-4,loss.high=0.3[/]. Stop it at any time: the same command goes on.
    """
    from whet.compare.plan import Budget, Plan, seeds_of
    from whet.shelf import index

    names, settings, options = _split([*recipes, *context.args])
    folders = [Path(runs) / one if (Path(runs) / one / "run.json").is_file() else Path(one) for one in names]
    there = [name for name, folder in zip(names, folders, strict=True) if (folder / "run.json").is_file()]
    if len(there) == len(names) or set(there) - set(index()):  # a run may have the name of a recipe
        _only_runs(context, folders, [*settings, *options])
        results = [_of_runs(folders, measure, delta, against)]
    else:
        plan = Plan(
            tuple(names),
            tuple(task.split(",")),
            seeds_of(seeds),
            Budget.of(budget),
            samples,
            eval_every,
            model,
            runs,
            settings,
            options,
        )
        results = _results(plan, measure, delta, against, workers)
    _report(results, to, name)


def _results(plan: Any, measure: str, delta: float | None, against: str, workers: int = 0) -> list[Any]:
    """Make the runs of a plan that are not there, and judge all of them, task by task."""
    from whet.compare.result import gathered
    from whet.compare.work import carry_out

    _measurable(plan, measure, against)
    jobs = plan.checked().jobs()
    if len(plan.seeds) == 1:
        out.print("One seed: there will be no intervals. Five are a good beginning: --seeds 5.")
    carry_out(jobs, out, workers)
    found = []
    for task in plan.tasks:
        by_arm = {arm: [job.store for job in jobs if (job.arm, job.task) == (arm, task)] for arm in plan.arms}
        found.append(gathered(by_arm, measure, delta, against, budget=str(plan.budget), out=out))
    return found


def _measurable(plan: Any, measure: str, against: str = "") -> None:
    """Refused, before anything runs, where the runs of a plan could not have the measure, or lack the one recipe."""
    from whet.compare.measure import possible
    from whet.tasks.shelf import make

    for task in plan.tasks:
        possible(measure, plan.samples, list(make(task, **plan.options).evaluation()))
    if against and against not in plan.arms:
        raise Refused(f"--against {against}: it is not among {', '.join(plan.arms)}.")


MADE = ("task", "seeds", "budget", "samples", "eval_every", "model", "workers")  # what only runs to be made can have


def _only_runs(context: typer.Context, folders: list[Path], settings: list[str]) -> None:
    """Refused where finished runs are named beside something else, or with options that cannot change them any more."""
    one = next(folder for folder in folders if (folder / "run.json").is_file())
    for folder in folders:
        if not (folder / "run.json").is_file():
            raise Refused(f"{folder.name} is not a run, and {one.name} is one: name runs only, or recipes only.")
    typed = [name for name in MADE if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    for name in [*(f"--{name.replace('_', '-')}" for name in typed), *settings]:
        raise Refused(f"{name} is for runs that are made, and {one.name} is there already: leave it out.")


def _of_runs(folders: list[Path], measure: str, delta: float | None, against: str) -> Any:
    from whet.compare.result import gathered, same
    from whet.runs.store import Store

    stores = [Store.open(folder) for folder in folders]
    same(stores)
    if going := [store.name for store in stores if store.state[0] == "running"]:
        raise Refused(f"{going[0]} is still running: wait until it is over, or leave it out.")
    by_recipe: dict[str, list[Store]] = {}
    for folder in folders:
        store = Store.open(folder)
        by_recipe.setdefault(store.about["recipe"], []).append(store)
    for recipe, stores in by_recipe.items():
        taken = [store.about["seed"] for store in stores]
        if len(set(taken)) < len(taken):
            raise Refused(f"Two runs of {recipe} have the same seed: name one of them.")
    return gathered(by_recipe, measure, delta, against, out=out)


def _report(results: list[Any], to: str, name: str) -> None:
    """The verdicts in the terminal, and the report in its folder."""
    from whet.compare.result import save
    from whet.report.comparison import headline, write
    from whet.runs.files import slug

    name = name or slug("-".join([*[r["label"] for r in results[0].recipes][:4], *(r.task for r in results)]))
    folder = Path(to) / name
    save(results, folder / "comparison.json")
    page = write(results, folder / "comparison.html")
    for result in results:
        _print(result)
        out.print(headline(result))
    out.print(f"report: [bold]{page}[/]")


def _print(result: Any) -> None:
    from rich.table import Table

    from whet.compare.measure import meaning
    from whet.report.comparison_tables import FEW
    from whet.report.facts import number

    unit, means = meaning(result.measure).unit, result.means[result.measure]
    table = Table(
        box=None,
        pad_edge=False,
        header_style="dim",
        title_justify="left",
        title=f"{result.task}: {result.measure} after {result.budget}, seeds: {len(result.seeds)}",
    )
    for head, how in (("recipe", "left"), ("mean", "right"), ("95 % interval", "left")):
        table.add_column(head, justify=how)  # type: ignore[arg-type]
    for label in result.labels:
        one = means[label]
        bounds = "one seed" if one["low"] is None else f"{number(one['low'], unit)} … {number(one['high'], unit)}"
        table.add_row(label, number(one["value"], unit), bounds)
    out.print(table)
    if not result.against and len(result.labels) > FEW:
        return  # the report has a matrix of them
    for pair in result.pairs[result.measure]:
        out.print(f"  {pair['a']} against {pair['b']}: {pair['words']}")


@more.command(context_settings=FREE)
def study(
    context: typer.Context,
    recipes: Annotated[list[str], typer.Argument(help="Recipes, or text files with one recipe to a line.")],
    task: TASK = "compose,countdown",
    seeds: SEEDS = "5",
    budget: BUDGET = "tokens=2e5",
    rates: Annotated[str, typer.Option(help="Learning rates to try for every recipe, between commas.")] = "",
    sweep_seeds: Annotated[
        str, typer.Option(help="How many seeds for the sweep: 1000, 1001, …; or a range, or a list.")
    ] = "2",
    sweep_samples: Annotated[
        int, typer.Option(min=0, help="Responses to each held-out problem in the sweep; 0: as many as --samples.")
    ] = 0,
    measure: MEASURE = "pass@1",
    delta: DELTA = None,
    against: Annotated[str, typer.Option(help="Hold all others against this one.")] = "",
    samples: SAMPLES = 64,
    model: MODEL = "",
    workers: WORKERS = 0,
    runs: RUNS = "runs",
    to: OUT = "results",
    name: Annotated[str, typer.Option(help="A name for the study.")] = "study",
) -> None:
    """The same small sweep of learning rates for each recipe, on seeds of its own; then the comparison.

    A recipe that fails at every rate is left out and named. The study can be killed and started again at any time:
    finished runs are used, whatever they were made for.
    """
    from dataclasses import replace

    from whet.compare import study as studies
    from whet.compare.plan import Budget, Plan, seeds_of

    words, settings, options = _split([*recipes, *context.args])
    plan = Plan(
        tuple(studies.named(words)),
        tuple(task.split(",")),
        seeds_of(seeds),
        Budget.of(budget),
        samples,
        0,
        model,
        runs,
        settings,
        options,
    )
    tried, each = seeds_of(sweep_seeds, studies.FIRST), studies.rates_of(rates)
    _measurable(plan, measure, against)
    _measurable(replace(plan, samples=sweep_samples or samples) if each else plan, measure)
    chosen = studies.sweep(plan, each, tried, measure, out, workers, sweep_samples)
    studies.write_sweep(chosen, Path(to) / name / "sweep.json")
    chosen.holds(against)
    results = []
    for one in chosen.plans:
        results += _results(one, measure, delta, chosen.arm(against, one.tasks[0]), workers)
    _report([studies.relabelled(result, chosen.left_out) for result in results], to, name)


@more.command()
def verify(
    recipe: Annotated[str, typer.Argument(help="A recipe with findings; all of a shelf with --shelf.")] = "",
    shelf: Annotated[str, typer.Option(help="Every recipe of this shelf that has findings.")] = "",
    study: Annotated[str, typer.Option(help="A study's sweep.json: its learning rates, seeds and runs.")] = "",
    seeds: Annotated[str, typer.Option(help="As for compare; those of the study, or 5 without one.")] = "",
    budget: Annotated[str, typer.Option(help="As for compare; the study's, or steps=60 without one.")] = "",
    task: Annotated[str, typer.Option(help="Another task than the finding names; several between commas.")] = "",
    samples: Annotated[int, typer.Option(min=0, help="Responses to each held-out problem; 0: the study's, or 64.")] = 0,
    delta: DELTA = None,
    workers: WORKERS = 0,
    runs: RUNS = "runs",
    to: OUT = "results",
) -> None:
    """Does what the paper says happen? Holds, opposite, no difference or cannot tell, with the interval.

    With [bold]--study results/study/sweep.json[/] every recipe has the learning rate that the study chose for it on
    the task, so that runs of the study are used again; a recipe that is not in the study has the model's own rate,
    and the answer says so. With --study alone: every finding whose runs the study has.
    """
    from dataclasses import replace

    from whet.compare import verify as verifying
    from whet.compare.plan import Budget, Plan, seeds_of
    from whet.compare.study import Taken

    taken = Taken.read(Path(study), runs) if study else None
    cases = verifying.wanted(recipe, shelf, [one for one in task.split(",") if one], taken)
    plan = taken.plan if taken else Plan((cases[0].recipe,), runs=runs)
    plan = replace(
        plan,
        seeds=seeds_of(seeds) if seeds else plan.seeds,
        budget=Budget.of(budget) if budget else plan.budget,
        samples=samples or plan.samples,
    )
    for one in verifying.verify(cases, plan, delta, out, workers, taken):
        verifying.save(one, Path(to))
        out.print(f"[bold]{one['recipe']}[/]: {verifying.sentence(one)}")


@more.command()
def calibrate(
    recipe: Annotated[str, typer.Argument(help="The recipe that is held against itself.")] = "grpo",
    task: Annotated[str, typer.Option(help="The task.")] = "digits",
    factor: Annotated[float, typer.Option(help="The planted difference: the learning rate times this.")] = 0.8,
    repetitions: Annotated[int, typer.Option(min=1, help="Comparisons of each kind.")] = 20,
    seeds: Annotated[int, typer.Option(min=2, help="Seeds in each comparison.")] = 5,
    budget: BUDGET = "steps=20",
    measure: MEASURE = "pass@1",
    delta: DELTA = None,
    samples: SAMPLES = 64,
    workers: WORKERS = 0,
    runs: RUNS = "runs",
    to: OUT = "results",
) -> None:
    """Does `whet compare` find a planted difference, and none where there is none? Counts false alarms and misses."""
    from whet.compare import planted
    from whet.compare.plan import Budget

    told = planted.study(
        recipe, task, factor, repetitions, seeds, Budget.of(budget), measure, delta, samples, runs, out, workers
    )
    planted.save(told, Path(to) / f"calibration-{recipe}-{task}.json")
    out.print(planted.sentence(told))


@more.command()
def doctor(
    run: Annotated[str, typer.Argument(help="A run by name, unique beginning or path; the last without it.")] = "last",
    runs: RUNS = "runs",
) -> None:
    """What goes wrong in a run, in plain words with the number, and which recipes are meant for that."""
    from whet.compare.doctor import report
    from whet.runs.store import find

    out.print(report(find(run, runs)))


@more.command()
def laws(
    names: Annotated[list[str], typer.Argument(help="Runs by name, beginning or path.")],
    beta: Annotated[float, typer.Option(help="The KL price of the alignment limit.")] = 1.0,
    runs: RUNS = "runs",
    to: Annotated[
        str, typer.Option("--out", help="A folder for laws-runs.json, what several runs say together; else none.")
    ] = "",
) -> None:
    """Laws of published papers on your runs.

    Entropy against reward, the covariance identity, crossing of pass@k, capability boundary, limits for a KL budget.
    Of more than six runs the first two, in one table by task and recipe.
    """
    import json

    from whet.compare.laws_told import laws_of, laws_over, laws_table
    from whet.report.comparison_tables import FEW
    from whet.runs.files import write_aside
    from whet.runs.store import find

    if beta <= 0:
        raise Refused(f"--beta {beta:g}: the price of a nat is above 0, as 1.")
    stores = [find(name, runs) for name in names]
    for store in stores if len(stores) <= FEW else ():
        out.print(laws_of(store, beta))
    if len(stores) > 1:
        rows = laws_over(stores, out)
        out.print(laws_table(rows))
        if to:
            Path(to).mkdir(parents=True, exist_ok=True)
            write_aside(Path(to) / "laws-runs.json", json.dumps(rows, indent=1).encode())


@more.command()
def razor(
    names: Annotated[list[str] | None, typer.Argument(help="Runs by name, beginning or path; the toy without.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the toy, as for compare.")] = "1",
    rates: Annotated[str, typer.Option(help="Learning rates of every arm, between commas.")] = "0.01,0.03,0.1,0.3",
    runs: RUNS = "runs",
    to: Annotated[
        str, typer.Option("--out", help="A folder for razor.json, or razor-runs.json, and its picture; else none.")
    ] = "",
) -> None:
    """RL's Razor: forgetting against KL on the new task, over runs, or on the parity toy for RL, SFT and the oracle."""
    from whet.compare import razor as cut
    from whet.compare import razor_runs
    from whet.compare.plan import seeds_of
    from whet.compare.study import rates_of
    from whet.runs.store import find

    if names:
        many = razor_runs.moved([find(name, runs) for name in names], out)
        out.print(razor_runs.report_of(many))
        return razor_runs.save_of(many, Path(to) / "razor-runs.json") if to else None
    if not rates_of(rates):
        raise Refused(f"--rates {rates!r}: name at least one learning rate, as 0.03.")
    ends = cut.toy(seeds_of(seeds), rates_of(rates))
    out.print(cut.report(ends))
    if to:
        cut.save(ends, Path(to) / "razor.json")
