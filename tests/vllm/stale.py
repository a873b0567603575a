"""What a stale policy costs and what the corrections give back, over runs: `python -m tests.vllm.stale 0 8`.

The seeds from the first number up to the second; one line for each run, as JSON; all of it in
results/vllm-stale.json, and from there in docs/vllm.md.
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import mean
from typing import Any

import torch

from tests.vllm.agree import difference
from tests.vllm.record import ROOT, versions
from tests.vllm.test_gap import TASK, small
from whet.engines.vllm import VLLM
from whet.evaluate import evaluate, pass_at
from whet.papers import dr_grpo, rollout_is
from whet.report import quoted
from whet.step import State, step

UPDATES, LATE = 40, 10
RESULT = ROOT / "results" / "vllm-stale.json"
PLAIN = dr_grpo.recipe
ARMS = {
    "after every update": (PLAIN, 1),
    "every tenth, uncorrected": (PLAIN, LATE),
    "every tenth, rollout_is": (PLAIN.with_(weights=(rollout_is.truncated,)), LATE),
    "every tenth, IcePop": (PLAIN.with_(weights=(rollout_is.icepop,)), LATE),
}


def runs(seed: int) -> dict[str, dict[str, float]]:
    """All arms on one seed: pass@1 on held-out problems at the end, and the mean effective sample size."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {}
    server: Any = None
    for arm, (recipe, every) in ARMS.items():
        mine = small(seed)
        server = server or VLLM(mine)
        server.engine, server.publish_every, mine.sampler = mine, every, server
        server.publish()
        state, worth = State(recipe), []
        for _ in range(UPDATES):
            state, batch = step(mine, TASK, TASK.train(), state, seed)
            # none where all groups were alike, so that nothing was learned from the batch
            worth += [batch.told["sampler_ess"]] if "sampler_ess" in batch.told else []
        server.publish()
        found[arm] = {"pass@1": round(pass_at(evaluate(mine, TASK, 64), 1), 3), "ess": round(mean(worth), 3)}
        print(json.dumps({"seed": seed, "handed over": arm, **found[arm]}), flush=True)
    return found


def told(result: dict[str, Any]) -> str:
    """The table in docs/vllm.md."""
    rows = ["| handed over | effective sample size | pass@1 | more than uncorrected, 95 % |", "|---|---|---|---|"]
    for row in result["rows"]:
        more = row.get("more")
        gain = f"{more['mean']:+.2f} ({more['low']:+.2f} to {more['high']:+.2f})" if more else ""
        rows.append(f"| {row['handed over']} | {row['ess']:.2f} | {row['pass@1']:.3f} | {gain} |")
    seeds = ", ".join(map(str, result["seeds"]))
    return f"`{result['command']}`, held-out pass@1 at the end, seeds {seeds}:\n\n" + "\n".join(rows)


def summed(found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """One row for each arm; the corrected ones with their gain over the uncorrected one, seed by seed."""
    plain = [row["pass@1"] for row in found["every tenth, uncorrected"]]
    rows: list[dict[str, Any]] = []
    for arm, runs in found.items():
        mine = [row["pass@1"] for row in runs]
        rows.append({"handed over": arm, "ess": mean(row["ess"] for row in runs), "pass@1": mean(mine)})
        if arm.startswith("every tenth, ") and not arm.endswith("uncorrected"):
            rows[-1]["more"] = difference(plain, mine)
    return rows


def main() -> None:
    """All arms on the same seeds, each seed in a process of its own."""
    seeds = list(range(*map(int, sys.argv[1:3])))
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        by_seed = list(pool.map(runs, seeds))
    found = {arm: [mine[arm] for mine in by_seed] for arm in ARMS}
    command = f"python -m tests.vllm.stale {seeds[0]} {seeds[-1] + 1}"
    result = {"command": command, "seeds": seeds, "versions": versions(), "rows": summed(found), "runs": found}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    quoted.put(ROOT / "docs" / "vllm.md", "stale", told(result))


if __name__ == "__main__":
    main()
