"""What a run is made from, field by field: what a resumed run compares with what it was when it began.

A field that makes it another run (another model, other problems, another recipe) is a reason to refuse. One that
only makes the bits differ (another machine, another version, edited code) is a sentence that stays with the run.
"""

import hashlib
import inspect
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from whet import __version__, describe
from whet.recipe import STAGES, Recipe, function_of, lineage
from whet.refusal import Refused
from whet.settings import settings
from whet.tasks.shelf import others_taught

ANOTHER_RUN = {
    "recipe": "the recipe {was} is now {now}",
    "task": "its task was {was} and is now {now}",
    "problems": "its problems are no longer the same: put back the file or the options that it began with",
    "model": "the model that it began from is no longer the same: put back the directory that it began with",
    "seed": "its seed was {was} and is now {now}",
}
OTHER_BITS = {
    "code": "the code of {was} was edited",
    "whet": "it was whet {was} and is now {now}",
    "torch": "it was torch {was} and is now {now}",
    "python": "it was Python {was} and is now {now}",
    "machine": "it was a {was} and is now a {now}",
    "device": "it was on {was} and is now on {now}",
    "dtype": "it was in {was} and is now in {now}",
    "threads": "it had {was} threads and has now {now}",
}


def about(run: Any, recipe: Recipe, task: Any, engine: Any) -> dict[str, Any]:
    """What a run says of itself in run.json: enough to make it again, and to explain it in its report."""
    import transformers

    papers = [r.paper for r in lineage(recipe) if r.paper.title]
    others = others_taught(engine.card, task)
    return {
        "recipe": recipe.name,
        "new": recipe.new,
        "task": task.name,
        "base": Path(run.model).name if run.model else "a fresh micro model",
        "seed": run.seed,
        "steps": run.steps,
        "focus": task.focus,
        "notices": list(getattr(task, "notices", ())),
        "elsewhere": [*task.elsewhere, *(split for other in others for split in other.evaluation())],
        "settings": [{**row, "value": engine.lr} if row["address"] == "update.lr" and row["value"] is None else row
                     for row in describe.settings_table(recipe)],
        "equation": describe.equation(recipe),
        "papers": [{**asdict(paper), "link": paper.link} for paper in dict.fromkeys(papers)],
        "departs": list(recipe.departs),
        "run": asdict(run),
        "made_from": made_from(run, recipe, task, engine),
        "command": " ".join(["whet", *sys.argv[1:]]) if sys.argv[0].endswith("whet") else "",
        "versions": {
            "whet": __version__, "torch": torch.__version__, "transformers": transformers.__version__,
            "python": sys.version.split()[0],
        },
    }  # fmt: skip


def made_from(run: Any, recipe: Recipe, task: Any, engine: Any) -> dict[str, Any]:
    """Everything that the numbers of a run depend on, as plain values; digests where the things are large."""
    return {
        "recipe": {stage: [_name(part) for _, part in recipe.parts(stage)] for stage in STAGES},
        "settings": settings(recipe),
        "task": f"{task.name}, {task.max_tokens} tokens",
        "problems": _problems(task),
        "model": _model(engine),
        "seed": run.seed,
        "code": {_name(part): _source(part) for _, part in recipe.parts()},
        "whet": __version__,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "machine": f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": str(getattr(engine, "device", run.setup.device)),
        "dtype": run.setup.dtype,
        "threads": torch.get_num_threads(),
    }


def compared(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs without making it another run, as sentences; refused where it is another run.

    A field that an older whet did not write is not compared.
    """
    for field, sentence in ANOTHER_RUN.items():
        if field in was and was[field] != now[field]:
            told = sentence.format(was=_short(was, now, field), now=_short(now, was, field))
            raise Refused(
                f"This run cannot go on, since {told}; or start a new run from its last checkpoint with --model."
            )
    return [
        sentence.format(was=_short(was, now, field), now=_short(now, was, field))
        for field, sentence in OTHER_BITS.items()
        if field in was and was[field] != now[field]
    ]


def _short(mine: Mapping[str, Any], other: Mapping[str, Any], field: str) -> str:
    """A field in words; of a mapping only what differs."""
    value, against = mine[field], other[field]
    if not isinstance(value, Mapping):
        return str(value)
    differing = [key for key in value if value[key] != against.get(key)] or [*value]
    if field == "code":
        return ", ".join(key.rpartition(".")[2] for key in differing)
    return "; ".join(f"{key} {', '.join(value[key]) or 'nothing'}" for key in differing)


def _name(part: Any) -> str:
    function = function_of(part)
    return f"{function.__module__}.{function.__qualname__}"


def _source(part: Any) -> str:
    try:
        text = inspect.getsource(function_of(part))
    except (OSError, TypeError):  # made in a shell: nothing to compare
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _problems(task: Any) -> str:
    digest = hashlib.sha256()
    for split, rows in [("train", task.train()), *task.evaluation().items()]:
        for row in rows:
            digest.update(repr((split, row.id, row.prompt, row.answer)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _model(engine: Any) -> str:
    """A digest of the weights that the engine began with."""
    digest = hashlib.sha256()
    for name, x in sorted(engine.start().items()):
        digest.update(name.encode())
        digest.update(x.contiguous().view(torch.uint8).numpy().data if x.dim() else str(x.item()).encode())
    return digest.hexdigest()[:16]
