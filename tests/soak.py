"""A long run: `python -m tests.soak --hours 6` trains the demo's model with a judge that fails at random.

It keeps its folder: stopped or killed, the same command goes on with the same run, and the hours of all processes
add up. Each process leaves a segment: how memory, CPU seconds and wall seconds of an update moved (slope with its
95 % interval), and what the run's store answered to another process while it was written. In results/soak.json.

A folder that is gone (it is too large to hand on: a checkpoint has about 10 MB) cannot be gone on with: then another
run begins, the hours of both count, and the result says how many runs they are of.
"""

import argparse
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy import stats

from whet.runs.store import Store
from whet.tasks.compose import Compose
from whet.train import Run, View, resume_run, start_run

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "results" / "soak.json"
ALWAYS = ("reward", "entropy", "length", "loss", "grad_norm", "unknown", "drawn", "seconds")
DRAWN = 256  # responses of an update
WARM = 0.1  # the share of a process that is no part of the slopes: caches fill
LR = "2e-7"  # so small that an update is as much work at the end as at the start: what moves is the system
COLUMNS = {
    "memory": "MiB",
    "judges": "MiB, all judge processes",
    "cpu": "CPU s per update",
    "wall": "s per update",
    "own": "MiB, pages of files left out",  # those the system takes back when other processes want memory
}


class Gauge(View):
    """One line per update in a segment's file: the update, hours, memory, memory of the judges, CPU and wall seconds.

    Written at once, so that a process which is killed leaves what it measured. Asks the run to stop after `hours`.
    It reads nothing back: a run of 2,300 updates has 10 MiB of metrics, and what is measured here is the run's memory.
    """

    def __init__(self, file: Path, hours: float, asking: int) -> None:
        self.file, self.enough, self.asking = file, hours, asking
        self.began, self.cpu, self.me = time.monotonic(), 0.0, psutil.Process()

    @contextmanager
    def measuring(self, engine: Any) -> Iterator[None]:
        """CPU seconds of this process in the step; those of the judges are their own."""
        began = time.process_time()
        yield
        self.cpu = time.process_time() - began

    def stepped(self, step: int, told: dict[str, float], progress: float) -> None:
        hours = (time.monotonic() - self.began) / 3600
        row = [hours, _mib(self.me), self._judges(), self.cpu, told["seconds"], _own()] if "seconds" in told else []
        if row:
            with self.file.open("a") as file:
                file.write(" ".join([str(step), *(f"{x:.6g}" for x in row)]) + "\n")
        if hours >= self.enough:
            os.kill(os.getpid(), signal.SIGINT)  # what a user does

    def _judges(self) -> float:
        return sum(_mib(p) for p in self.me.children(recursive=True) if p.pid != self.asking)


