"""EFRame (Wang et al. 2025): try hard problems again and hotter, keep what is informative, replay the rarest.

explore   5 responses at T = 1; where all are wrong, 20 more at T = 1.2
filter    |A| > 0.05 of the first, |A| > 1 of the second try; no truncated response with A > 0
replay    |A| > 1 goes into a queue of two batches; every 5 updates one more update on the queue
"""

from functools import partial
from typing import Any

import torch

from whet import groups, plain
from whet.batch import join
from whet.fields import Flag, Mask, PerResponse, PerToken
from whet.papers import grpo, kl_estimators
from whet.recipe import Finding, Paper, Remembers


def try_again(
    draw: Any,
    problems: Any,
    responses: int = 5,  # the authors' configuration
    temperature: float = 1.0,  # the authors' configuration
    more: int = 20,  # the authors' configuration
    hotter: float = 1.2,  # the authors' configuration
    quiet: float = 0.01,  # the authors' code: a hard problem has |A| and score below this in all responses
) -> Any:
    """A few responses to each problem; a hard one gets `more` hotter ones in their place."""
    first = draw(problems, responses, temperature)
    loudest = torch.maximum(grpo.z_score(first["score"], first["group"]).abs(), first["score"])
    hard = groups.largest(loudest, first["group"]) < quiet
    again = {p.id: p for p, is_hard in zip(first.problems, hard.tolist(), strict=True) if is_hard}
    if not again:
        return first
    return join([first.where(~hard), draw(list(again.values()), more, hotter)])


def informative(
    advantage: PerToken,
    mask: Mask,
    temperature: PerResponse,
    finished: Flag,
    first: float = 0.05,  # the authors' code
    second: float = 1.0,  # the authors' code
    hot: float = 1.0,  # ours: what was sampled hotter than this is a second try
) -> Mask:
    """Tokens with a large advantage, larger in a second try; a truncated response is not praised.

    A second try of 20 with 1 right keeps that one, with 10 right nothing, with 11 right the wrong ones.

    >>> A = tensor([[4.248510], [-0.223606], [1.788850], [-0.447213]])
    >>> informative(A, torch.ones(4, 1).bool(), tensor([1.2, 1.2, 1., 1.]), tensor([True, True, False, True]))[:, 0]
    tensor([ True, False, False,  True])
    """
    bar = torch.where(temperature > hot, second, first)[:, None]
    praised_though_cut = ~finished[:, None] & (advantage > 0)
    return mask & (advantage.abs() > bar) & ~praised_though_cut


def with_replay(
    learner: Any,
    batch: Any,
    step: int,
    memory: Any,
    lr: float | None = None,  # ours: None is the rate that the model's card names
    clip_norm: float = 1.0,  # verl
    every: int = 5,  # the authors' configuration: updates from one replay to the next
    loud: float = 1.0,  # the authors' code: |A| above this is kept for replay
    room: int = 2,  # the authors' code: batches in the queue
    moves: bool = True,  # a replayed response was drawn from an older policy: its ratio needs old_logp
) -> tuple[dict[str, float], Any]:
    """One update on the batch; the loudest responses queue up, and now and then there is one on the queue."""
    told = plain.one_pass(learner, batch, lr, clip_norm)
    rare = batch.where((batch["mask"] & (batch["advantage"].abs() > loud)).any(1))
    queue = rare if memory is None else join([memory, rare])
    queue = queue.rows(range(max(0, len(queue) - room * len(batch)), len(queue)))
    if (step + 1) % every == 0 and len(queue) >= len(batch):
        learner.gradient(queue, scale=1 / float(queue["weight"].sum()))
        learner.step(lr, clip_norm)
    return told, queue


recipe = grpo.recipe.with_(
    name="eframe",
    findings=(Finding("pass@1", "grpo", "up", "+36.5 % on Geometry3K", "place not read"),),
    paper=Paper(
        "EFRame: Deeper Reasoning via Exploration-Filter-Replay Reinforcement Learning Framework",
        arxiv="2506.22200",
        date="2025-06-27",
        authors="Wang, Chen and Wei, Lai and Zhang, Yanzhi and Shao, Chenyang and Dan, Zedong and others",
    ),
    new="a hotter second try at hard problems, a filter on advantages, and replay of the rarest responses",
    sample=try_again,
    keep=(informative,),
    penalties=(partial(kl_estimators.k3, beta=0.01),),  # the authors' configuration
    update=Remembers(with_replay, start=None),
    shelf="sampling",
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing"),
    departs=(
        "An update uses what is left of its batch; the code waits until a batch is full.",
        "Second tries are told by their temperature. Replayed weights are scaled so that they sum to 1.",
    ),
)
