"""Findings: what a paper says will happen, run over seeds and answered."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from whet import shelf
from whet.compare import stats
from whet.compare.measure import meaning, measure, possible
from whet.compare.plan import Plan
from whet.compare.result import DELTA
from whet.compare.study import LR, Taken, named_in, rate_of
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


def wanted(recipe: str, of_shelf: str, tasks: Sequence[str] = (), taken: Taken | None = None) -> list[Case]:
    """The findings of a recipe, of a whole shelf, or those whose runs a study has; refused where there are none.

    A finding is run on the task that it names, or on `tasks`; those of a study on every task of the study.
    """
    if (recipe and of_shelf) or not (recipe or of_shelf or taken):
        raise Refused("Name a recipe, or a shelf with --shelf, or only a study with --study.")
    every = {recipe: shelf.load(recipe)} if recipe else shelf.every_recipe()
    cases = [Case(name, one, task) for name, made in every.items() if not of_shelf or made.shelf == of_shelf
             for one in made.findings for task in tasks or (taken.plan.tasks if taken else (one.on,))]  # fmt: skip
    if taken and not (recipe or of_shelf):
        cases = [
            case for case in cases if {case.recipe, case.finding.versus} <= {*taken.arms.get(case.task, ()), START}
        ]
    if not cases:
        have = sorted(name for name, row in shelf.index().items() if row["findings"])
        whose = f"{recipe or of_shelf} states" if recipe or of_shelf else "The recipes of the study state"
        raise Refused(f"{whose} no finding that can be run. There are some of {', '.join(have)}.")
    return cases


def verify(
    cases: Sequence[Case], template: Plan, delta: float | None, out: Console, workers: int = 0,
    taken: Taken | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Make the runs that are not there, then answer finding by finding; each answer is what is stored.

    `template` says how runs are made, `taken` at which learning rate: at the model's own without a study.
    """
    cases = _possible(cases, template, out)
    plans = [plan_of(case, template, taken).checked() for case in cases]
    jobs = {job.folder: job for plan in plans for job in plan.jobs()}
    carry_out(sorted(jobs.values(), key=lambda job: job.seed), out, workers)
    for case, plan in zip(cases, plans, strict=True):
        yield {**answer(case, plan, delta), "rates": _rates(case, plan, taken)}


def _possible(cases: Sequence[Case], template: Plan, out: Console) -> list[Case]:
    """Those findings that can be measured with so few responses; what is left out is said, and refused if it is all."""
    found, last = [], None
    for case in cases:
        try:
            possible(case.finding.measure, template.samples, list(make(case.task, **template.options).evaluation()))
            found.append(case)
        except Refused as refused:
            last = refused
            out.print(f"Left out: {case.recipe}, {case.finding.measure}: {refused}")
    if last and not found:
        raise last
    return found


def plan_of(case: Case, template: Plan, taken: Taken | None = None) -> Plan:
    """The runs of a finding: its recipe and its rival, each at the rate that a study chose for it on this task."""
    names = [case.recipe, *([] if case.finding.versus == START else [case.finding.versus])]
    arms = tuple(taken.arm(name, case.task) if taken else name for name in names)
    return replace(template, arms=arms, tasks=(case.task,))


def _rates(case: Case, plan: Plan, taken: Taken | None) -> dict[str, dict[str, Any]]:
    """Each recipe's learning rate, and who chose it."""
    found = {}
    for arm in plan.arms:
        name, own = named_in(arm), arm != named_in(arm)
        chosen = (taken.chose(name, case.task) if taken else "") or ("given" if own else "the model's own")
        found[name] = {"rate": plan.settings.get(LR) or rate_of(arm, case.task, plan.model), "from": chosen}
    return found


def answer(case: Case, plan: Plan, delta: float | None = None) -> dict[str, Any]:
    """Holds, opposite, no difference or cannot tell, from finished runs."""
    finding = case.finding
    table: dict[str, dict[int, float]] = {case.recipe: {}, finding.versus: {}}
    failed = []
    for job in plan.jobs():
        store, name = job.store, case.recipe if job.arm == plan.arms[0] else finding.versus
        if store is None or store.state[0] != "finished":
            failed.append(f"{name} seed {job.seed}: {store.state[1] if store else 'not run'}")
            continue
        columns = [(name, False)] + ([(START, True)] if finding.versus == START else [])
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
        f"({len(one['seeds'])} seeds, {one['budget']}; {rates_said(one)}). The paper: {one['figure']} ({one['where']})."
    )


def rates_said(one: dict[str, Any]) -> str:
    """The learning rates of an answer in words: which recipes have the rate that a study chose for them.

    >>> rates_said({"rates": {"opo": {"rate": 5e-4, "from": "the study"}, "grpo": {"rate": 1e-3, "from": "the study"}}})
    'learning rates by the study: opo 0.0005, grpo 0.001'
    """
    by: dict[str, list[str]] = {}
    for name, row in one.get("rates", {}).items():
        by.setdefault(row["from"], []).append(name if row["rate"] is None else f"{name} {float(row['rate']):g}")
    return "; ".join(f"learning rates {'as ' if who == 'given' else 'by '}{who}: {', '.join(names)}"
                     for who, names in by.items())  # fmt: skip


def save(one: dict[str, Any], folder: Path) -> Path:
    """One file for each finding and task; what CATALOGUE.md and the pages of papers read."""
    folder.mkdir(parents=True, exist_ok=True)
    name = slug(f"finding-{one['recipe']}-{one['measure']}-{one['versus']}-{Path(one['task']).stem}")
    path = folder / f"{name}.json"
    clean = {k: None if isinstance(v, float) and v != v else v for k, v in one.items()}
    write_aside(path, json.dumps(clean, indent=1, ensure_ascii=False).encode())
    return path
