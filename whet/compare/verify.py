"""Findings: what a paper says will happen, run over seeds and answered."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from whet import shelf
from whet.compare import stats
from whet.compare.measure import meaning, measure, possible
from whet.compare.plan import Budget, Plan
from whet.compare.result import DELTA
from whet.compare.work import carry_out
from whet.recipe import Finding
from whet.refusal import Refused
from whet.runs.files import slug, write_aside
from whet.tasks.shelf import make

START = "start"
OPEN = "cannot tell yet: "
ANSWERS = ("holds", "opposite", "no difference", "cannot tell")


@dataclass(frozen=True)
class Case:
    """A recipe and one of its findings, on a task."""

    recipe: str
    finding: Finding
    task: str


def wanted(recipe: str, of_shelf: str, task: str = "") -> list[Case]:
    """The findings of a recipe or of a whole shelf; refused where there are none."""
    if bool(recipe) == bool(of_shelf):
        raise Refused("Name a recipe, or a shelf with --shelf: one of the two.")
    every = shelf.every_recipe() if of_shelf else {recipe: shelf.load(recipe)}
    cases = [Case(name, one, task or one.on) for name, made in every.items() if not of_shelf or made.shelf == of_shelf
             for one in made.findings]  # fmt: skip
    if not cases:
        have = sorted(name for name, row in shelf.index().items() if row["findings"])
        raise Refused(f"{recipe or of_shelf} states no finding that can be run. There are some of {', '.join(have)}.")
    return cases


def verify(
    cases: Sequence[Case], seeds: Sequence[int], budget: Budget, samples: int, delta: float | None, runs: str,
    out: Console, workers: int = 0,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Make the runs that are not there, then answer finding by finding; each answer is what is stored."""
    for case in cases:
        possible(case.finding.measure, samples, list(make(case.task).evaluation()))
    plans = [_plan(case, tuple(seeds), budget, samples, runs).checked() for case in cases]
    jobs = {job.folder: job for plan in plans for job in plan.jobs()}
    carry_out(sorted(jobs.values(), key=lambda job: job.seed), out, workers)
    for case, plan in zip(cases, plans, strict=True):
        yield answer(case, plan, delta)


def _plan(case: Case, seeds: tuple[int, ...], budget: Budget, samples: int, runs: str) -> Plan:
    other = () if case.finding.versus == START else (case.finding.versus,)
    return Plan((case.recipe, *other), (case.task,), seeds, budget, samples, runs=runs)


def answer(case: Case, plan: Plan, delta: float | None = None) -> dict[str, Any]:
    """Holds, opposite, no difference or cannot tell, from finished runs."""
    finding = case.finding
    table: dict[str, dict[int, float]] = {case.recipe: {}, finding.versus: {}}
    failed = []
    for job in plan.jobs():
        store = job.store
        if store is None or store.state[0] != "finished":
            failed.append(f"{job.arm} seed {job.seed}: {store.state[1] if store else 'not run'}")
            continue
        columns = [(job.arm, False)] + ([(START, True)] if finding.versus == START else [])
        for column, start in columns:
            value = measure(store, finding.measure, start=start)
            if value is not None and value == value:
                table[column][job.seed] = value
    what = meaning(finding.measure)
    every = [v for row in table.values() for v in row.values()]
    bound = DELTA if what.unit == "share" else 0.05 * abs(sum(every) / max(len(every), 1))
    bound = bound if delta is None else delta
    pair = stats.pairs(table, [(case.recipe, finding.versus)], bound, 0, unit=what.unit)[0]
    return {
        "recipe": case.recipe, **asdict(finding), "task": case.task, "verdict": _verdict(pair, finding.direction),
        "words": pair.words, "difference": pair.difference, "low": pair.low, "high": pair.high, "p": pair.p,
        "delta": bound, "seeds": list(plan.seeds), "budget": str(plan.budget), "samples": plan.samples,
        "values": {name: {str(s): v for s, v in row.items()} for name, row in table.items()}, "failed": failed,
        "date": date.today().isoformat(),
    }  # fmt: skip


def _verdict(pair: stats.Pair, direction: str) -> str:
    if pair.verdict == "tie":
        return "holds" if direction == "same" else "no difference"
    if pair.verdict == "open":
        return "cannot tell"
    if direction == "same":
        return "opposite"
    return "holds" if (pair.difference > 0) == (direction == "up") else "opposite"


def sentence(one: dict[str, Any]) -> str:
    """The answer in one line."""
    said = {"up": "higher", "down": "lower", "same": "the same"}[one["direction"]]
    than = "at its start" if one["versus"] == START else f"in {one['versus']}"
    return (
        f"{one['measure']} {said} than {than}, on {one['task']}: {one['verdict']}; {one['words'].removeprefix(OPEN)} "
        f"({len(one['seeds'])} seeds, {one['budget']}). The paper: {one['figure']} ({one['where']})."
    )


def save(one: dict[str, Any], folder: Path) -> Path:
    """One file for each finding and task; what CATALOGUE.md and the pages of papers read."""
    folder.mkdir(parents=True, exist_ok=True)
    name = slug(f"finding-{one['recipe']}-{one['measure']}-{one['versus']}-{Path(one['task']).stem}")
    path = folder / f"{name}.json"
    clean = {k: None if isinstance(v, float) and v != v else v for k, v in one.items()}
    write_aside(path, json.dumps(clean, indent=1, ensure_ascii=False).encode())
    return path
