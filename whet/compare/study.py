"""A study: the same sweep of learning rates for every recipe, on seeds of its own, and then the comparison."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from whet.compare.maths import loaded, parted
from whet.compare.measure import meaning, measure
from whet.compare.plan import Budget, Job, Plan
from whet.compare.result import Result
from whet.compare.work import carry_out
from whet.refusal import Refused
from whet.runs.files import write_aside

LR = "update.lr"
FIRST = 1000  # the first seed of a sweep, beyond those of any comparison


@dataclass(frozen=True)
class Chosen:
    """A plan for each task, whose arms have their learning rates; and every rate that was tried, with its score.

    `left_out` has the recipes, with task and reason, that failed at every rate; a task without any other has no plan.
    """

    plans: list[Plan]
    tried: list[dict[str, Any]]
    left_out: list[dict[str, str]] = field(default_factory=list)

    def arm(self, name: str, task: str) -> str:
        """The arm of a task's plan that a recipe became."""
        plan = next(plan for plan in self.plans if plan.tasks == (task,))
        return next((arm for arm in plan.arms if named_in(arm) == name), name)

    def holds(self, against: str) -> None:
        """Refused where the recipe against which all others are held is left out."""
        for one in self.left_out:
            if one["recipe"] == against:
                raise Refused(
                    f"--against {against}: on {one['task']} it {one['why'].rstrip('.')}; name another or smaller "
                    "--rates, the runs that are there are used again."
                )


@dataclass(frozen=True)
class Taken:
    """A study that was made: its plan, and by task the arm that each recipe became with the rate chosen for it.

    Who changes a rate in sweep.json afterwards names the recipe there: `"by_hand": {"countdown": ["grpo"]}`.
    """

    plan: Plan
    arms: dict[str, dict[str, str]]
    by_hand: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, runs: str) -> "Taken":
        """From the sweep.json of a study; refused where it is not one."""
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            arms = {task: {named_in(arm): arm for arm in taken} for task, taken in told["taken"].items()}
            made = dict(told["plan"])
            made["budget"] = Budget.of(made["budget"])
            made["seeds"] = tuple(made["seeds"])
            return cls(Plan(tuple(dict.fromkeys(name for row in arms.values() for name in row)), tuple(arms),
                            runs=runs, **made), arms, told.get("by_hand", {}))  # fmt: skip
        except FileNotFoundError:
            raise Refused(f"There is no file {path}: `whet study ... --rates ...` writes one.") from None
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            raise Refused(
                f"{path} is not the sweep.json of a study: the same `whet study ... --rates ...` writes it again."
            ) from None

    def arm(self, name: str, task: str) -> str:
        """The recipe at the rate that was chosen for it on this task; its bare name where it is not in the study."""
        return self.arms.get(task, {}).get(name, name)

    def chose(self, name: str, task: str) -> str:
        """Who chose the rate of a recipe on a task; empty where the study has none for it."""
        if name not in self.arms.get(task, {}):
            return ""
        return "hand, after the study" if name in self.by_hand.get(task, ()) else "the study"


def rate_of(arm: str, task: str, model: str = "") -> float | None:
    """The learning rate of an arm: what it sets, or what the model's card says; None where neither names one."""
    from whet.models import load
    from whet.prepare import BASE, MICRO_LR
    from whet.settings import settings

    own = settings(loaded(arm))
    if LR not in own or own[LR]:
        return own.get(LR)
    return MICRO_LR if task == "digits" and not model else load.card(model or BASE).get("lr")


def named(words: Sequence[str]) -> list[str]:
    """Recipes as typed; a text file stands for the recipes in it, one to a line, # begins a comment."""
    found: list[str] = []
    for word in words:
        if not word.endswith(".txt"):
            found.append(word)
            continue
        if not Path(word).is_file():
            raise Refused(f"There is no file {word!r} with recipes.")
        lines = (line.partition("#")[0].strip() for line in Path(word).read_text().splitlines())
        found += [line for line in lines if line]
    return list(dict.fromkeys(found))


