"""Runs that are killed with SIGKILL at random moments, and compared byte by byte with the run that never was.

`python -m tests.killing 30` kills 30 times over five recipes and prints what it saw as JSON. Each process is forked
after the imports, so that a kill costs no second start of Python.
"""

import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from whet import checkpoints
from whet.engines import local  # noqa: F401  imported before the fork
from whet.models import tiny
from whet.prepare import Run
from whet.runs import rollouts  # noqa: F401
from whet.runs.store import Store
from whet.tasks.digits import Digits
from whet.train import resume_run, start_run

RECIPES = {
    "poise": "a memory of states", "eframe": "a replay queue", "adaptive_entropy_control": "a controller",
    "ppo": "a critic, several optimiser steps", "confucius_pshw": "groups carried over",
}  # fmt: skip
UNSURE = ("eframe", "ppo")  # these have a judge of their own, in its processes, which cannot judge one in fifty
STAGES = {
    "sampling": "whet/engines/sampler.py", "judging": ("whet/tasks/digits.py", "whet/tasks/judging.py"),
    "update": "whet/engines/learner.py",
    "checkpoint": "whet/checkpoints.py", "store": "whet/runs/store.py", "evaluation": "whet/evaluate.py",
}  # fmt: skip
CLOCKS = ("seconds", "tokens_per_second", "peak_memory")


def begin(out: Path, recipe: str, **more: Any) -> Store:
    how = {"steps": 6, "save_every": 2, "eval_every": 3, "eval_samples": 4, **more}
    if recipe in UNSURE:
        return start_run(unsure(out, recipe=recipe, **how))
    return start_run(Run(recipe=recipe, task="digits", out=str(out), name="run", **how))


def unsure(folder: Path, **more: Any) -> Run:
    """A run whose judge cannot judge one response in about fifty, always the same."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "micro").exists():
        rows = [{"prompt": p.prompt, "answer": p.answer} for p in Digits().train()]
        (folder / "problems.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (folder / "judge.py").write_text(
            "import zlib\n"
            "def score(prompt, response, answer):\n"
            "    luck = zlib.crc32((prompt + response).encode()) % 50\n"
            "    return None if not luck else float(response[:1] == answer)\n"
        )
        tiny.save(tiny.micro(0), folder / "micro")
    return Run(
        task=str(folder / "problems.jsonl"), model=str(folder / "micro"), name="run", out=str(folder),
        settings={"update.lr": "0.01"}, options={"judge": f"{folder / 'judge.py'}:score", "max_tokens": 4}, **more,
    )  # fmt: skip


class Moment:
    """A profile hook that kills its own process at event number `at` of a stage, or only counts the events."""

    def __init__(self, stage: str = "", at: int = -1) -> None:
        self.stage, self.at = stage, at
        self.count: Counter[str] = Counter()
        self.now, self.frame = "", None

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.frame is None and event == "call":
            name = frame.f_code.co_filename
            self.now = next((stage for stage, file in STAGES.items() if name.endswith(file)), "")
            self.frame = frame if self.now else None
        if self.frame is not None:
            if self.now == self.stage and self.count[self.now] == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count[self.now] += 1
            if event == "return" and frame is self.frame:
                self.frame = None


def forked(out: Path, recipe: str, moment: Moment | None = None, seconds: float | None = None) -> int:
    """Begin or resume the run in a process of its own, killed at a moment or after so many seconds; its status."""
    process = os.fork()
    if process:
        if seconds is not None:
            time.sleep(seconds)
            os.kill(process, signal.SIGKILL)  # a process that has ended waits to be collected: this is its own
        return os.waitpid(process, 0)[1]
    try:
        sys.setprofile(moment)
        if (out / "run" / "run.json").exists():
            resume_run("run", str(out))
        else:
            begin(out, recipe)
        sys.setprofile(None)
        if moment and moment.at < 0:
            (out / "events.json").write_text(json.dumps(moment.count))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def fingerprint(out: Path) -> dict[str, str]:
    """Digests of everything that a finished run is, clocks aside."""
    store = Store.open(out / "run")
    place = checkpoints.newest(store.folder)
    kept = torch.load(place / checkpoints.STATE, weights_only=False)
    kept["ledger"].pop("spent")
    metrics = [(n, s.tolist(), v.tolist()) for n, (s, v) in sorted(store.metrics().items()) if n not in CLOCKS]
    parts = {
        "weights": (place / "model.safetensors").read_bytes(), "state": _plain(kept), "metrics": metrics,
        "evaluations": store.evaluations(), "responses": store.samples(), "status": store.state,
        "checkpoints": [path.name for path in checkpoints.found(store.folder)],
    }  # fmt: skip
    return {name: hashlib.sha256(repr(part).encode()).hexdigest()[:16] for name, part in parts.items()}


def _plain(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return (str(x.dtype), tuple(x.shape), x.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    if isinstance(x, dict):
        return [(key, _plain(value)) for key, value in x.items()]
    if hasattr(x, "__dataclass_fields__"):
        return [(name, _plain(getattr(x, name))) for name in x.__dataclass_fields__]
    return [_plain(one) for one in x] if isinstance(x, list | tuple) else x


def killed(recipe: str, kills: int, rng: random.Random, root: Path) -> dict[str, Any]:
    """`kills` kills of runs of a recipe, half at an event of a stage and half by the clock; what was found."""
    began = time.perf_counter()
    assert forked(root / "whole", recipe, Moment()) == 0
    whole_seconds = time.perf_counter() - began
    events = json.loads((root / "whole" / "events.json").read_text())
    expected = fingerprint(root / "whole")
    tried: list[str] = []
    survived, run, stages = 0, 0, list(STAGES)
    while len(tried) < kills:
        out, pending = root / f"killed-{run}", 0
        while True:  # until the run has finished
            if len(tried) >= kills:
                status = forked(out, recipe)
            elif rng.random() < 0.5:
                status = forked(out, recipe, seconds=rng.uniform(0, whole_seconds))
                stage = "any, by the clock"
            else:
                stage = stages[rng.randrange(len(stages))]
                status = forked(out, recipe, Moment(stage, rng.randrange(max(events[stage] // 2, 1))))
            if os.WIFSIGNALED(status):
                tried.append(stage)
                pending += 1
                continue
            assert os.WEXITSTATUS(status) == 0, f"{recipe} did not resume after kills in {tried[-pending:]}"
            break
        found = fingerprint(out)
        differing = [name for name in expected if found[name] != expected[name]]
        if differing:
            print(recipe, "differs in", differing, "after kills in", tried[-pending:], file=sys.stderr)
        survived += 0 if differing else pending
        run += 1
    return {"recipe": recipe, "tried": len(tried), "survived": survived, "stages": Counter(tried)}


def main(kills: int, seed: int) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        begin(Path(root) / "warm", "grpo")  # whatever is imported late is imported once
        return [killed(recipe, kills // len(RECIPES), rng, Path(root) / recipe) for recipe in RECIPES]


if __name__ == "__main__":
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**6)
    print(f"seed {chosen}", file=sys.stderr)
    print(json.dumps(main(int(sys.argv[1]), chosen)))
