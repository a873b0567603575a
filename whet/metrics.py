"""Every metric: its name, unit, denominator and formula. Nothing is logged that is not in this list."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

import torch

from whet import groups
from whet.batch import Batch


@dataclass(frozen=True)
class Metric:
    """What a number means. `better` is +1, -1 or 0 when neither direction is good in itself."""

    unit: str
    over: str
    formula: str
    better: int = 0


METRICS: dict[str, Metric] = {
    "reward": Metric("reward", "responses of the batch", "mean of the summed reward parts", 1),
    "correct": Metric("share", "responses of the batch", "mean of `correct`: pass@1 on the training problems", 1),
    "entropy": Metric("nats", "tokens of the batch", "mean sampled_entropy"),
    "length": Metric("tokens", "responses of the batch", "mean length, end token included"),
    "finished": Metric("share", "responses of the batch", "mean of `finished`: ended by themselves", 1),
    "silent_groups": Metric("share", "problems of the batch", "problems whose advantages are all zero", -1),
    "kept_tokens": Metric("share", "tokens of the batch", "tokens left by `keep`"),
    "unknown": Metric("share", "responses drawn", "responses that the judge could not judge", -1),
    "drawn": Metric("responses", "the step", "responses sampled, those filtered out included"),
    "sampled_tokens": Metric("tokens", "the step", "Σ length of the batch"),
    "loss": Metric("1", "the batch", "Σ weight · (loss + penalties)"),
    "clip_fraction": Metric("share", "kept tokens with advantage ≠ 0", "tokens to which the loss gives no gradient"),
    "ratio_max": Metric("1", "kept tokens", "largest π / π_old"),
    "sampler_gap": Metric(
        "nats",
        "kept tokens",
        "largest |logp - sampled_logp| at the first pass; bounds in whet/engines/precision.py",
        -1,
    ),
    "grad_norm": Metric("1", "the update", "norm of the gradient before clipping"),
    "kl": Metric("nats per token", "tokens of a sample of responses", "mean k3 of π to the start: e^-x - 1 + x"),
    "seconds": Metric("s", "the step", "wall time"),
    "tokens_per_second": Metric("tokens/s", "the step", "sampled_tokens / seconds", 1),
}


def of_batch(batch: Batch) -> dict[str, float]:
    """The metrics that the batch itself tells, after it was weighed. Demonstrations are nobody's responses."""
    position = torch.arange(batch["mask"].shape[1])
    whole = position < batch["length"][:, None]
    loud = groups.largest(batch["advantage"].abs().amax(1), batch["group"]) > 0
    mine = ~batch["demonstration"]

    def mean(name: str) -> float:
        return float(batch[name][mine].float().mean()) if mine.any() else float("nan")

    return {
        "reward": mean("reward"),
        "correct": mean("correct"),
        "entropy": float(groups.batch_mean(batch["sampled_entropy"], whole & mine[:, None])),
        "length": mean("length"),
        "finished": mean("finished"),
        "silent_groups": 1 - float((loud / groups.size(batch["group"])).sum() / (batch["group"].max() + 1)),
        "kept_tokens": float(batch["mask"].sum() / whole.sum().clamp(min=1)),
        "unknown": sum(batch.unknown.values()) / max(batch.drawn, 1),
        "drawn": float(batch.drawn),
        "sampled_tokens": float(batch["length"][mine].sum()),
    }


def pass_at_k(tries: int, right: int, k: int) -> float:
    """The unbiased estimate of the chance that at least one of k responses is right (Chen et al. 2021, 2107.03374).

    1 - C(n-c, k) / C(n, k)

    >>> round(pass_at_k(10, 3, 5), 6)
    0.916667
    """
    if k > tries:
        raise ValueError(f"pass@{k} needs at least {k} responses to each problem; there are {tries}.")
    return 1 - comb(tries - right, k) / comb(tries, k)


def remembered(history: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
    """History after a batch: problem id → (tries, right answers, mean score of the last visit)."""
    seen: dict[str, list[tuple[float, float]]] = {}
    columns = (batch[name].tolist() for name in ("correct", "score", "demonstration"))
    for problem, right, score, shown in zip(batch.problems, *columns, strict=True):
        if not shown:
            seen.setdefault(problem.id, []).append((float(right), score))
    after = dict(history)
    for name, rows in seen.items():
        tries, right, _ = after.get(name, (0, 0, 0.0))
        after[name] = (
            tries + len(rows),
            right + int(sum(r for r, _ in rows)),
            sum(s for _, s in rows) / len(rows),
        )
    return after
