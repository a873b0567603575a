"""Checkpoints: a Hugging Face directory that any tool opens, with the state that a run goes on from beside it."""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from whet.batch import Batch
from whet.recipe import Recipe, Refused, settings, with_settings
from whet.step import State
from whet.tasks import Problem

KEPT = 2
STATE = "run-state.pt"


def write(folder: Path, engine: Any, state: State, spent: float) -> Path:
    """`checkpoints/step-000060` in the run's folder, whole or not at all; the `KEPT` newest stay."""
    import torch
    from safetensors import SafetensorError

    place = folder / "checkpoints" / f"step-{state.step:06d}"
    aside = place.with_name(f".{place.name}.{os.getpid()}")
    kept = {
        "engine": engine.state(), "step": state.step, "memories": state.memories, "history": state.history,
        "settings": settings(state.recipe), "spent": spent,
    }  # fmt: skip
    try:
        engine.save(aside)
        torch.save(kept, aside / STATE)
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise Refused(
            f"The checkpoint of step {state.step} could not be written ({error}); the one before it is whole: "
            f"make room in {folder} and go on with `whet train --resume {folder}`."
        ) from error
    for old in found(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path for path in (folder / "checkpoints").glob("step-*") if (path / STATE).is_file())


def newest(folder: Path) -> Path:
    """The last checkpoint of a run."""
    places = found(folder)
    if not places:
        raise Refused(f"{folder} has no checkpoint to go on from: start it anew.")
    return places[-1]


def read(folder: Path, engine: Any, recipe: Recipe) -> tuple[State, float]:
    """The state of the last checkpoint, put into the engine; and the seconds spent on training before it."""
    import torch

    with torch.serialization.safe_globals([Batch, Problem, Counter]):
        kept = torch.load(newest(folder) / STATE, weights_only=True)
    engine.load_state(kept["engine"])
    now = settings(recipe)
    moved = {address: value for address, value in kept["settings"].items() if now.get(address) != value}
    state = State(with_settings(recipe, moved), kept["step"], kept["memories"], kept["history"])
    return state, kept["spent"]
