"""The base model: a tiny Llama taught on purpose by unreliable worked solutions.

It knows every string function at level 1, has seen a few compositions of two training functions, and some
countdown. Each step of its lessons is wrong with probability `noise`, so it errs at random and not from
ignorance: what reinforcement learning needs is a right answer now and then. Same seed, same machine and same
number of threads: the same bytes.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from whet.models import tiny
from whet.tasks import Problem, Task, compose, countdown
from whet.tasks.splits import held_out
from whet.tasks.strings import FUNCTIONS, TRAINED

LR_FOR_RL = 1e-3  # ours: what reinforcement learning on this model starts with
LONGEST_LESSON = 96  # tokens, prompt and response; noise can make a response longer than the task allows

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Lessons:
    """What the base model is taught: how many examples, of what, and how unreliable they are.

    `noise` is the probability that a step of a string solution is wrong; the two `_noise` of countdown that an
    expression is another one. The shares of examples: level 1, level 2; the rest is countdown.
    """

    seed: int = 0
    examples: int = 160_000
    noise: float = 0.2
    countdown_noise: float = 0.3
    first: float = 0.4
    level1: float = 0.4
    level2: float = 0.25
    batch: int = 64
    lr: float = 3e-3
    warmup: float = 0.05


# --- examples ----------------------------------------------------------------------------------------------


def lesson(rng: Random, how: Lessons, only_level1: bool) -> tuple[str, str]:
    """One prompt with its unreliable response, never one that a task holds out."""
    while True:
        kind = 0.0 if only_level1 else rng.random()
        prompt, response = _string_lesson(rng, how, kind > how.level1) if kind < how.level1 + how.level2 else _sum_lesson(rng, how)
        if prompt and len(prompt) + len(response) < LONGEST_LESSON:
            return prompt, response


def _string_lesson(rng: Random, how: Lessons, composed: bool) -> tuple[str, str]:
    problem = compose.draw(rng, TRAINED, 2) if composed else compose.draw(rng, tuple(FUNCTIONS), 1)
    if held_out(problem.id, compose.HELD_OUT_SHARE):
        return "", ""
    return problem.prompt, compose.worked_solution(problem, rng, how.noise)


def _sum_lesson(rng: Random, how: Lessons) -> tuple[str, str]:
    problem = countdown.draw(rng, rng.choice((3, 4)))
    if countdown.is_held_out(problem):
        return "", ""
    return problem.prompt, countdown.worked_solution(problem, rng, how.countdown_noise)


def lessons(how: Lessons) -> list[tuple[str, str]]:
    """All examples, in the order in which they are drawn."""
    rng = Random(f"lessons {how.seed}")
    return [lesson(rng, how, i < how.first * how.examples) for i in range(how.examples)]


# --- batches -----------------------------------------------------------------------------------------------


def batches(rows: Sequence[tuple[list[int], int]], size: int, seed: int) -> Iterator[list[tuple[list[int], int]]]:
    """Batches of rows of about the same length, in random order: sorted within chunks of 32 batches."""
    rng = Random(f"batches {seed}")
    found = []
    for start in range(0, len(rows), 32 * size):
        chunk = sorted(rows[start : start + 32 * size], key=lambda row: len(row[0]))
        pieces = [chunk[i : i + size] for i in range(0, len(chunk), size)]
        rng.shuffle(pieces)
        found += pieces
    return iter(found)


def tensors(rows: Sequence[tuple[list[int], int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids [n t], padded on the right, and labels: -100 on prompts and padding, which do not count."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [pad] * (width - len(row)) for row, _ in rows])
    labels = torch.tensor([[-100] * at + row[at:] + [-100] * (width - len(row)) for row, at in rows])
    return ids, labels


# --- training ----------------------------------------------------------------------------------------------


def fit(pair: tiny.Pair, how: Lessons, minutes_limit: float, progress: Progress) -> int:
    """Teach the model; returns the number of updates. The time limit ends it early, at the learning rate it has."""
    model, tokenizer = pair
    rows = [
        (tokenizer(prompt + response)["input_ids"] + [tokenizer.eos_token_id], len(prompt))
        for prompt, response in lessons(how)
    ]
    updates = math.ceil(len(rows) / how.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    started = time.monotonic()
    for done, piece in enumerate(batches(rows, how.batch, how.seed)):
        for group in optimizer.param_groups:
            group["lr"] = how.lr * _schedule(done / updates, how.warmup)
        ids, labels = tensors(piece, tokenizer.pad_token_id)
        logits = model(ids).logits[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        minutes = (time.monotonic() - started) / 60
        if done % 100 == 0:
            progress(f"update {done} of {updates}, loss {loss.item():.3f} nats per token, {minutes:.1f} min")
        if minutes > minutes_limit:
            progress(f"stopped at the limit of {minutes_limit} minutes")
            return done + 1
    return updates


def _schedule(progress: float, warmup: float) -> float:
    """Linear warm-up, then a cosine down to 0."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


# --- measuring ---------------------------------------------------------------------------------------------


def pass_at(k: int, samples: int, right: int) -> float:
    """The chance that at least one of k samples is right, unbiased from `right` of `samples`.

    >>> pass_at(1, 4, 1), pass_at(2, 4, 1), pass_at(4, 4, 1)
    (0.25, 0.5, 1.0)
    """
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def knows(engine: Any, task: Task, samples: int = 64, seed: int = 0) -> dict[str, dict[str, float]]:
    """pass@1 and pass@8 at temperature 1, on each held-out split of a task."""
    return {split: _known(engine, task, problems, samples, seed) for split, problems in task.evaluation().items()}


def _known(engine: Any, task: Task, problems: Sequence[Problem], samples: int, seed: int) -> dict[str, float]:
    batch = engine.sample(problems, [samples] * len(problems), max_tokens=task.max_tokens, seed=seed)
    right = dict.fromkeys((problem.id for problem in problems), 0)
    for problem, verdict in zip(batch.problems, task.judge(batch.problems, batch.texts), strict=True):
        right[problem.id] += verdict.correct
    return {
        f"pass@{k}": round(sum(pass_at(k, samples, n) for n in right.values()) / len(right), 3) for k in (1, 8)
    }


# --- the whole of it ---------------------------------------------------------------------------------------


def train_base(
    folder: Path,
    *,
    seed: int = 0,
    examples: int = Lessons.examples,
    noise: float = Lessons.noise,
    minutes_limit: float = 8.0,
    progress: Progress = print,
) -> dict[str, Any]:
    """Make the base model in `folder`, a Hugging Face directory with a model card; returns its whet.json."""
    from whet.engines.local import LocalEngine

    how = Lessons(seed=seed, examples=examples, noise=noise)
    pair = tiny.tiny(seed)
    updates = fit(pair, how, minutes_limit, progress)
    tiny.save(pair, folder)
    engine = LocalEngine.load(folder)
    known = {}
    for task in (compose.Compose(), countdown.Countdown()):
        known.update(knows(engine, task))
        progress(json.dumps(known))
    card = {"lr": LR_FOR_RL, "made_by": "whet base", "lessons": asdict(how), "updates": updates, "knows": known}
    (folder / "whet.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(readme(card), encoding="utf-8")
    return card


def readme(card: dict[str, Any]) -> str:
    """The model card, written from what was measured."""
    return str(card)
