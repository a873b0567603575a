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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from whet.evaluate import by_split, evaluate, pass_at
from whet.models import tiny
from whet.models.muon import Muon
from whet.tasks import compose, countdown
from whet.tasks.splits import held_out
from whet.tasks.strings import FUNCTIONS, TRAINED

LR_FOR_RL = 3e-4  # ours: of 2e-4, 3e-4, 5e-4, 6e-4 and 1e-3, tried with grpo for 50 to 80 updates; 1e-3 loses level 2
# Times as often as another function in lessons of one function: ours, for those that one model had learned least.
OFTEN = {"inc": 4, "mir": 2, "mix": 2, "pre": 2, "rol": 2, "rot": 2, "srt": 2, "zip": 2}
SINGLE = tuple(name for name in FUNCTIONS for _ in range(OFTEN.get(name, 1)))
TAUGHT = (compose.Compose.name, countdown.Countdown.name)
LONGEST_LESSON = 96  # tokens, prompt and response; noise can make a response longer than the task allows

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Lessons:
    """What the base model is taught: how many examples, of what, and how unreliable they are.

    The `first` share of the examples is level 1 without mistakes, where copying is learned fastest. Of the rest,
    `level1` and `level2` are shares, and what is left is countdown; `noise` is the probability that a step of a
    string solution is wrong, `countdown_noise` that an expression is another one of the same numbers.
    """

    seed: int = 0
    examples: int = 256_000
    noise: float = 0.4
    countdown_noise: float = 0.3
    first: float = 0.4
    level1: float = 0.3
    level2: float = 0.5
    batch: int = 64
    lr: float = 2e-3
    muon_lr: float = 5e-3
    warmup: float = 0.05


# --- examples ----------------------------------------------------------------------------------------------


def lesson(rng: Random, how: Lessons) -> tuple[str, str]:
    """One prompt with its unreliable response, never one that a task holds out."""
    while True:
        kind = rng.random()
        if kind < how.level1 + how.level2:
            prompt, response = _string_lesson(rng, how, composed=kind >= how.level1)
        else:
            prompt, response = _sum_lesson(rng, how)
        if prompt and len(prompt) + len(response) < LONGEST_LESSON:
            return prompt, response


def _string_lesson(rng: Random, how: Lessons, composed: bool) -> tuple[str, str]:
    problem = compose.draw(rng, TRAINED, 2) if composed else compose.draw(rng, SINGLE, 1)
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
    clean = replace(how, noise=0.0, level1=1.0, level2=0.0)
    return [lesson(rng, clean if i < how.first * how.examples else how) for i in range(how.examples)]


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
    return teach(model, rows, tokenizer.pad_token_id, how, minutes_limit, progress)


def teach(
    model: Any, rows: Sequence[tuple[list[int], int]], pad: int, how: Lessons, minutes_limit: float, progress: Progress,
) -> int:  # fmt: skip
    """Teach any causal LM rows of (token ids, where the response begins), in this order; returns the updates made."""
    updates = math.ceil(len(rows) / how.batch)
    optimizers = _optimizers(model, how)
    started = time.monotonic()
    for done, piece in enumerate(batches(rows, how.batch, how.seed)):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * _schedule(done / updates, how.warmup)
        ids, labels = tensors(piece, pad)
        logits = model(ids).logits[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        progress((done + 1) / updates)
        if time.monotonic() - started > 60 * minutes_limit:
            return done + 1
    return updates


def _optimizers(model: Any, how: Lessons) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for embeddings and norms; AdamW for all of them where `muon_lr` is 0."""

    def is_matrix(name: str, x: Tensor) -> bool:
        return bool(how.muon_lr) and x.dim() == 2 and "embed" not in name

    matrices = [x for name, x in model.named_parameters() if is_matrix(name, x)]
    others = [x for name, x in model.named_parameters() if not is_matrix(name, x)]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=how.lr, betas=(0.9, 0.99), weight_decay=0.01),
    ]
    if matrices:
        made.insert(0, Muon(matrices, lr=how.muon_lr))
    for optimizer, peak in zip(made, (how.muon_lr, how.lr)[-len(made) :], strict=True):
        for group in optimizer.param_groups:
            group["peak"] = peak
    return made


def _schedule(progress: float, warmup: float) -> float:
    """Linear warm-up, then a cosine down to 0."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


# --- the whole of it ---------------------------------------------------------------------------------------


def knows(engine: Any, samples: int) -> dict[str, dict[str, float]]:
    """pass@1 and pass@8 at temperature 1, on every held-out split of the tasks that were taught."""
    found = {}
    for task in (compose.Compose(), countdown.Countdown()):
        for split, rows in by_split(evaluate(engine, task, samples)).items():
            found[split] = {f"pass@{k}": round(pass_at(rows, k), 3) for k in (1, 8)}
    return found


def train_base(
    folder: Path,
    *,
    seed: int = 0,
    examples: int = Lessons.examples,
    noise: float = Lessons.noise,
    minutes_limit: float = 8.0,
    samples: int = 64,
    progress: Progress = lambda share: None,
) -> dict[str, Any]:
    """Make the base model in `folder`, a Hugging Face directory with a model card; returns its whet.json.

    `samples` responses to each held-out problem measure what it knows; `progress` is told the share that is done.
    """
    from whet.engines.local import LocalEngine

    how = Lessons(seed=seed, examples=examples, noise=noise)
    pair = tiny.tiny(seed)
    updates = fit(pair, how, minutes_limit, progress)
    tiny.save(pair, folder)
    card = {
        "lr": LR_FOR_RL,
        "made_by": "whet base",
        "taught": list(TAUGHT),
        "parameters": pair[0].num_parameters(),
        "updates": updates,
        "lessons": asdict(how),
        "samples": samples,
        "knows": knows(LocalEngine.load(folder), samples),
    }
    (folder / "whet.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(readme(card), encoding="utf-8")
    return card


def readme(card: dict[str, Any]) -> str:
    """The model card, written from what was measured."""
    how, often = card["lessons"], ", ".join(OFTEN)
    rows = "\n".join(f"| {split} | {k['pass@1']:.3f} | {k['pass@8']:.3f} |" for split, k in card["knows"].items())
    return f"""# The tiny base of whet

A Llama of {card["parameters"]:,} parameters with a character tokenizer, for reinforcement learning on a laptop.
Made by `{card["made_by"]}` with seed {how["seed"]}: {card["updates"]:,} updates on {how["examples"]:,} examples.

It was taught worked solutions of the string functions of `compose` (all 25 at level 1, the 13 training
functions at level 2) and of `countdown`; of the single functions, {often}
came more often. The first {how["first"]:.0%} of the lessons are level 1 without a mistake; in the rest, each step
is wrong with probability {how["noise"]}, and a countdown answer with probability {how["countdown_noise"]}.
So it errs at random. No problem that a task holds out was shown.

What it knows, at temperature 1, from {card["samples"]} responses to each held-out problem:

| split | pass@1 | pass@8 |
| --- | --- | --- |
{rows}

It knows nothing else: it is no language model. Learning rate for reinforcement learning: {card["lr"]:g}.
"""
