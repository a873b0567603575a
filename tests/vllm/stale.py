"""What a stale policy costs and what the corrections give back, over runs: `python -m tests.vllm.stale 0 8`.

The seeds from the first number up to the second; one line for each run, as JSON, and means at the end.
"""

import json
import sys
from statistics import mean

from tests.vllm.test_gap import TASK, small
from whet.engines.vllm import VLLM
from whet.evaluate import evaluate, pass_at
from whet.papers import dr_grpo, rollout_is
from whet.step import State, step

UPDATES, LATE = 40, 10
PLAIN = dr_grpo.recipe
ARMS = {
    "after every update": (PLAIN, 1),
    "every tenth": (PLAIN, LATE),
    "every tenth, rollout_is": (PLAIN.with_(weights=(rollout_is.truncated,)), LATE),
    "every tenth, IcePop": (PLAIN.with_(weights=(rollout_is.icepop,)), LATE),
}


def run(arm: str, seed: int) -> dict[str, float]:
    """pass@1 on held-out problems at the end, and the mean effective sample size."""
    recipe, every = ARMS[arm]
    mine = small(seed)
    mine.sampler = VLLM(mine, publish_every=every)
    state, worth = State(recipe), []
    for _ in range(UPDATES):
        state, batch = step(mine, TASK, TASK.train(), state, seed)
        worth.append(batch.told["sampler_ess"])
    mine.sampler.publish()
    return {"pass@1": round(pass_at(evaluate(mine, TASK, 64), 1), 3), "ess": round(mean(worth), 3)}


def main() -> None:
    """All arms on the same seeds."""
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in range(*map(int, sys.argv[1:3])):
        for arm, rows in found.items():
            rows.append(run(arm, seed))
            print(json.dumps({"seed": seed, "handed over": arm, **rows[-1]}), flush=True)
    for arm, rows in found.items():
        print(arm, {name: round(mean(row[name] for row in rows), 3) for name in ("pass@1", "ess")})


if __name__ == "__main__":
    main()
