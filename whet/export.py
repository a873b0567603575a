"""What a run made, for everyone else: a Hugging Face directory with a model card beside it.

Adapters are merged into their base, or kept as they are for PEFT and vLLM. Other formats are left to the tools that
keep them: `convert_hf_to_gguf.py` of llama.cpp reads the exported directory, and so do MLX, vLLM and SGLang.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from whet import checkpoints
from whet.models import load, lora
from whet.prepare import run_from
from whet.refusal import Refused
from whet.report.facts import bounds, facts, number, splits, steps_of
from whet.runs.store import Store

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt", "*.py")


def export(store: Store, folder: Path, adapters: bool = False) -> Path:
    """The last checkpoint of a run as a Hugging Face directory; with `adapters`, unmerged in PEFT's format."""
    place, folder = checkpoints.newest(store.folder), Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise Refused(f"{folder} is not empty: name a new folder to export to.")
    if adapters and not lora.is_adapter(place):
        raise Refused(f"{store.name} trained all weights, so it has no adapters: leave --adapters out.")
    folder.mkdir(parents=True, exist_ok=True)
    if lora.is_adapter(place) and not adapters:
        with load.quiet():
            setup = run_from(store).setup
            load.model(place, setup=setup).save_pretrained(folder)
            load.tokenizer(place, setup).save_pretrained(folder)
    else:
        for file in sorted({path for pattern in WEIGHTS for path in place.glob(pattern)}):
            if file.name not in (checkpoints.STATE, "checkpoint.json", "whet.json"):
                shutil.copy2(file, folder / file.name)
    (folder / "README.md").write_text(card(store, adapters), encoding="utf-8")
    return folder


# --- the model card ---------------------------------------------------------------------------------------


def card(store: Store, adapters: bool = False) -> str:
    """The model card: what was trained, how, on what, what came of it, and whom to cite. Markdown."""
    about = store.about
    run = about["run"]
    front = {
        "library_name": "peft" if adapters else "transformers",
        "pipeline_tag": "text-generation",
        "base_model": about["base"],
        "tags": ["reinforcement-learning", "whet", *about["recipe"].split("+")],
    }
    head = "---\n" + "".join(f"{name}: {json.dumps(value)}\n" for name, value in front.items()) + "---\n"
    rows = {
        "recipe": f"`{about['recipe']}`: {about['new']}",
        "base model": about["base"],
        "data": f"{about['task']} (`{run['task']}`)",
        "updates": str(store.steps),
        "seed": str(about["seed"]),
        "trained": "adapters, " + run["setup"]["lora"] if run["setup"]["lora"] else "all weights",
        "made with": ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
    }
    facts_table = "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    blocks = [
        f"{head}\n# {about['base']}, trained with {about['recipe']} on {about['task']}",
        f"| | |\n|---|---|\n{facts_table}",
        _results(store),
        f"## Method\n\n```\n{about['equation']}\n```" if about["equation"] else "",
        _settings(about),
        _departs(about),
        f"## Made again with\n\n```\n{about['command']}\n```" if about.get("command") else "",
        f"## Citations\n\n```bibtex\n{_citations(about)}\n```",
    ]
    return "\n\n".join(block.rstrip() for block in blocks if block) + "\n"


def _results(store: Store) -> str:
    lines = facts(store)
    if not lines:
        return "## Results\n\nThis run was not evaluated."
    before, after = steps_of(splits(store))
    rows = [
        f"| {fact.split} | {fact.measure} | {number(fact.before, fact.unit)} | {number(fact.after, fact.unit)} | "
        f"{bounds(fact) if fact.change else ''} |"
        for fact in lines
    ]
    return (
        "## Results\n\nHeld-out problems; intervals of the change are over problems (95 %), not over seeds.\n\n"
        f"| split | measure | {before or 'before'} | {after or 'after'} | interval |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
    )


def _settings(about: dict[str, Any]) -> str:
    rows = "".join(f"| `{row['address']}` | {row['value']} | {row['source']} |\n" for row in about["settings"])
    return f"## Settings\n\n| setting | value | source |\n|---|---|---|\n{rows}"


def _departs(about: dict[str, Any]) -> str:
    return (
        "## Departs from the papers\n\n" + "\n".join(f"- {line}" for line in about["departs"])
        if about["departs"]
        else ""
    )


def _citations(about: dict[str, Any]) -> str:
    from whet import shelf
    from whet.cite import bibtex

    try:
        return bibtex(shelf.load(about["run"]["recipe"]))
    except Refused:  # a recipe that a notebook made has no name to load it by, but its papers are in the run
        return "\n".join(f"% {paper['title']} {paper['link']}" for paper in about["papers"])
