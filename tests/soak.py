"""A long run: `python -m tests.soak --hours 6` trains the demo's model with a judge that fails at random.

Meanwhile another process asks the run's store. What is found goes into results/soak.json: how memory and speed
moved (slope with its 95 % interval), metrics and responses that were lost, queries that failed.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from whet.runs.store import Store
from whet.tasks.compose import Compose
from whet.train import Run, View, start_run

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "results" / "soak.json"
ALWAYS = ("reward", "entropy", "length", "loss", "grad_norm", "unknown", "drawn", "seconds")
WARM = 0.1  # the share of the run that is no part of the slopes: caches fill


@dataclass
class Gauge(View):
    """Memory of this process after every update, in MiB, and the hours that had passed."""

    hours: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def stepped(self, step: int, told: dict[str, float], progress: float) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        self.hours.append((time.monotonic() - self.began) / 3600)
        if step % 50 == 0:
            print(f"update {step}, {self.hours[-1]:.2f} h, {self.memory[-1]:.0f} MiB", flush=True)


def ask(folder: str, told: Any, enough: Any) -> None:
    """Query the store again and again while it is written: what a report asks, and the slowest answer."""
    queries, failed, slowest = 0, 0, 0.0
    while not enough.wait(0.5):
        if not (Path(folder) / "run.json").exists():
            continue
        began = time.monotonic()
        try:
            store = Store.open(folder)
            store.metrics(), store.evaluations(), store.state, store.samples(split="train", limit=1)
        except Exception as error:
            print("a query failed:", error, flush=True)
            failed += 1
        queries += 1
        slowest = max(slowest, time.monotonic() - began)
    told.put({"queries": queries, "failed": failed, "slowest_seconds": round(slowest, 3)})


def slope(hours: list[float], values: list[float], unit: str) -> dict[str, Any]:
    """Change per hour with its 95 % interval, from a straight line through means of up to 60 equal pieces.

    Neighbouring updates are alike, so single updates would make the interval too narrow.
    """
    x, y = (np.asarray(z)[int(WARM * len(z)) :] for z in (hours, values))
    pieces = min(60, len(x) // 2)
    if pieces < 3:
        return {"unit": unit, "per_hour": None, "low": None, "high": None, "mean": None}
    x, y = (np.array([p.mean() for p in np.array_split(z, pieces)]) for z in (x, y))
    line = stats.linregress(x, y)
    half = stats.t.ppf(0.975, pieces - 2) * line.stderr
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


def main(hours: float, keep: str = "") -> dict[str, Any]:
    place = Path(keep or tempfile.mkdtemp())
    rows = [{"prompt": p.prompt, "answer": p.answer} for p in Compose(levels=(1,)).train()]
    (place / "problems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    context = multiprocessing.get_context("spawn")
    told, enough = context.Queue(), context.Event()
    asking = context.Process(target=ask, args=(str(place / "run"), told, enough), daemon=True)
    asking.start()
    view = Gauge()
    store = start_run(
        Run(
            task=str(place / "problems.jsonl"), budget=hours * 3600, out=str(place), name="run", eval_every=100,
            eval_samples=4, save_every=50, settings={"update.lr": "1e-5"},
            options={"judge": f"{ROOT / 'tests' / 'soak_judge.py'}:score", "max_tokens": 24},
        ),
        view,
    )  # fmt: skip
    enough.set()
    queries = told.get(timeout=60)
    seconds, speed = store.metrics("tokens_per_second")["tokens_per_second"]
    result = {
        "hours": round(view.hours[-1], 3), "ended": store.state[0], "memory": slope(view.hours, view.memory, "MiB"),
        "speed": slope([view.hours[s - 1] for s in seconds.tolist()], speed.tolist(), "tokens/s"),
        **lost(store, 256), **queries,
    }  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--keep", default="", help="a folder that keeps the run; a temporary one without it")
    chosen = parser.parse_args()
    print(json.dumps(main(chosen.hours, chosen.keep), indent=1))
