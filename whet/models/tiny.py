"""Tiny Llamas with a character tokenizer: small enough for two CPU cores, and ordinary Hugging Face models.

Every printable ASCII character and the newline is one token; there is no token at the beginning.
"""

from pathlib import Path
from string import ascii_lowercase, digits

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

PRINTABLE = "\n" + "".join(map(chr, range(32, 127)))
SPECIAL = ("<pad>", "<eos>", "<unk>")

Pair = tuple[LlamaForCausalLM, PreTrainedTokenizerFast]


def characters(alphabet: str = PRINTABLE) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each character of the alphabet; decoding gives the text back exactly."""
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *alphabet))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # "<eos>" written in a prompt is five characters
        padding_side="left",
        model_max_length=512,
    )


def llama(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int, heads: int, inner: int, seed: int) -> Pair:
    """A fresh Llama with tied embeddings and float32 weights drawn from `seed`, with its tokenizer."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=tokenizer.model_max_length,
        tie_word_embeddings=True,
        initializer_range=0.06,  # ours: not compared over seeds
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config), tokenizer


def tiny(seed: int = 0) -> Pair:
    """The base model's shape: 0.8 million parameters. The shape is ours, not compared over seeds."""
    return llama(characters(), hidden=128, layers=4, heads=8, inner=344, seed=seed)


def micro(seed: int = 0) -> Pair:
    """A model for `digits` and for tests: it knows digits and lower-case letters, and no text longer than those."""
    return llama(characters(digits + ascii_lowercase), hidden=32, layers=1, heads=2, inner=64, seed=seed)


def save(pair: Pair, folder: Path) -> None:
    """Write a Hugging Face directory: configuration, tokenizer.json, model.safetensors."""
    for half in pair:
        half.save_pretrained(folder)
