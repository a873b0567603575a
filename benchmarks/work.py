"""What is measured, for whoever measures it: models, prompts, rewards, and the taking of turns. Imports no whet.

A measurement is made by a worker: a process that loads and warms up, says that it is ready, and then takes a turn for
each line that it is sent. So whet and a peer take turns on one machine, each already warm, on the same prompts.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".bench"
BASE = ROOT / "whet" / "models" / "base"
VOCABULARY = 151_936
PROMPT_TOKENS = 64  # of settings B and E
TURN = "@turn "  # what begins a line that is a measurement; whatever else a worker prints is for nobody


@dataclass(frozen=True)
class Work:
    """One setting: a model, and how many responses of how many tokens, to how many prompts."""

    model: str
    prompts: int
    responses: int
    tokens: int
    lr: float = 1e-6  # small, so that both sides sample from nearly the same policy in every turn
    at_once: int = 0  # responses in one of TRL's micro-batches; 0 for all of them
    dtype: str = "float32"  # of each side's matrix products


SETTINGS = {
    "A": Work("base", 16, 16, 96),
    "B": Work("large", 4, 8, 128),
    "B8": Work("large", 4, 8, 128, at_once=8),
    "B16": Work("large", 4, 8, 128, dtype="bfloat16"),
    "CA": Work("padded", 16, 16, 96),
    "CB": Work("large", 4, 8, 128),
    "E": Work("large", 2, 4, 64),
    "T": Work("base", 16, 16, 96, lr=3e-4),  # the rate in the card of the base
}


def sized(setting: str, size: str = "") -> Work:
    """The work of a setting; `tiny` for trying the benchmark itself, `4x1` for 4 times the responses and the length."""
    work = SETTINGS[setting]
    if size == "tiny":
        return replace(work, prompts=2, responses=4, tokens=8)
    times, longer = map(int, (size or "1x1").split("x"))
    return replace(work, responses=work.responses * times, tokens=work.tokens * longer)


# --- models ----------------------------------------------------------------------------------------------


def model(name: str) -> Path:
    """The directory of one of the models, made when first asked for."""
    return {"base": lambda: BASE, "padded": padded, "large": large}[name]()


def large() -> Path:
    """Setting B's model: a Llama of 42 million parameters, most of them a vocabulary of 151,936; random weights."""
    place = PLACE / "models" / "large"
    if (place / "model.safetensors").exists():
        return place
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=8,
        max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(place)
    tokenizer(VOCABULARY).save_pretrained(place)
    return place


def tokenizer(vocabulary: int) -> Any:
    """A token for each of the words w2, w3, ...; 0 is padding and 1 the end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, vocabulary)}}
    found = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    found.pre_tokenizer, found.decoder = pre_tokenizers.WhitespaceSplit(), decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=found, pad_token="<pad>", eos_token="<eos>", padding_side="left")


def padded() -> Path:
    """The shipped base with heads of 32 numbers instead of 16: the same function, in a shape that vLLM accepts on CPU.

    Each half of a head is filled up with zeros. Rotary positions turn number i with number i + half by the angle
    position · θ^(-2i/size), so twice the size with θ² leaves the angles as they are; and queries grow by √2, since
    attention divides by the root of the size.
    """
    place = PLACE / "models" / "padded"
    if (place / "model.safetensors").exists():
        return place
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    config = before.config
    heads, size = config.num_attention_heads, config.head_dim
    config.head_dim, config.rope_parameters["rope_theta"] = 2 * size, config.rope_parameters["rope_theta"] ** 2
    after = type(before)(config)
    weights = before.state_dict()
    for name, x in weights.items():
        halves = (heads, 2, size // 2)
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            grown = torch.nn.functional.pad(x.view(*halves, -1), (0, 0, 0, size // 2)).flatten(0, 2)
            weights[name] = grown * 2**0.5 if "q_proj" in name else grown
        elif name.endswith("o_proj.weight"):
            weights[name] = torch.nn.functional.pad(x.view(-1, *halves), (0, size // 2)).flatten(1)
    after.load_state_dict(weights)
    after.save_pretrained(place)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(place)
    return place


# --- prompts and rewards ---------------------------------------------------------------------------------


def prompts(setting: str) -> list[dict[str, str]]:
    """Rows with `id`, `prompt` and `answer`, in the order in which every side takes them.

    For A and CA the problems of compose, levels 1 and 2, for T those of level 1, as whet wrote them down.
    """
    if SETTINGS[setting].model != "large":
        rows = json.loads((PLACE / f"compose-{'1' if setting == 'T' else '12'}.json").read_text())
        first = 400 * seed()
        return rows[first:] + rows[:first]
    draw = random.Random(0)
    rows = [[f"w{draw.randrange(2, VOCABULARY)}" for _ in range(PROMPT_TOKENS)] for _ in range(256)]
    return [{"id": f"b{i}", "prompt": " ".join(row), "answer": ""} for i, row in enumerate(rows)]


def turn_of(rows: list[dict[str, str]], work: Work, turn: int) -> list[dict[str, str]]:
    """The prompts of one turn, round and round."""
    return [rows[(turn * work.prompts + i) % len(rows)] for i in range(work.prompts)]


def reward(setting: str, text: str, answer: str) -> float:
    """Compose's own judgement; for B a coin that depends on the text alone, since its model knows nothing."""
    if SETTINGS[setting].model == "large":
        return float(len(text) % 2)
    return float(text.rpartition("=")[2].strip() == answer)


# --- turns -----------------------------------------------------------------------------------------------


def turns() -> Iterator[int]:
    """Say that this worker is ready, then the number of each turn as it is asked for; ends when nobody asks."""
    print(f"\n{TURN}ready", flush=True)
    for line in sys.stdin:
        yield int(line)


def tell(seconds: float, tokens: int, **more: float) -> None:
    """One measurement."""
    print(f"\n{TURN}{json.dumps({'seconds': seconds, 'tokens': tokens, 'peak_mib': peak_mib(), **more})}", flush=True)


def take_turns(take: Callable[[int], dict[str, float]]) -> None:
    """Turn 0 is the warm-up and is not told; `take` returns what a turn gave, `tokens` among it."""
    take(0)
    for turn in turns():
        began = time.perf_counter()
        given = take(turn)
        tell(**{"seconds": time.perf_counter() - began, **given})


def peak_mib() -> float:
    """The most memory that this process has had, in MiB, as the kernel counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def seed() -> int:
    """What tells one run of a setting from another: where in the prompts it begins, and what is drawn."""
    return int(os.environ.get("BENCH_SEED", "0"))


def threads() -> int:
    """With how many threads every side computes."""
    return int(os.environ["OMP_NUM_THREADS"])
