"""Small models whose heads vLLM knows on a CPU, and the shipped base with its heads made wider."""

from importlib.util import find_spec
from math import sqrt

import pytest
import torch
import transformers as hf

from tests.engines.models import COMMON, TOKENIZER
from whet.engines import vllm
from whet.engines.local import LocalEngine
from whet.engines.vllm import VLLM

vllm.CPU_CACHE = 1 << 28  # a process keeps the cache of every vLLM that it started, and these models need little

pytestmark = [
    pytest.mark.skipif(
        find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm has an environment of its own"
    ),
    pytest.mark.filterwarnings("default"),  # vLLM's own
]

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
LONG = {**COMMON, "max_position_embeddings": 512}
ROTARY = {**SMALL, **LONG, "num_key_value_heads": 1, "head_dim": 32}
FAMILIES = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**ROTARY)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(
        hf.Qwen2Config(**SMALL, **LONG, num_key_value_heads=1, tie_word_embeddings=True)
    ),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**ROTARY)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**LONG, n_embd=64, n_layer=2, n_head=2)),
    # logits are capped, and every other layer sees six tokens only; of the learner's ways to attend, only "eager"
    # caps the attention scores too, as the model was trained and as vLLM does
    "gemma2": lambda: hf.Gemma2ForCausalLM(
        hf.Gemma2Config(**ROTARY, sliding_window=6, final_logit_softcapping=3.0, attn_implementation="eager")
    ),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**ROTARY, sliding_window=6)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**ROTARY, sliding_window=None, num_local_experts=4)),
}


def engine(family: str = "llama", seed: int = 0, serve: bool = True, lr: float = 1e-2, **options) -> LocalEngine:
    """A random model of a family, drawn from by vLLM; by itself where `serve` is False."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FAMILIES[family]().eval()
    model.generation_config.eos_token_id = [TOKENIZER.eos_token_id, *range(3, 8)]  # responses of many lengths
    found = LocalEngine(model, TOKENIZER, lr=lr)
    if serve:
        found.sampler = VLLM(found, **options)
    return found


def wider(model: hf.LlamaForCausalLM, size: int = 32) -> hf.LlamaForCausalLM:
    """The same function with heads of `size` numbers instead of half as many: the others are 0, and stay 0.

    A rotary pair (i, i + d/2) of frequency θ^(-2i/d) goes to (2i, 2i + d) of heads of 2d, which has the same frequency.
    """
    config = model.config
    heads, d = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    assert size == 2 * d
    assert config.num_key_value_heads == heads
    place = torch.cat([2 * torch.arange(d // 2), 2 * torch.arange(d // 2) + d])
    rows = (torch.arange(heads)[:, None] * size + place).flatten()
    wide = hf.LlamaForCausalLM(type(config)(**{**config.to_dict(), "head_dim": size}))
    state = model.state_dict()
    for name, x in wide.state_dict().items():
        old = state[name]
        if name.endswith("o_proj.weight"):
            x.zero_()[:, rows] = old
        elif ".self_attn." in name:
            # the scores are divided by √size instead of √d
            x.zero_()[rows] = old * (sqrt(size / d) if "q_proj" in name else 1.0)
        else:
            x.copy_(old)
    wide.generation_config = model.generation_config
    return wide.eval()
