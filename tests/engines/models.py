"""Tiny random models of several architectures, all over one character tokenizer."""

from string import ascii_lowercase, digits

import torch
import transformers as hf

from whet.engines.local import LocalEngine
from whet.models.tiny import characters
from whet.tasks import Problem

TOKENIZER = characters(digits + ascii_lowercase)
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
COMMON = {
    "vocab_size": len(TOKENIZER),
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # far from uniform, so that likelier tokens exist
    "bos_token_id": None,
    "eos_token_id": TOKENIZER.eos_token_id,
    "pad_token_id": TOKENIZER.pad_token_id,
}
WINDOW = {"sliding_window": 6, "head_dim": 8, "num_key_value_heads": 2}
FAMILIES = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, **COMMON, num_key_value_heads=2)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(
        hf.Qwen2Config(**SMALL, **COMMON, num_key_value_heads=2, tie_word_embeddings=True)
    ),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**COMMON, n_embd=32, n_layer=2, n_head=4)),
    # logits are capped after the head, and every other layer sees six tokens only
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**SMALL, **COMMON, **WINDOW, final_logit_softcapping=3.0)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**SMALL, **COMMON, **WINDOW, layer_types=["sliding_attention", "full_attention"])
    ),
    # no rotary positions, and a state instead of a cache in every other layer
    "lfm2": lambda: hf.Lfm2ForCausalLM(
        hf.Lfm2Config(**SMALL, **COMMON, num_key_value_heads=2, layer_types=["conv", "full_attention"])
    ),
    # every layer sees six tokens only; tied in Gemma, untied here
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**SMALL, **COMMON, **WINDOW)),
    # queries and keys are normalised
    "qwen3": lambda: hf.Qwen3ForCausalLM(
        hf.Qwen3Config(**SMALL, **COMMON, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True)
    ),
    # embeddings scaled by the root of the width
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**SMALL, **COMMON, num_key_value_heads=1, head_dim=8)),
    # a head with a bias, rotary positions on half of each head, attention and feed-forward side by side
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**SMALL, **COMMON, resid_pdrop=0.1)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**SMALL, **COMMON, num_key_value_heads=2, sliding_window=6)),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**SMALL, **COMMON, num_key_value_heads=2)),
    # mixtures of experts: a router sends each token to two of four
    "mixtral": lambda: hf.MixtralForCausalLM(
        hf.MixtralConfig(**SMALL, **COMMON, num_key_value_heads=2, num_local_experts=4)
    ),
    "qwen2_moe": lambda: hf.Qwen2MoeForCausalLM(
        hf.Qwen2MoeConfig(
            **SMALL, **COMMON, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2,
            moe_intermediate_size=24, shared_expert_intermediate_size=24,
        )
    ),
    "qwen3_moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(
            **SMALL, **COMMON, num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2,
            moe_intermediate_size=24, norm_topk_prob=True,
        )
    ),
    "olmoe": lambda: hf.OlmoeForCausalLM(
        hf.OlmoeConfig(**SMALL, **COMMON, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2)
    ),
    # experts, attention sinks, and a window in every other layer
    "gpt_oss": lambda: hf.GptOssForCausalLM(
        hf.GptOssConfig(**SMALL, **COMMON, **WINDOW, num_local_experts=4, num_experts_per_tok=2)
    ),
}  # fmt: skip

ENDS = tuple(range(3, 8))
PROMPTS = ("abc", "1", "hello12345", "zz", "abc9")


def build(family: str = "llama", seed: int = 0):
    """A model with weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FAMILIES[family]().eval()
    # several end tokens, as chat models have, so that responses are of many lengths
    model.generation_config.eos_token_id = [TOKENIZER.eos_token_id, *ENDS]
    return model


def engine(family: str = "llama", seed: int = 0, **options) -> LocalEngine:
    """An engine around such a model."""
    return LocalEngine(build(family, seed), TOKENIZER, **{"lr": 1e-2, **options})


def problems(*prompts: str) -> list[Problem]:
    """Problems with these prompts."""
    return [Problem(id=f"p{i}", prompt=prompt, answer="") for i, prompt in enumerate(prompts or PROMPTS)]


def sampled(of: LocalEngine, each: int = 4, max_tokens: int = 12, seed: int = 1, **options):
    """`each` responses to every prompt."""
    mine = problems()
    return of.sample(mine, [each] * len(mine), max_tokens=max_tokens, seed=seed, **options)


def direct_logits(model, prompt, tokens):
    """[t v]: one unpadded sequence, no cache; the logits that predict each response token."""
    ids = torch.tensor([[*prompt, *tokens]])
    return model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()


def responses(batch):
    """The token ids of each row without padding."""
    return [row[:n] for row, n in zip(batch["tokens"].tolist(), batch["length"].tolist(), strict=True)]


def told(batch, per_row):
    """Rows of different length as one [n t] tensor, 0 where the mask is False."""
    found = torch.zeros(batch["mask"].shape)
    for i, row in enumerate(per_row):
        found[i, : len(row)] = row.detach()
    return found * batch["mask"]
