"""E3-RL4LLMs (Liao et al. 2025): more responses to problems that were hard, and a temperature that holds the entropy.

budget       c_i = n_min + (n B - n_min B) rank_i / Σ rank,  rank near 1 for the hardest; [n_min, n_max] opens
temperature  T ← T (1 + T ln(H* / H) / F),  F = ln V + ln ln V,  H* = the entropy of the first step
             in the last 40 % of the run H* falls by a cosine to 0.9 of itself
"""

import math
from collections.abc import Sequence
from typing import Any

from whet.papers import grpo
from whet.recipe import Finding, Paper, Remembers


def ranks(problems: Any, history: Any) -> list[float]:
    """A problem's place among all that were tried, from 0 for the easiest to almost 1; 0 if never tried."""
    order = sorted(history, key=lambda name: -history[name][2])
    place = {name: i / len(order) for i, name in enumerate(order)}
    return [place.get(problem.id, 0.0) for problem in problems]


def counts(rank: Sequence[float], total: int, low: int, high: int) -> list[int]:
    """`low` each, the rest in proportion to rank, what rounding leaves to the highest ranks below `high`.

    >>> counts([0.0, 0.25, 0.5, 0.75], 32, 6, 10)
    [6, 7, 9, 10]
    """
    spare = total - low * len(rank)
    found = [math.floor(low + spare * r / (sum(rank) + 1e-8)) for r in rank]
    for i in sorted(range(len(rank)), key=lambda i: -rank[i]):
        found[i] += max(0, min(total - sum(found), high - found[i]))
    return found


def by_rank(
    draw: Any,
    problems: Any,
    pool: Any,
    history: Any,
    step: int,
    responses: int = 8,  # the authors' configuration: n = 8
    fewest: int = 4,  # the authors' configuration: n_low = 4
    most: int = 12,  # the authors' configuration: n_high = 12
    change: int = 2,  # the authors' configuration: 2 for each epoch
    temperature: float = 1.0,  # the authors' configuration
) -> Any:
    """On average `responses` to each problem, more of them to harder ones; the range opens with every epoch."""
    epochs = step * len(problems) // len(pool)
    low, high = max(responses - change * epochs, fewest), min(responses + change * epochs, most)
    return draw(problems, counts(ranks(problems, history), responses * len(problems), low, high), temperature)


def hold_entropy(
    metrics: Any,
    progress: float,
    memory: Any,
    vocabulary: int = 152064,  # Qwen2.5's, as in the authors' code; set it to your model's
    first: int = 1,  # init_steps: the steps whose mean entropy is the target
    share: float = 0.4,  # annealing_ratio: the last part of the run
    lowest: float = 0.9,  # annealing_factor
) -> tuple[dict[str, float], dict[str, float]]:
    """Hotter while the entropy is below its target, colder above; at entropy 0 the temperature stays.

    >>> start = {"temperature": 1.0, "seen": 1, "first": 0.8, "target": 0.8}
    >>> round(hold_entropy({"entropy": 0.4}, 0.0, start)[0]["sample.temperature"], 6)
    1.048098
    """
    temperature, seen, mean, target = (memory[name] for name in ("temperature", "seen", "first", "target"))
    entropy = metrics["entropy"]
    if seen < first:
        mean = target = (mean * seen + entropy) / (seen + 1)
    elif entropy > 0:
        scale = math.log(vocabulary) + math.log(math.log(vocabulary))
        temperature *= 1 + temperature * math.log(target / entropy) / scale
        target = mean * annealed(progress, share, lowest)
    after = {"temperature": temperature, "seen": seen + 1, "first": mean, "target": target}
    return {"sample.temperature": temperature}, after


def annealed(progress: float, share: float, lowest: float) -> float:
    """1 until the last `share` of the run, then half a cosine down to `lowest`.

    >>> [round(annealed(p, 0.4, 0.9), 4) for p in (0.6, 0.8, 1.0)]
    [1.0, 0.95, 0.9]
    """
    late = max(0.0, (progress - 1 + share) / share)
    return (1 - lowest) * (1 + math.cos(math.pi * late)) / 2 + lowest


paper = Paper(
    "Enhancing Efficiency and Exploration in Reinforcement Learning for LLMs",
    arxiv="2505.18573",
    date="2025-05-24",
    authors="Liao, Mengqi and Xi, Xiangyu and Chen, Ruinian and Leng, Jia and Hu, Yangen and others",
)
_claims = ("policy_gradient", "silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing")

recipe = grpo.recipe.with_(
    name="e3_budget", paper=paper, new="more responses to problems that were hard last time, from the same budget",
    findings=(Finding("pass@1", "grpo", "up", "+5.31 % on AIME24, 7B, with the temperature", "introduction"),),
    sample=by_rank, penalties=(), shelf="sampling", claims=_claims,
    departs=(
        "Assumed: ranks are among the problems tried so far; until one has been tried its rank is 0, as in the code.",
        "`most` bounds only what rounding leaves, as in the code: the proportional part may exceed it.",
    ),
)  # fmt: skip
e3_temperature = grpo.recipe.with_(
    name="e3_temperature", paper=paper, new="a sampling temperature that holds the entropy where it started",
    findings=(Finding("pass@16", "grpo", "up", "+3.33 % on AIME24, 7B, with the budget", "introduction"),),
    control=(Remembers(hold_entropy, start={"temperature": 1.0, "seen": 0, "first": 0.0, "target": 0.0}),),
    penalties=(), shelf="sampling", claims=_claims,
    departs=("A recipe cannot see its model's vocabulary: V is a setting. At entropy 0 the code divides by zero.",),
)  # fmt: skip