def _mib(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 2**20
    except psutil.Error:  # ended meanwhile
        return 0.0


def _own() -> float:
    """MiB of this process that are backed by no file."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return sum(float(row.split()[1]) for row in rows if row.startswith(("RssAnon", "VmSwap"))) / 1024


def ask(folder: str, file: str, enough: Any) -> None:
    """Query the store again and again while it is written: what a report asks, and the slowest answer.

    Now and then it writes the result so far.
    """
    told = {"queries": 0, "failed": 0, "slowest_seconds": 0.0, "errors": []}
    while not enough.wait(5):
        if not (Path(folder) / "run.json").exists():
            continue
        began = time.monotonic()
        try:
            store = Store.open(folder)
            store.metrics(), store.evaluations(), store.state, store.samples(split="train", limit=1)
        except Exception as error:
            told["failed"] += 1
            told["errors"] = [*told["errors"], repr(error)][-3:]
        told["queries"] += 1
        told["slowest_seconds"] = max(told["slowest_seconds"], round(time.monotonic() - began, 3))
        aside = Path(file + ".new")
        aside.write_text(json.dumps(told))
        aside.replace(file)
        if told["queries"] % 60 == 0:
            tell(Path(folder).parent)


def slope(hours: np.ndarray, values: np.ndarray, unit: str) -> dict[str, Any]:
    """Change per hour with its 95 % interval, from a straight line through means of up to 60 equal pieces.

    Neighbouring updates are alike, so single updates would make the interval too narrow.
    """
    x, y = (np.asarray(z)[int(WARM * len(z)) :] for z in (hours, values))
    pieces = min(60, len(x) // 2)
    if pieces < 3:
        return {"unit": unit, "per_hour": None, "low": None, "high": None, "mean": None}
    x, y = (np.array([p.mean() for p in np.array_split(z, pieces)]) for z in (x, y))
    line = stats.linregress(x, y)
    half = stats.t.ppf(0.975, pieces - 2) * line.stderr if y.std() else 0.0  # a constant has no slope, surely
    numbers = {"per_hour": line.slope, "low": line.slope - half, "high": line.slope + half, "mean": y.mean()}
    return {"unit": unit, **{name: round(float(value), 4) for name, value in numbers.items()}}


def lost(store: Store, responses: int) -> dict[str, int]:
    """Metrics and responses that should be there and are not; a step that was not taken has none of either."""
    found = store.metrics()
    skipped = set(found["not_taken"][0].tolist()) if "not_taken" in found else set()
    steps = set(range(1, store.steps + 1)) - skipped
    metrics = sum(len(steps - set(found[name][0].tolist())) for name in ALWAYS)
    return {"updates": len(steps), "not_taken": len(skipped), "lost_metrics": metrics,
            "lost_responses": int(sum(responses - found["drawn"][1])),
            "unknown": int((found["unknown"][1] * found["drawn"][1]).sum() + 0.5)}  # fmt: skip


def segment(file: Path) -> dict[str, Any]:
    """What one process measured, from its file; and what somebody noted about it in `segment-000.note` beside it."""
    step, hours, *columns = np.loadtxt(file, ndmin=2).T
    queries, note = file.with_suffix(".json"), file.with_suffix(".note")
    return {
        "updates": [int(step[0]), int(step[-1])], "hours": round(float(hours[-1]), 3),
        **{name: slope(hours, x, unit) for (name, unit), x in zip(COLUMNS.items(), columns, strict=False)},
        **(json.loads(queries.read_text()) if queries.is_file() else {}),
        **({"note": note.read_text().strip()} if note.is_file() else {}),
    }  # fmt: skip


def tell(place: Path) -> dict[str, Any]:
    """Write the result: this run, and the other runs that are in results/soak.json already."""
    store, files = Store.open(place / "run"), sorted(place.glob("segment-*.txt"))
    mine = {
        "began": (place / "began").read_text(), **lost(store, DRAWN), "reasons": store.about.get("unknown", {}),
        "segments": [segment(file) for file in files],
    }  # fmt: skip
    before = json.loads(RESULT.read_text())["runs"] if RESULT.is_file() else []
    runs = [run for run in before if run["began"] != mine["began"]] + [mine]
    result = {"hours": round(sum(s["hours"] for run in runs for s in run["segments"]), 3), "runs": runs}
    RESULT.parent.mkdir(exist_ok=True)
    aside = RESULT.with_suffix(".new")
    aside.write_text(json.dumps(result, indent=1) + "\n")
    aside.replace(RESULT)
    return result


def main(hours: float, place: Path) -> dict[str, Any]:
    """Go on with the run in `place`, or begin it, until the processes of all runs have had so many hours."""
    place.mkdir(parents=True, exist_ok=True)
    begun = (place / "began").is_file() and (place / "run" / "run.json").is_file()
    if not begun:
        (place / "began").write_text(time.strftime("%Y-%m-%d %H:%M:%S"))
        rows = [{"prompt": p.prompt, "answer": p.answer} for p in Compose(levels=(1,)).train()]
        (place / "problems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    had = tell(place)["hours"] if begun else json.loads(RESULT.read_text())["hours"] if RESULT.is_file() else 0.0
    if had >= hours:
        return tell(place)
    file = place / f"segment-{len(list(place.glob('segment-*.txt'))):03d}.txt"
    context = multiprocessing.get_context("spawn")
    enough = context.Event()
    asking = context.Process(target=ask, args=(str(place / "run"), str(file.with_suffix(".json")), enough), daemon=True)
    asking.start()
    view = Gauge(file, hours - had, asking.pid or 0)
    if begun:
        resume_run("run", str(place), view)
    else:
        start_run(
            Run(
                task=str(place / "problems.jsonl"), steps=10**6, out=str(place), name="run", eval_every=100,
                eval_samples=4, save_every=50, settings={"update.lr": LR},
                options={"judge": f"{ROOT / 'tests' / 'soak_judge.py'}:score", "max_tokens": 24},
            ),
            view,
        )  # fmt: skip
    enough.set()
    asking.join(60)
    return tell(place)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=6.0, help="of all processes together")
    parser.add_argument("--keep", type=Path, default=ROOT / "runs" / "soak", help="the folder of the run")
    chosen = parser.parse_args()
    print(json.dumps(main(chosen.hours, chosen.keep), indent=1))