def rates_of(text: str) -> list[float]:
    """Learning rates between commas; none means that every recipe keeps its own.

    >>> rates_of("1e-4,3e-4")
    [0.0001, 0.0003]
    """
    try:
        found = [float(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise Refused(f"--rates {text!r}: write numbers between commas, as 1e-4,3e-4,1e-3.") from None
    if not all(0 < rate < math.inf for rate in found):
        raise Refused(f"--rates {text!r}: a learning rate is a finite number above 0.")
    return list(dict.fromkeys(found))


def sweep(
    plan: Plan, rates: Sequence[float], seeds: tuple[int, ...], main: str, out: Console, workers: int = 0,
    samples: int = 0,
) -> Chosen:  # fmt: skip
    """Every recipe at every rate on every task; the best mean on the sweep's seeds is taken, task by task.

    With `samples`, so many responses to each held-out problem in the sweep, instead of the plan's.
    """
    if set(seeds) & set(plan.seeds):
        raise Refused(
            f"Seed {min(set(seeds) & set(plan.seeds))} is in the sweep and in the comparison: use --sweep-seeds 2."
        )
    if not rates:
        return Chosen([replace(plan, tasks=(task,)) for task in plan.tasks], [])
    arms = {(arm, rate): _with_rate(arm, rate) for arm in plan.arms for rate in rates}
    trial = replace(plan, arms=tuple(arms.values()), seeds=seeds, samples=samples or plan.samples)
    jobs = trial.checked().jobs()
    out.print(f"Sweep: {len(plan.arms)} recipes, {len(rates)} learning rates, {len(jobs)} runs.")
    broken = carry_out(jobs, out, workers, without=True)
    plans, tried, left_out = [], [], []
    for task in plan.tasks:
        best = []
        for arm in plan.arms:
            by = {rate: [job for job in jobs if (job.arm, job.task) == (arms[arm, rate], task)] for rate in rates}
            rows = [{"recipe": arm, "task": task, "rate": rate, **_tried(mine, main)} for rate, mine in by.items()]
            tried += rows
            taken = _best(rows, main)
            if taken is None:
                why = f"failed at every learning rate; {_failed(by, broken, main)}"
                left_out.append({"recipe": arm, "task": task, "why": why})
                out.print(f"Left out on {task}: {arm} {why}", markup=False)
            else:
                best.append(arms[arm, taken])
        if best:
            plans.append(replace(plan, arms=tuple(best), tasks=(task,)))
    if not plans:
        raise Refused(f"{left_out[0]['recipe']} and every other recipe {left_out[0]['why']}")
    return Chosen(plans, tried, left_out)


def _tried(jobs: Sequence[Job], main: str) -> dict[str, Any]:
    """What the runs of a recipe at a rate have of a measure, and how many do not have it."""
    values = [measure(store, main) for job in jobs if (store := job.store) and store.state[0] == "finished"]
    known = [value for value in values if value is not None]
    return {"values": known, "failed": len(jobs) - len(known)}


def _best(rows: Sequence[Mapping[str, Any]], main: str) -> float | None:
    """The rate with the best mean among those at which no run failed, the smaller of equals; None without any."""
    better = meaning(main).better or 1
    scores = {row["rate"]: better * sum(row["values"]) / len(row["values"]) for row in rows if not row["failed"]}
    return max(scores, key=lambda rate: (scores[rate], -rate)) if scores else None


def _failed(by: Mapping[float, Sequence[Job]], broken: Mapping[Path, str], main: str) -> str:
    """The first run that failed, and why."""
    for rate, jobs in by.items():
        for job in jobs:
            store = job.store
            if store is None:
                why = broken.get(job.folder, "it was not made")
            elif store.state[0] == "finished":
                why = "" if measure(store, main) is not None else f"it has no {main}"
            else:
                why = store.state[1]
            if why:
                return f"at {rate:g}, seed {job.seed}: {why.rstrip('.')}."
    return ""


def _with_rate(arm: str, rate: float) -> str:
    recipe, own = parted(arm)
    return f"{recipe}@{','.join(f'{name}={value}' for name, value in {**own, LR: f'{rate:g}'}.items())}"


def named_in(arm: str) -> str:
    """An arm without its learning rate.

    >>> named_in("grpo@loss.high=0.3,update.lr=0.001"), named_in("grpo@update.lr=0.001")
    ('grpo@loss.high=0.3', 'grpo')
    """
    recipe, own = parted(arm)
    rest = ",".join(f"{name}={value}" for name, value in own.items() if name != LR)
    return f"{recipe}@{rest}" if rest else recipe


def relabelled(result: Result, left_out: Sequence[dict[str, str]] = ()) -> Result:
    """The result under the names of the recipes: their rates are among the settings that differ.

    With those that the sweep left out on its task.
    """
    names = {recipe["label"]: named_in(recipe["label"]) for recipe in result.recipes}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {names.get(key, key): renamed(one) for key, one in value.items()}
        if isinstance(value, list):
            return [renamed(one) for one in value]
        return names.get(value, value) if isinstance(value, str) else value

    mine = [one for one in left_out if one["task"] == result.task]
    return replace(Result(**{name: renamed(value) for name, value in vars(result).items()}), left_out=mine)


def write_sweep(chosen: Chosen, path: Path) -> None:
    """Every rate that was tried, as JSON and as a table in Markdown; nothing without a sweep."""
    if chosen.tried:
        path.parent.mkdir(parents=True, exist_ok=True)
        taken = {plan.tasks[0]: list(plan.arms) for plan in chosen.plans}
        plan = chosen.plans[0]
        made = {"seeds": plan.seeds, "budget": plan.budget.typed, "samples": plan.samples, "model": plan.model,
                "eval_every": plan.eval_every, "settings": plan.settings, "options": plan.options}  # fmt: skip
        told = {"plan": made, "tried": chosen.tried, "taken": taken, "left_out": chosen.left_out}
        write_aside(path, json.dumps(told, indent=1).encode())
        write_aside(path.with_suffix(".md"), sensitivity(chosen).encode())


def sensitivity(chosen: Chosen) -> str:
    """How much the learning rate matters: mean, smallest and largest seed of every recipe at every rate."""
    lines = [
        "# Learning rates",
        "",
        "Mean over the sweep's seeds [smallest, largest, of several]; the rate that was taken is marked with a star.",
    ]
    for task in dict.fromkeys(row["task"] for row in chosen.tried):
        rows = [row for row in chosen.tried if row["task"] == task]
        rates = sorted({row["rate"] for row in rows})
        lines += ["", f"## {task}", "", f"| recipe | {' | '.join(f'{rate:g}' for rate in rates)} |"]
        lines.append("|---" * (1 + len(rates)) + "|")
        taken = [arm for plan in chosen.plans if plan.tasks == (task,) for arm in plan.arms]
        for name in dict.fromkeys(row["recipe"] for row in rows):
            mine = {row["rate"]: row for row in rows if row["recipe"] == name}
            cells = [cell(mine.get(rate), _with_rate(name, rate) in taken) for rate in rates]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines += [f"\n{one['recipe']} is left out: it {one['why']}" for one in chosen.left_out if one["task"] == task]
    return "\n".join(lines) + "\n"


def cell(row: dict[str, Any] | None, taken: bool) -> str:
    """Mean [smallest, largest] of the seeds of one recipe at one rate, with a star at the rate that was taken.

    >>> cell({"values": [0.1, 0.3], "failed": 0}, taken=True), cell({"values": [0.1], "failed": 1}, taken=False)
    ('0.200 [0.100, 0.300] *', '0.100, 1 failed')
    """
    if row is None or not row["values"]:
        return "failed"
    values = row["values"]
    spread = f" [{min(values):.3f}, {max(values):.3f}]" if len(values) > 1 else ""
    failed = f", {row['failed']} failed" if row["failed"] else ""
    return f"{sum(values) / len(values):.3f}{spread}{failed}{' *' * taken}"
