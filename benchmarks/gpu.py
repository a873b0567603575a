"""Setting F, on a GPU: python benchmarks/gpu.py [--out results/gpu.json]; a few minutes, about 40 GiB of the card.

A Qwen2 of 0.5 billion random weights in bfloat16: 256 and 1024 responses of 512 tokens at once, in waves and in
recorded steps, against Hugging Face `generate` and the card's measured bandwidth; and the learner on 16 sequences of
2,048 tokens, against the card's measured matrix products. `--device cpu --size tiny` only shows that the script runs.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import work
from transformers import Qwen2Config, Qwen2ForCausalLM

from whet.engines.local import LocalEngine
from whet.engines.profile import Limits, Profile, limits, profiling
from whet.engines.sampler import Own
from whet.engines.slots import Slots
from whet.papers import grpo
from whet.step import objective, wanted, weigh
from whet.tasks import Problem

RECIPE = grpo.recipe.with_(name="grpo", penalties=())
GROUP = 16  # responses to each prompt


@dataclass(frozen=True)
class Size:
    """What is measured: a model's shape, and how much it samples and learns."""

    shape: dict[str, int]
    vocabulary: int = work.VOCABULARY
    responses: tuple[int, ...] = (256, 1024)
    prompt: int = 64
    tokens: int = 512
    sequences: int = 16
    length: int = 2048


SIZES = {
    "half": Size({"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}),
    "tiny": Size(
        {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4},
        vocabulary=1000, responses=(16, 32), prompt=8, tokens=12, sequences=4, length=40,
    ),
}  # fmt: skip


def engine(size: Size, device: str, dtype: str) -> LocalEngine:
    """whet with a Qwen2 of this shape; weights as whet holds them."""
    torch.manual_seed(0)
    config = Qwen2Config(
        **size.shape, vocab_size=size.vocabulary, num_key_value_heads=2, tie_word_embeddings=True,
        max_position_embeddings=4096, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    with torch.device(device):
        model = Qwen2ForCausalLM(config)
    return LocalEngine(model, work.tokenizer(size.vocabulary), lr=1e-6, dtype=dtype, max_rows=max(size.responses))


def text(size: Size, words: int, seed: int) -> str:
    """So many random words."""
    draw = torch.Generator().manual_seed(seed)
    return " ".join(f"w{i}" for i in torch.randint(2, size.vocabulary, (words,), generator=draw).tolist())


def asked(size: Size, count: int) -> list[Problem]:
    """So many problems."""
    return [Problem(id=f"p{i}", prompt=text(size, size.prompt, i), answer="") for i in range(count)]


def timed(device: torch.device, run: Callable[[], int], turns: int = 3) -> list[dict[str, float]]:
    """Seconds and tokens of some turns after one that warms up."""
    rows = []
    for turn in range(turns + 1):
        began = time.perf_counter()
        tokens = run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if turn:
            rows.append({"seconds": time.perf_counter() - began, "tokens": tokens})
    return rows


def must_move(size: Size, model: Any, rows: int, number: int = 2) -> float:
    """Bytes that decoding cannot but read: all weights once a step, and keys and values of every row so far."""
    weights = number * sum(x.numel() for x in model.parameters())
    config = model.config
    each = number * 2 * config.num_hidden_layers * config.num_key_value_heads
    each *= config.hidden_size // config.num_attention_heads
    held = sum(size.prompt + step for step in range(size.tokens))
    return float(weights * size.tokens + rows * each * held)


def decode(mine: LocalEngine, size: Size, rows: int, machine: Limits) -> dict[str, Any]:
    """whet, in waves and in recorded steps, and `generate` on the same prompts."""
    problems = asked(size, rows // GROUP)

    def ours() -> int:
        batch = mine.sample(problems, [GROUP] * len(problems), max_tokens=size.tokens, seed=0)
        return int(batch["length"].sum())

    model = mine.model
    ids = torch.tensor([mine.format(problem.prompt) for problem in problems], device=mine.device)

    def theirs(small: Any) -> int:
        how = {"do_sample": True, "top_k": 0, "max_new_tokens": size.tokens, "pad_token_id": 0}
        out = small.generate(input_ids=ids, attention_mask=torch.ones_like(ids), num_return_sequences=GROUP, **how)
        ended = (out[:, ids.shape[1] :] == 1).int().cumsum(1)
        return int((ended == 0).sum() + (ended[:, -1] > 0).sum())

    found = {}
    for way, sampler in (("", Own), (" graph", Slots)):
        mine.sampler = sampler(mine)
        found[f"decode {rows}{way}"] = {"whet": timed(mine.device, ours)}
    mine.sampler = Own(mine)
    small = Qwen2ForCausalLM(model.config).to(mine.device, torch.bfloat16).eval()
    small.load_state_dict(model.state_dict())
    generated, moved = timed(mine.device, lambda: theirs(small)), must_move(size, model, rows)
    for row in found.values():
        seconds = median(turn["seconds"] for turn in row["whet"])
        row |= {"generate": generated, "bandwidth_share": moved / seconds / machine.bandwidth}
    return found


def learn(mine: LocalEngine, size: Size, machine: Limits) -> dict[str, Any]:
    """Forward, loss and backward of long sequences, as a share of the measured matrix products."""
    problems = asked(size, size.sequences // 4)
    problems = [problem for problem in problems for _ in range(4)]
    spoken = size.length - size.prompt - 1  # and the end token
    batch = mine.written(problems, [text(size, spoken, 1000 + i) for i in range(size.sequences)])
    batch = weigh(RECIPE, batch.having(score=torch.arange(size.sequences) % 2 * 1.0), {"max_tokens": size.length}, {})
    learner = mine.learner(objective(RECIPE), wanted(RECIPE))
    profile = Profile(device=mine.device)

    def gradient() -> int:
        with profiling(profile):
            learner.gradient(batch)
        return int(batch["length"].sum()) + size.prompt * size.sequences

    rows = timed(mine.device, gradient)
    flops = sum(profile.spent[name].flops for name in ("forward", "backward")) / (len(rows) + 1)
    peak = max(spent.peak for spent in profile.spent.values()) / 2**20
    share = flops / median(row["seconds"] for row in rows) / machine.matmul
    return {"whet": rows, "flops": flops, "peak_mib": peak, "matmul_share": share}


def main() -> None:
    """Read the command line, measure, and write a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--size", default="half", choices=SIZES)
    parser.add_argument("--out", type=Path, default=work.ROOT / "results" / "gpu.json")
    parser.add_argument("--only", default="", choices=["", "decode", "learn"])
    told = parser.parse_args()
    if told.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU that torch can use here; --device cpu --size tiny shows that the script runs")
    size = SIZES[told.size]
    mine = engine(size, told.device, told.dtype)
    machine = limits(mine.device, mine.dtype)
    name = torch.cuda.get_device_name() if told.device == "cuda" else "cpu"
    book: dict[str, Any] = {"device": name, "torch": torch.__version__, "size": told.size, "dtype": told.dtype}
    book |= {"matmul": machine.matmul, "bandwidth": machine.bandwidth}
    for rows in size.responses if told.only != "learn" else ():
        book |= decode(mine, size, rows, machine)
    if told.only != "decode":
        book["learner"] = learn(mine, size, machine)
    told.out.parent.mkdir(exist_ok=True, parents=True)
    told.out.write_text(json.dumps(book, indent=1) + "\n")
    print(json.dumps(book))


if __name__ == "__main__":
    main()
