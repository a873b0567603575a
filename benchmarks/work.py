"""What is measured, for whoever measures it: two models, their prompts and their rewards. Imports no whet."""

import json
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".bench"
VOCABULARY = 151_936
PROMPTS, RESPONSES = 16, 16  # setting A
LONG = {"prompts": 4, "responses": 8, "prompt_tokens": 64, "max_tokens": 128}  # setting B


def large() -> Path:
    """Setting B's model: a Llama of 42 million parameters, most of them a vocabulary of 151,936; random weights."""
    place = PLACE / "models" / "B"
    if (place / "model.safetensors").exists():
        return place
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.WhitespaceSplit(), decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=8,
        max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(place)
    fast.save_pretrained(place)
    return place


def prompts(setting: str, seed: int) -> list[dict[str, str]]:
    """Rows with `id`, `prompt` and `answer`; for A the problems of compose, levels 1 and 2, as whet wrote them."""
    if setting == "B":
        draw = random.Random(seed)
        words = [
            [f"w{draw.randrange(2, VOCABULARY)}" for _ in range(LONG["prompt_tokens"])] for _ in range(LONG["prompts"])
        ]
        return [{"id": f"b{i}", "prompt": " ".join(mine), "answer": ""} for i, mine in enumerate(words)]
    rows = json.loads((PLACE / "compose.json").read_text())
    draw = random.Random(seed)
    return draw.sample(rows, PROMPTS)


def reward(setting: str, text: str, answer: str) -> float:
    """A: the last word is the answer, as compose judges it; B: a coin that depends on the text alone."""
    return float(text.strip().endswith(answer)) if setting == "A" else float(len(text) % 2)


def peak_mib() -> float:
    """The most memory that this process has had, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def tell(seconds: float, tokens: int, **more: float) -> None:
    """One measurement, as the last line of the output."""
    print(json.dumps({"seconds": seconds, "tokens": tokens, "peak_mib": peak_mib(), "at": time.time(), **more}))
    sys.stdout.flush()
