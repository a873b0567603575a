"""Every metric: its name, unit, denominator and formula. Nothing is logged that is not in this list."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

import torch
from torch import Tensor

from whet import groups
from whet.batch import Batch


@dataclass(frozen=True)
class Metric:
    """What a number means. `better` is +1, -1 or 0 when neither direction is good in itself."""

    unit: str
    over: str
    formula: str
    better: int = 0


READ = "kept tokens that were read"  # by the learner: not those of responses that can give no gradient

METRICS: dict[str, Metric] = {
    "reward": Metric("reward", "responses of the batch", "mean of the summed reward parts", 1),
    "correct": Metric("share", "responses of the batch", "mean of `correct`: pass@1 on the training problems", 1),
    "entropy": Metric("nats", "tokens of the batch", "mean sampled_entropy"),
    "entropy_early": Metric("nats", "tokens in the first quarter of their response", "mean sampled_entropy"),
    "entropy_late": Metric("nats", "tokens in the last quarter of their response", "mean sampled_entropy"),
    "distinct": Metric("share", "responses of the batch", "different texts to a problem / responses to it, mean"),
    "distinct_answers": Metric("share", "responses of the batch", "the same of what stands after the last `=`"),
    "distinct_right": Metric("share", "right responses of the batch", "different right texts / right responses"),
    "entropy_moved": Metric("nats", "64 states of the batch before", "change of entropy there over one update"),
    "entropy_told": Metric("nats", "the same states", "-Cov(log π, Δ logits): the identity of 2505.22617"),
    "length": Metric("tokens", "responses of the batch", "mean length, end token included"),
    "finished": Metric("share", "responses of the batch", "mean of `finished`: ended by themselves", 1),
    "silent_groups": Metric("share", "problems of the batch", "problems whose advantages are all zero", -1),
    "kept_tokens": Metric("share", "tokens of the batch", "tokens left by `keep`"),
    "unknown": Metric("share", "responses drawn", "responses that the judge could not judge", -1),
    "drawn": Metric("responses", "the step", "responses sampled, those filtered out included"),
    "sampled_tokens": Metric("tokens", "the step", "Σ length of the batch"),
    "drawn_tokens": Metric("tokens", "the step", "Σ length of all responses drawn: the currency of token budgets"),
    "loss": Metric("1", "the batch", "Σ weight · (loss + penalties)"),
    "clip_fraction": Metric("share", "kept tokens with advantage ≠ 0", "tokens to which the loss gives no gradient"),
    "ratio_max": Metric("1", READ, "largest π / π_old"),
    "ratio_tail": Metric("share", READ, "tokens with π / π_old outside 0.5 … 2"),
    "effective_samples": Metric("share", READ, "(Σ r)² / (n Σ r²) with r = π / π_old; 1 when all are alike"),
    "sampler_gap": Metric(
        "nats", READ, "largest |logp - sampled_logp| at the first pass; bounds in whet/engines/precision.py", -1
    ),
    "sampler_gap_mean": Metric("nats", READ, "mean |logp - sampled_logp| at the first pass", -1),
    "sampler_ess": Metric("share", READ, "(Σ w)² / (n Σ w²), w = e^(logp - sampled_logp) at the first pass", 1),
    "grad_norm": Metric("1", "the update", "norm of the gradient before clipping"),
    "half_agreement": Metric("1", "the batch", "cosine of the gradients of its two halves, after the update"),
    "kl": Metric("nats per token", "tokens of a sample of responses", "mean k3 of π to the start: e^-x - 1 + x"),
    "step_kl": Metric("nats per token", "tokens of a sample of responses", "mean k3 of π before the update to π after"),
    "peak_memory": Metric("MiB", "the process", "largest memory so far: of the GPU where the model is on one"),
    "not_taken": Metric("steps", "the step", "1 where a number was not finite, so that no step was taken", -1),
    "spikes": Metric("optimiser steps", "the update", "left out because the gradient norm was a spike", -1),
    "judge_requests": Metric("requests", "the step", "questions that a judge's endpoint answered"),
    "judge_cached": Metric("requests", "the step", "questions that were answered before"),
    "judge_tokens": Metric("tokens", "the step", "tokens of those requests, in and out", -1),
    "judge_dollars": Metric("dollars", "the step", "Σ tokens × the price that judge.toml names", -1),
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
        **_by_position(batch["sampled_entropy"], batch["length"], whole & mine[:, None]),
        **_diversity(batch, mine),
        "length": mean("length"),
        "finished": mean("finished"),
        "silent_groups": 1 - float((loud / groups.size(batch["group"])).sum() / (batch["group"].max() + 1)),
        "kept_tokens": float(batch["mask"].sum() / whole.sum().clamp(min=1)),
        "unknown": sum(batch.unknown.values()) / max(batch.drawn, 1),
        "drawn": float(batch.drawn),
        "sampled_tokens": float(batch["length"][mine].sum()),
    }


def _by_position(entropy: Tensor, length: Tensor, mine: Tensor) -> dict[str, float]:
    """Entropy where responses begin and where they end: a quarter of each, at least one token."""
    position, length = torch.arange(mine.shape[1]), length[:, None]
    parts = {"entropy_early": mine & (4 * position < length), "entropy_late": mine & (4 * (position + 1) > 3 * length)}
    return {name: float(groups.batch_mean(entropy, part)) for name, part in parts.items() if part.any()}


def _diversity(batch: Batch, mine: Tensor) -> dict[str, float]:
    """How many of the responses to one problem are different: texts, final answers, and texts that are right."""
    rows = [(g, batch.texts[i]) for i, g in enumerate(batch["group"].tolist()) if mine[i]]
    right = [row for row, ok in zip(rows, batch["correct"][mine].tolist(), strict=True) if ok]
    answers = [(g, text.rpartition("=")[2].strip()) for g, text in rows]
    found = {"distinct": rows, "distinct_answers": answers, "distinct_right": right}
    return {name: len(set(some)) / len(some) for name, some in found.items() if some}


def ratios(ratio: Tensor) -> dict[str, float]:
    """What importance ratios [m] of kept tokens tell: tails, and how many samples they are worth.

    >>> {name: round(value, 4) for name, value in ratios(torch.tensor([1., 1., 4., 0.25])).items()}
    {'ratio_max': 4.0, 'ratio_tail': 0.5, 'effective_samples': 0.5407}
    """
    if not len(ratio):
        return {"ratio_max": 1.0, "ratio_tail": 0.0, "effective_samples": 1.0}
    scaled = (ratio.double() / ratio.max().double()).nan_to_num(1.0)  # inf / inf
    return {
        "ratio_max": float(ratio.max()),
        "ratio_tail": float(((ratio < 0.5) | (ratio > 2)).float().mean()),
        "effective_samples": float(scaled.sum() ** 2 / (len(scaled) * (scaled**2).sum())),
    }


def gap(log_ratio: Tensor) -> dict[str, float]:
    """How far the sampler is from the learner, from logp - sampled_logp of the tokens it drew [m].

    The effective sample size is the share of tokens that would tell as much, had the learner drawn them itself.

    >>> {name: round(value, 4) for name, value in gap(torch.tensor([0., 0., -.5, 1.])).items()}
    {'sampler_gap': 1.0, 'sampler_gap_mean': 0.375, 'sampler_ess': 0.7265}
    """
    weight = (log_ratio.double() - log_ratio.max()).exp()
    return {
        "sampler_gap": float(log_ratio.abs().max()),
        "sampler_gap_mean": float(log_ratio.abs().mean()),
        "sampler_ess": float(weight.sum() ** 2 / (len(weight) * (weight**2).sum())),
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
