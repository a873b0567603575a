"""Does correcting for the sampler matter? python -m tests.learning.gap writes results/gap.json.

`grpo` and `grpo+rollout_is`, which weighs each token by policy over sampler, learn `digits` from the same base with
the same seeds, while the sampler is the policy itself or, on purpose, is not: a copy in bfloat16, one that is some
updates old, or one at another temperature than it says.
"""

import json
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tests.learning.base import POOL, TASK, base, share_right
from whet import shelf
from whet.compare.stats import estimate
from whet.engines import sampler
from whet.settings import with_settings
from whet.step import State, step

RESULT = Path(__file__).parents[2] / "results" / "gap.json"
SEEDS, STEPS, RESPONSES = 5, 30, 192


@dataclass
class Apart:
    """A sampler that is not the policy: it draws from a copy, which it takes anew every so many updates."""

    engine: Any
    dtype: torch.dtype = torch.float32
    every: int = 1
    heat: float = 1.0
    drawn: int = 0
    copy: Any = None

    def draw(self, prompts: Any, how: sampler.Drawing, seed: int, ended: sampler.Ended | None = None) -> sampler.Drawn:
        if self.copy is None or self.drawn % self.every == 0:
            self.copy = deepcopy(self.engine.model)
            for x in self.copy.parameters():
                x.data = x.data.to(self.dtype).float()
        self.drawn += 1
        how = replace(how, temperature=how.temperature * self.heat)
        return sampler.Own(self.engine, self.copy).draw(prompts, how, seed, ended)

    def moves(self) -> None: ...

    def publish(self) -> None: ...


SAMPLERS: dict[str, dict[str, Any]] = {
    "the policy itself": {},
    "its weights in bfloat16": {"dtype": torch.bfloat16},
    "8 updates old": {"every": 8},
    "temperature 1.5, said to be 1": {"heat": 1.5},
    "temperature 0.5, said to be 1": {"heat": 0.5},
}


def learned(recipe: str, seed: int, how: dict[str, Any]) -> tuple[float, float]:
    """pass@1 on the held-out digits after the updates, drawn by the policy itself; and the mean gap on the way."""
    engine, state, gaps = base(), State(shelf.load(recipe)), []
    own = engine.sampler
    if how:
        engine.sampler = Apart(engine, **how)
    for i in range(STEPS):
        state, batch = step(engine, TASK, POOL, state, seed, progress=i / STEPS)
        gaps.append(batch.told.get("sampler_gap_mean", 0.0))
    engine.sampler = own
    return share_right(engine, samples=32), sum(gaps) / len(gaps)


def direction(recipe: str, seed: int, how: dict[str, Any]) -> torch.Tensor:
    """The gradient on many responses to each problem, after 8 updates by the policy's own responses."""
    engine, state = base(), State(shelf.load("grpo"))
    apart = Apart(engine, **how)
    if apart.every > 1:  # what it draws from is the policy as it was before the updates
        apart.copy, apart.drawn = deepcopy(engine.model), 1
    for _ in range(8):
        state, _ = step(engine, TASK, POOL, state, seed)
    if how:
        engine.sampler = apart
    many = {"choose.prompts": len(POOL), "sample.responses": RESPONSES, "update.lr": 0.0}
    step(engine, TASK, POOL, State(with_settings(shelf.load(recipe), many)), seed + 1000 * bool(how) + 500)
    return torch.cat([x.grad.flatten() for x in engine.parameters])


def alike(recipe: str, seed: int, how: dict[str, Any], own: torch.Tensor) -> float:
    """The cosine between the policy's own gradient and that of a sampler's responses."""
    return float(torch.cosine_similarity(direction(recipe, seed, how), own, dim=0))


def mean(values: Any) -> float:
    """Over seeds."""
    return sum(values) / len(values)


def main() -> None:
    """Every sampler, with and without the correction."""
    torch.set_num_threads(1)
    rows = {}
    owns = [direction("grpo", seed, {}) for seed in range(SEEDS)]
    for name, how in SAMPLERS.items():
        without, gaps = zip(*(learned("grpo", seed, how) for seed in range(SEEDS)), strict=True)
        corrected = [learned("grpo+rollout_is", seed, how)[0] for seed in range(SEEDS)]
        ends = estimate([b - a for a, b in zip(without, corrected, strict=True)])
        how = how or {"heat": 1.0}  # other responses than those of `owns`
        plain, weighed = (
            [alike(recipe, seed, how, owns[seed]) for seed in range(SEEDS)] for recipe in ("grpo", "grpo+rollout_is")
        )
        cosines = estimate([b - a for a, b in zip(plain, weighed, strict=True)])
        rows[name] = {
            "gap": mean(gaps),
            "pass": {"grpo": mean(without), "corrected": mean(corrected), **vars(ends)},
            "cosine": {"grpo": mean(plain), "corrected": mean(weighed), **vars(cosines)},
        }
        print(name, json.dumps(rows[name]), flush=True)
    about = {"command": "python -m tests.learning.gap", "task": TASK.name, "updates": STEPS, "seeds": SEEDS}
    RESULT.write_text(json.dumps({**about, "samplers": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
