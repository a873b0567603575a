"""HORA (Wang et al. 2026): spend the next response where it is most likely to be the first right one.

p | s of G0 right ~ Beta(1 + s, 1 + G0 - s) = Beta(a, b)
U(m) = 1 - E[(1-p)^m] = 1 - Π_{j<m} (b+j)/(a+b+j)          probability of a hit in m more responses
U(l+1) - U(l) = a/(a+b) Π_{j<l} (b+j)/(a+b+j+1)            falls with l, so taking the largest gain is optimal
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from whet.batch import join
from whet.papers import grpo
from whet.recipe import Finding, Paper


def utility(hits: int, tries: int, more: int) -> float:
    """Probability of at least one right response among `more`, after `hits` right ones in `tries`.

    >>> [round(utility(0, 4, m), 6) for m in (1, 2, 4, 12)]
    [0.166667, 0.285714, 0.444444, 0.705882]
    """
    miss = 1.0
    for j in range(more):
        miss *= (1 + tries - hits + j) / (2 + tries + j)
    return 1 - miss


def allocated(hits: Sequence[int], tries: Sequence[int], budget: int) -> list[int]:
    """`budget` more responses, one at a time, each where it adds the most hit utility; ties to the first.

    >>> allocated([0, 1, 2, 4], [4, 4, 4, 4], 8)
    [2, 3, 2, 1]
    """
    gain = [(1 + s) / (2 + n) for s, n in zip(hits, tries, strict=True)]
    more = [0] * len(gain)
    for _ in range(budget):
        i = gain.index(max(gain))
        gain[i] *= (1 + tries[i] - hits[i] + more[i]) / (3 + tries[i] + more[i])
        more[i] += 1
    return more


def where_hits_are_likely(
    draw: Any,
    problems: Any,
    responses: int = 16,  # ours: on average; the budget could not be read
    first: int = 4,  # ours: G0 could not be read
    temperature: float = 1.0,  # the policy itself is what is sampled
) -> Any:
    """`first` responses to each problem, then the rest of the budget by hit utility; all of them are trained on."""
    batch = draw(problems, first, temperature)
    tries = Counter(problem.id for problem in batch.problems)
    hits = Counter(
        problem.id for problem, right in zip(batch.problems, batch["correct"].tolist(), strict=True) if right
    )
    names = [problem.id for problem in problems]
    budget = (responses - first) * len(problems)
    more = allocated([hits[name] for name in names], [tries[name] for name in names], budget)
    chosen = [(problem, count) for problem, count in zip(problems, more, strict=True) if count]
    if not chosen:
        return batch
    return join([batch, draw([problem for problem, _ in chosen], [count for _, count in chosen], temperature)])


recipe = grpo.recipe.with_(
    name="hora",
    findings=(
        Finding("pass@64", "grpo", "up", "better in 10 of 12 pairs of model and benchmark", "abstract, as digested"),
        Finding("pass@1", "grpo", "same", "comparable", "abstract, as digested"),
    ),
    paper=Paper(
        "Where to Spend Rollouts: Hit-Utility Optimal Rollout Allocation for Group-Based RLVR",
        arxiv="2605.07114",
        date="2026-05-08",
        authors="Wang, Tao and Li, Shuo and Sun, Yan and Ding, Dongsheng and Dobriban, Edgar",
    ),
    new="responses go where one more is most likely to be the first right one",
    sample=where_hits_are_likely,
    shelf="sampling",
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "Assumed: 4 responses first, 16 on average, no bound for one problem, and the first ones are trained on.",
        "A problem that is always right still gets the first of the further responses: the literal utility.",
    ),
)
