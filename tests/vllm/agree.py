"""The same recipe and the same seeds, drawn by the local engine and by vLLM: `python -m tests.vllm.agree`.

Learning curves on `digits`, and their difference with its interval over seeds, in results/vllm-agrees.json; from there
into docs/vllm.md. Only vLLM's responses differ: problems, recipe, learner and first weights are the same, so the
difference is taken seed by seed.
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from scipy.stats import t as student

from tests.vllm.record import ROOT, versions
from whet import shelf
from whet.draw import generator
from whet.evaluate import evaluate, pass_at
from whet.report import quoted
from whet.step import State, step

RESULT, PAGE = ROOT / "results" / "vllm-agrees.json", ROOT / "docs" / "vllm.md"
UPDATES, EVERY = 30, 10


def curve(engine: Any, task: Any, seed: int, updates: int = UPDATES, samples: int = 8) -> dict[str, Any]:
    """The share of right answers in each update, and pass@1 on held-out problems behind the last."""
    problems = list(task.train())
    order = torch.randperm(len(problems), generator=generator(seed, 1)).tolist()  # as a run shuffles them
    pool, state, right = [problems[i] for i in order], State(shelf.load("grpo")), []
    for _ in range(updates):
        state, batch = step(engine, task, pool, state, seed)
        right.append(batch.told["correct"])
    return {"right": right, "held_out": pass_at(evaluate(engine, task, samples, [task.focus]), 1)}


def difference(one: list[float], other: list[float]) -> dict[str, float]:
    """The mean over seeds of other - one, with its 95 % interval (Student's t, paired by seed)."""
    gaps = [b - a for a, b in zip(one, other, strict=True)]
    half = float(student.ppf(0.975, len(gaps) - 1)) * stdev(gaps) / len(gaps) ** 0.5
    return {"mean": round(mean(gaps), 4), "low": round(mean(gaps) - half, 4), "high": round(mean(gaps) + half, 4)}


def compared(local: list[dict[str, Any]], vllm: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table: each stretch of updates, then the held-out problems."""

    def part(runs: list[dict[str, Any]], begin: int) -> list[float]:
        return [mean(run["right"][begin : begin + EVERY]) for run in runs]

    measures = {f"updates {b + 1} to {b + EVERY}": (part(local, b), part(vllm, b)) for b in range(0, UPDATES, EVERY)}
    measures["held-out pass@1"] = ([run["held_out"] for run in local], [run["held_out"] for run in vllm])
    return [
        {"measure": name, "local": round(mean(a), 4), "vllm": round(mean(b), 4), "difference": difference(a, b)}
        for name, (a, b) in measures.items()
    ]


def told(result: dict[str, Any]) -> str:
    """The table in docs/vllm.md."""
    rows = "\n".join(
        f"| {row['measure']} | {row['local']:.3f} | {row['vllm']:.3f} | {row['difference']['mean']:+.3f} "
        f"({row['difference']['low']:+.3f} to {row['difference']['high']:+.3f}) |"
        for row in result["rows"]
    )
    return (
        f"`{result['command']}`, seeds {', '.join(map(str, result['seeds']))}, `grpo` on `digits` from the same fresh "
        f"weights:\n\n| share of right answers | local | vllm | vllm less local, 95 % |\n|---|---|---|---|\n{rows}"
    )


def curves(name: str, seeds: list[int]) -> list[dict[str, Any]]:
    """The curve of each seed with one engine; vLLM starts once, and is given each seed's weights in turn."""
    from tests.vllm.test_gap import TASK, small
    from whet.engines.vllm import VLLM

    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    server: Any = None
    for seed in seeds:
        mine = small(seed)
        if name == "vllm":
            server = server or VLLM(mine)
            server.engine, mine.sampler = mine, server
            server.publish()
        found.append(curve(mine, TASK, seed))
        print(json.dumps({"seed": seed, "engine": name, "held_out": found[-1]["held_out"]}), flush=True)
    return found


def main(words: list[str]) -> None:
    """All seeds with both engines, in three processes; an argument is the number of seeds."""
    seeds = list(range(int(words[0]) if words else 5))
    half = -(-len(seeds) // 2)
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        parts = [("local", seeds), ("vllm", seeds[:half]), ("vllm", seeds[half:])]
        local, first, second = [job.result() for job in [pool.submit(curves, *part) for part in parts]]
    result = {
        "command": "python -m tests.vllm.agree", "seeds": seeds, "updates": UPDATES, "versions": versions(),
        "rows": compared(local, first + second), "runs": {"local": local, "vllm": first + second},
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    quoted.put(Path(PAGE), "agreement", told(result))


if __name__ == "__main__":
    main(sys.argv[1:])
