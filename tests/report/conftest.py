"""A synthetic run with a fixed seed, made through the Store: it looks like a run that learned."""

from pathlib import Path

import pytest
import torch

from whet.batch import Batch
from whet.runs.store import Evaluated, Store
from whet.tasks import Problem

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SETTINGS = [
    {"address": "loss.low", "value": 0.2, "default": 0.2, "source": "PPO, section 6.1"},
    {"address": "loss.high", "value": 0.28, "default": 0.2, "source": "DAPO, section 4.1"},
    {"address": "penalties.k3.beta", "value": 0.001, "default": 0.04, "source": "the command line"},
    {"address": "sample.responses", "value": 16, "default": 16, "source": "ours"},
    {"address": "update.lr", "value": 0.0003, "default": None, "source": "the model's card"},
]
ABOUT = {
    "recipe": "grpo+clip_higher", "task": "compose", "base": "whet/base-1m", "seed": 3, "steps": 120,
    "focus": "test", "elsewhere": ["reverse"], "settings": SETTINGS,
    "new": "advantages relative to the group, with a clip range that leaves more room upwards",
    "equation": "A_i = (R_i − mean R) / (std R + ε)\nL = −min( r·A, clip(r, 1 − low, 1 + high)·A )",
    "papers": [{"title": "DAPO", "link": "https://arxiv.org/abs/2503.14476", "date": "2025-03-18"}],
    "departs": ["The standard deviation is the sample one."],
    "versions": {"whet": "0.1.0", "torch": "2.13.0"}, "command": "whet train grpo+clip_higher --task compose --seed 3",
}  # fmt: skip


def problem(number: int, split: str = "train") -> Problem:
    level = 1 + number % 4
    word = "".join(LETTERS[(number * 7 + i * (3 + number % 5)) % 26] for i in range(3 + level))
    return Problem(f"{split}-{number}", f"reverse, then shift by {level}: {word} =", word[::-1], level)


def pieces_of(text: str) -> list[str]:
    return [*text, "<end>"]


def batch(progress: float, rng: torch.Generator, split: str = "train", problems: int = 8, each: int = 8) -> Batch:
    """Responses of a policy that has done `progress` of its training; all the fields of a weighed batch."""
    asked = [problem(i, split) for i in range(problems) for _ in range(each)]
    chance = torch.tensor([0.08 + 0.8 * progress / p.level**0.5 for p in asked])
    right = torch.rand(len(asked), generator=rng) < chance
    texts = []
    for one, ok in zip(asked, right.tolist(), strict=True):
        extra = int(torch.randint(0, 4, (), generator=rng))
        texts.append(one.answer if ok else one.answer[: 1 + extra] + "?" * extra)
    pieces = [pieces_of(text) for text in texts]
    length = torch.tensor([len(words) for words in pieces])
    mask = torch.arange(int(length.max())) < length[:, None]
    shape, noise = mask.shape, torch.rand(mask.shape, generator=rng)
    entropy = (1.6 - 1.2 * progress) * noise**3 * mask
    score = right.float()
    group = torch.arange(problems).repeat_interleave(each)
    mean = torch.stack([score[group == g].mean() for g in range(problems)])[group]
    advantage = (score - mean)[:, None] * mask
    logp = -entropy * torch.rand(shape, generator=rng) * mask
    kept = mask & ~((torch.rand(shape, generator=rng) < 0.06) & mask)
    fields = {
        "group": group, "tokens": torch.zeros(shape, dtype=torch.long), "mask": kept, "length": length,
        "finished": torch.rand(len(asked), generator=rng) > 0.05, "sampled_logp": logp, "sampled_entropy": entropy,
        "score": score, "correct": right, "reward": score - 0.01 * length, "advantage": advantage,
        "weight": mask / mask.sum(),
    }  # fmt: skip
    return Batch(tuple(asked), tuple(() for _ in asked), tuple(texts), fields, drawn=len(asked))


def seen(one: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
    logp = one["sampled_logp"] + 0.01 * torch.randn(one["mask"].shape, generator=rng) * one["mask"]
    return {"logp": logp, "push": -one["advantage"] * one["weight"] * one["mask"]}


def evaluation(
    progress: float, rng: torch.Generator, split: str, tries: int = 64, problems: int = 48
) -> list[Evaluated]:
    slip = -0.12 * progress if split == "reverse" else 0.0
    rows = []
    for i in range(problems):
        level = 1 + i % 4
        base = 0.45 if split == "reverse" else 0.02 + 0.16 * torch.rand((), generator=torch.Generator().manual_seed(i))
        chance = float(min(0.97, max(0.0, base + slip + (0.75 * progress / level**0.6 if not slip else 0))))
        right = int((torch.rand(tries, generator=rng) < chance).sum())
        length, entropy = 6.5 + 0.2 * level - progress * level / 2, 0.8 - 0.15 * progress * level
        distinct = float(round(tries * (0.7 - 0.12 * progress * level)))
        rows.append(Evaluated(split, f"{split}-{i}", level, tries, right, length, entropy, distinct))
    return rows


def metrics(progress: float, rng: torch.Generator) -> dict[str, float]:
    noise = torch.randn(12, generator=rng).tolist()
    learned = progress**0.7
    return {
        "reward": 0.05 + 0.7 * learned + 0.05 * noise[0],
        "correct": min(1, max(0, 0.1 + 0.65 * learned + 0.05 * noise[1])),
        "entropy": 0.85 - 0.6 * learned + 0.02 * noise[2], "kl": max(0, 0.08 * progress + 0.004 * noise[3]),
        "length": 6.5 - progress + 0.2 * noise[4], "clip_fraction": abs(0.02 * noise[5]),
        "silent_groups": min(1, max(0, 0.5 - 0.4 * progress + 0.08 * noise[6])), "grad_norm": 0.4 + abs(0.2 * noise[7]),
        "finished": min(1, 0.9 + 0.1 * learned), "loss": 0.01 * noise[8], "drawn": 256.0, "unknown": 0.0,
        "seconds": 0.9 + 0.05 * abs(noise[9]), "tokens_per_second": 1800 + 90 * noise[10],
    }  # fmt: skip


def synthetic(folder: Path, steps: int = 120, seed: int = 0, evaluations: int = 5, kept: int = 6, **about) -> Store:
    """A run of `steps` updates, evaluated `evaluations` times, with the responses of `kept` steps."""
    rng = torch.Generator().manual_seed(seed)
    store = Store.create(folder, {**ABOUT, "steps": steps, "seed": seed, **about})
    marks = {round(i * steps / max(evaluations - 1, 1)) for i in range(evaluations)}
    keep = {max(1, round(i * steps / max(kept - 1, 1))) for i in range(kept)}
    for step in range(steps + 1):
        progress = step / max(steps, 1)
        if step in marks:
            store.evaluated(step, [row for split in ("test", "reverse") for row in evaluation(progress, rng, split)])
        if step in marks and step in (0, steps) and kept:
            one = batch(progress, rng, "test", 5, 4)
            plain = {k: v for k, v in one.fields.items() if k not in ("advantage", "weight", "reward")}
            one = Batch(one.problems, one.prompts, one.texts, plain)
            store.rollouts(step, one, [pieces_of(text) for text in one.texts], split="test")
        if step:
            store.log(step, metrics(progress, rng))
        if step in keep:
            one = batch(progress, rng)
            store.rollouts(step, one, [pieces_of(text) for text in one.texts], seen(one, rng))
    store.status("finished", f"All {steps} steps are done.")
    return store


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Store:
    return synthetic(tmp_path_factory.mktemp("runs") / "grpo+clip_higher-compose-s3-20260101-120000")
