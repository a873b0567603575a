"""What the demo shows over five seeds: python -m tests.learning.demo [RUNS] writes results/demo.json. Ten minutes.

Where the result is there already, it also says how far this tree's seeds end from those: a faster engine must not
learn anything else. Interrupted and begun again, it goes on with the runs in the folder RUNS.
"""

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch

from whet.compare.stats import estimate
from whet.evaluate import by_split, pass_at
from whet.runs.store import Store, all_runs
from whet.train import Run, resume_run, start_run

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "results" / "demo.json"
SEEDS = range(5)


def trained(seed: int, runs: Path) -> Store:
    """The demo's run with this seed."""
    name = f"seed-{seed}"
    there = {store.name: store for store in all_runs(runs)}
    if name not in there:
        start_run(Run(recipe="grpo", options={"levels": "1"}, steps=60, seed=seed, out=str(runs), name=name))
    elif not there[name].finished:
        resume_run(name, str(runs))
    return Store.open(runs / name)


def row(store: Store, seed: int) -> dict[str, Any]:
    """What was evaluated before the first update and after the last, split by split."""
    evaluations = store.evaluations()
    ends = [by_split([e for s, e in evaluations if s == step]) for step in (0, store.steps)]
    return {"seed": seed} | {
        split: [
            {
                **{f"pass@{k}": round(pass_at(end[split], k), 4) for k in (1, 64)},
                "entropy": round(sum(e.entropy for e in end[split]) / len(end[split]), 4),
            }
            for end in ends
        ]
        for split in ends[0]
    }


def moved(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    """How far pass@1 at the end is from what it was, seed by seed: the mean with its 95 % interval, in points."""
    lines = []
    for split in now[0]:
        if split != "seed" and split in before[0]:
            found = estimate(
                [100 * (b[split][1]["pass@1"] - a[split][1]["pass@1"]) for a, b in zip(before, now, strict=True)]
            )
            lines.append(f"{split}: {found.value:+.2f} points ({found.low:+.2f} to {found.high:+.2f})")
    return lines


def main(runs: Path) -> None:
    """Five runs, one after the other, with one thread."""
    torch.set_num_threads(1)
    rows = []
    for seed in SEEDS:
        rows.append(row(trained(seed, runs), seed))
        print(json.dumps(rows[-1]["level1"]), flush=True)
    about: dict[str, Any] = {
        "command": "python -m tests.learning.demo: whet train grpo --task.levels=1 --steps 60 --seed SEED, one thread",
        "date": str(date.today()),
        "values": "[before, after]",
    }
    if RESULT.is_file():
        before = json.loads(RESULT.read_text())
        about["before"] = {"date": before["date"], "pass@1 at the end, this less that": moved(before["runs"], rows)}
        print(json.dumps(about["before"], indent=1))
    RESULT.write_text(json.dumps({**about, "runs": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "runs" / "demo"))
