"""Checkpoints: a Hugging Face directory that any tool opens, with the state that a run goes on from beside it.

    step-000060/model.safetensors …    the policy
    step-000060/run-state.pt           everything else that the next step depends on
    step-000060/checkpoint.json        the sha256 of every file: written last

A checkpoint is written aside, forced to disk and moved into place, so its name says that it is whole; the sums
find what the disk did to it later.
"""

import hashlib
import json
import os
import pickle
import random
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from whet.batch import Batch
from whet.recipe import Recipe, Refused
from whet.refusal import NotFinite
from whet.runs.files import settle
from whet.settings import settings, with_settings
from whet.step import State
from whet.tasks import Problem

FORMAT = 2  # 1: version 0.1, without sums and without `Ledger`
KEPT = 2
STATE, SUMS = "run-state.pt", "checkpoint.json"


@dataclass
class Ledger:
    """What a trainer remembers between steps besides the `State` of `step`.

    `spent` is in seconds of training steps, `tokens` in sampled ones. `unknown` holds (unknown, drawn) of each of the
    last steps, `norms` the gradient norms that the spike guard compares with, `lost` the steps in a row not taken.
    """

    spent: float = 0.0
    tokens: float = 0.0
    unknown: list[tuple[int, int]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    norms: list[float] = field(default_factory=list)
    lost: int = 0


def write(
    folder: Path,
    engine: Any,
    state: State,
    ledger: Ledger,
    scores: Mapping[int, float] | None = None,
) -> Path:
    """`checkpoints/step-000060` in the run's folder, whole or not at all.

    The `KEPT` newest stay, and the one with the best of the `scores` by step.
    """
    import torch
    from safetensors import SafetensorError

    place = folder / "checkpoints" / f"step-{state.step:06d}"
    if (place / SUMS).is_file() and not damage(place):
        return place  # written before the run was stopped here: the same step of a run is the same state
    trained = engine.state()
    broken = [name for name, x in trained["weights"].items() if not torch.isfinite(x).all()]
    if broken:
        raise NotFinite("the update", f"The weights of {broken[0]} are not finite, so no checkpoint was written.")
    kept = {
        "format": FORMAT, "engine": trained, "step": state.step, "memories": state.memories,
        "history": state.history, "settings": settings(state.recipe), "ledger": dict(vars(ledger)),
        "random": _generators(),
    }  # fmt: skip
    aside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        engine.save(aside)
        torch.save(kept, aside / STATE)
        sums = {path.name: _sum(path) for path in sorted(aside.iterdir())}
        (aside / SUMS).write_text(json.dumps({"format": FORMAT, "step": state.step, "sha256": sums}, indent=1))
        settle(aside)
        shutil.rmtree(place, ignore_errors=True)  # what stands there is damaged
        aside.rename(place)
        settle_names(place.parent)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise Refused(
            f"The checkpoint of step {state.step} could not be written ({error}); the one before it is whole: "
            f"make room in {folder} and go on with `whet train --resume {folder}`."
        ) from error
    _tidy(folder, scores or {})
    return place


def settle_names(folder: Path) -> None:
    """Force a folder's list of names to disk, so that a rename outlives a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _tidy(folder: Path, scores: Mapping[int, float]) -> None:
    """Remove old checkpoints, and what processes left that were killed while they wrote one."""
    best_one = best(folder, scores)
    for old in found(folder)[:-KEPT]:
        if old != best_one:
            shutil.rmtree(old, ignore_errors=True)
    clear(folder)


def clear(folder: Path) -> None:
    """Remove what was written aside and never moved into place; for the only process that writes there."""
    for left in (folder / "checkpoints").glob(".*"):
        shutil.rmtree(left, ignore_errors=True)


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first; by their steps, since clocks may go backwards."""
    return sorted(path for path in (folder / "checkpoints").glob("step-*") if (path / STATE).is_file())


def step_of(place: Path) -> int:
    """The updates that a checkpoint was written after."""
    return int(place.name.removeprefix("step-"))


def best(folder: Path, scores: Mapping[int, float]) -> Path | None:
    """The checkpoint with the best score by step, the earliest of equals; None where none of them has one."""
    judged = [place for place in found(folder) if step_of(place) in scores]
    return max(judged, key=lambda place: scores[step_of(place)], default=None)


def newest(folder: Path) -> Path:
    """The last whole checkpoint of a run."""
    for place in reversed(found(folder)):
        if not damage(place):
            return place
    raise Refused(f"{folder} has no whole checkpoint: start it anew.")


def damage(place: Path) -> str:
    """What is wrong with the files of a checkpoint, in a phrase; empty when they are what was written.

    Version 0.1 of whet wrote no sums: its checkpoints count as whole until they do not open.
    """
    try:
        sums = json.loads((place / SUMS).read_bytes())["sha256"]
        wrong = [name for name, told in sums.items() if _sum(place / name) != told]
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        return "" if missing == SUMS and _is_old(place) else f"{missing} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{SUMS} cannot be read"
    return f"{wrong[0]} is not what was written" if wrong else ""


def _is_old(place: Path) -> bool:
    kept = _opened(place)
    return kept is not None and "format" not in kept


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- going on ----------------------------------------------------------------------------------------------


@dataclass
class Kept:
    """What the newest whole checkpoint holds; `damaged` are sentences about the newer ones that are not whole."""

    raw: dict[str, Any]
    damaged: list[str]

    def ledger(self) -> Ledger:
        """What the trainer remembered."""
        if "ledger" not in self.raw:
            return Ledger(spent=self.raw["spent"])
        ledger = Ledger(**self.raw["ledger"])
        # Early checkpoints of format 2 counted pairs (reason, times) in place of the reasons.
        reasons: Any = ledger.reasons
        pairs: dict[str, int] = dict(reason for reason in reasons if isinstance(reason, tuple))
        return replace(ledger, reasons=Counter(pairs)) if pairs else ledger

    def state(self, recipe: Recipe, changed: Mapping[str, Any]) -> State:
        """The state of `step`; settings are those of the checkpoint, but for those `changed` since by the user."""
        now = settings(recipe)
        moved = {
            address: value
            for address, value in self.raw["settings"].items()
            if now.get(address) != value and address not in changed
        }
        return State(with_settings(recipe, moved), self.raw["step"], self.raw["memories"], self.raw["history"])

    def restore(self, engine: Any) -> None:
        """Put weights, optimiser and the global random generators back."""
        engine.load_state(self.raw["engine"])
        _restore_generators(self.raw.get("random", {}))


def read(folder: Path) -> Kept | None:
    """The newest whole checkpoint; None where the run was stopped before its first one."""
    damaged = []
    for place in reversed(found(folder)):
        trouble = damage(place)
        kept = None if trouble else _opened(place)
        if kept is None:
            damaged.append(f"The checkpoint {place.name} is damaged ({trouble or f'{STATE} does not open'}).")
            continue
        if kept.get("format", 1) > FORMAT:
            raise Refused(f"{place} was written by a newer whet (format {kept['format']}): update whet to go on.")
        return Kept(kept, damaged)
    if damaged:
        raise Refused(f"{damaged[0].rstrip('.')}, and there is no whole one before it: start the run anew.")
    return None


def _opened(place: Path) -> dict[str, Any] | None:
    """The state in a checkpoint, without running any code that it may hold; None where it does not open."""
    import torch

    try:
        with torch.serialization.safe_globals([Batch, Problem, Counter]):
            kept = torch.load(place / STATE, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError):
        return None
    return kept if isinstance(kept, dict) and "engine" in kept else None


def _generators() -> dict[str, Any]:
    """The global generators. The stages have their own, from seed and step; these are for a user's own parts."""
    import numpy as np
    import torch

    kind, numbers, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": [str(kind), np.asarray(numbers).tolist(), *rest],
    }


def _restore_generators(kept: Mapping[str, Any]) -> None:
    import numpy as np
    import torch

    if not kept:
        return
    torch.set_rng_state(kept["torch"])
    if torch.cuda.is_available() and len(kept["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(kept["cuda"])
    random.setstate(kept["python"])
    np.random.set_state(tuple(kept["numpy"]))
