"""Continuous batching: responses that began together are a wave, and a new wave begins as soon as there is room.

A wave holds the keys and values of each distinct prompt once, however many responses follow it, and those of its
responses apart from them. All responses of a wave are equally long at any moment, so nothing is padded and nothing
is masked but prompts of unequal length; the model's other layers see all waves as one batch. Attention over the two
parts is put together by their normalisers: with l = log Σ exp over a part's scores,

    attention = σ(l_own - l_prompt) · own + σ(l_prompt - l_own) · prompt

This goes into any model of transformers whose attention can be replaced by name (`replaced.py`); for others the
sampler takes its plain cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from whet.engines import replaced
from whet.engines.replaced import Unfit

ROOM = 16  # tokens of room at first, doubled when it is full: ours, so that copying is at most as much as writing
Parts = tuple[Tensor, Tensor]


@dataclass
class Prompts:
    """Keys and values [d heads p size] of d distinct prompts, layer by layer; `bias` [d 1 1 p] hides their padding."""

    layers: list[Parts]
    bias: Tensor | None

    @classmethod
    def of(cls, cache: Any, mask: Int[Tensor, "d p"], dtype: torch.dtype) -> "Prompts":
        """What a model has just read, in the format of its products; refused where a layer keeps less than all."""
        if any(type(layer) is not DynamicLayer for layer in cache.layers):
            raise Unfit
        layers = [(layer.keys.to(dtype), layer.values.to(dtype)) for layer in cache.layers]
        if bool(mask.all()):
            return cls(layers, None)
        bias = torch.zeros(mask.shape, dtype=layers[0][0].dtype, device=mask.device)
        return cls(layers, bias.masked_fill(mask == 0, -torch.inf)[:, None, None])

    @property
    def count(self) -> int:
        """d."""
        return len(self.layers[0][0])

    def rows(self, index: Int[Tensor, "d"]) -> "Prompts":
        """Some of the prompts."""
        bias = None if self.bias is None else self.bias[index]
        return Prompts([(keys[index], values[index]) for keys, values in self.layers], bias)


class Wave:
    """r responses that began together: whose they are, which prompt each follows, and their keys and values."""

    def __init__(self, rows: Int[Tensor, "r"], prompts: Prompts, which: Int[Tensor, "r"]) -> None:
        self.rows, self.prompts, self.which, self.filled = rows, prompts, which, 0
        self.own: list[Parts] = []
        # A place in a grid [prompts, responses of the prompt that has most] for each response.
        counts = torch.bincount(which, minlength=prompts.count)
        self.wide = int(counts.max())
        self.whole = len(which) == prompts.count * self.wide and bool((which.diff() >= 0).all())
        order = which.argsort(stable=True)
        before = (counts.cumsum(0) - counts)[which[order]]
        nth = torch.empty_like(which).scatter(0, order, torch.arange(len(which), device=which.device) - before)
        self.place = which * self.wide + nth

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return len(self.prompts.layers)

    def kept(self, mine: Bool[Tensor, "r"]) -> "Wave":
        """Only these responses, one at least; prompts that nobody follows any more are dropped."""
        index = mine.nonzero()[:, 0]
        followed, which = self.which[index].unique(return_inverse=True)
        prompts = self.prompts if len(followed) == self.prompts.count else self.prompts.rows(followed)
        wave = Wave(self.rows[index], prompts, which)
        wave.filled = self.filled
        wave.own = [(_longer(k, index, self.filled), _longer(v, index, self.filled)) for k, v in self.own]
        return wave

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Float[Tensor, "r h 1 s"]:
        """Attention of one new token of each response, [r h 1 s], to its prompt and to its own tokens so far."""
        r, heads, _, size = query.shape
        keys, values = self._with(layer, key, value)
        query = query.reshape(r, keys.shape[1], -1, size)  # the queries that share a key are one matrix
        own, own_total = partial(query, keys, values, None, scale)
        prompt, prompt_total = self._to_prompts(layer, query, scale)
        share = torch.sigmoid(own_total - prompt_total)[..., None].to(own.dtype)
        return torch.lerp(prompt, own, share).reshape(r, heads, 1, size)

    def _with(self, layer: int, key: Tensor, value: Tensor) -> Parts:
        """The keys and values of the responses with those of the new token behind them."""
        if layer == len(self.own):
            self.own.append((_longer(key[:, :, :0], None, 0), _longer(value[:, :, :0], None, 0)))
        if self.own[layer][0].shape[2] == self.filled:
            self.own[layer] = (
                _longer(self.own[layer][0], None, self.filled),
                _longer(self.own[layer][1], None, self.filled),
            )
        for buffer, new in zip(self.own[layer], (key, value), strict=True):
            buffer[:, :, self.filled] = new[:, :, 0]
        keys, values = self.own[layer]
        return keys[:, :, : self.filled + 1], values[:, :, : self.filled + 1]

    def _to_prompts(self, layer: int, query: Tensor, scale: float) -> Parts:
        """The part of attention that goes to the prompts: one product for all responses of a prompt."""
        keys, values = self.prompts.layers[layer]
        _, kv, g, size = query.shape
        d = self.prompts.count
        grid = query if self.whole else query.new_zeros(d * self.wide, kv, g, size).index_copy(0, self.place, query)
        grid = grid.view(d, self.wide, kv, g, size).transpose(1, 2).reshape(d, kv, self.wide * g, size)
        out, total = partial(grid, keys, values, self.prompts.bias, scale)
        out = out.reshape(d, kv, self.wide, g, size).transpose(1, 2).reshape(d * self.wide, kv, g, size)
        total = total.reshape(d, kv, self.wide, g).transpose(1, 2).reshape(d * self.wide, kv, g)
        return (out, total) if self.whole else (out[self.place], total[self.place])


def forward(
    model: Any, waves: Sequence[Wave], token: Int[Tensor, "r"], position: Int[Tensor, "r"]
) -> Float[Tensor, "r v"]:
    """Logits after one more token of each response of all waves, in their order."""
    logits = replaced.forward(model, waves, token, position)
    for wave in waves:
        wave.filled += 1
    return logits


def partial(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float) -> Parts:
    """Attention [b h m s] over these keys only, and log Σ exp of its scores [b h m]."""
    if query.device.type == "cpu":
        bias = None if bias is None else bias.expand(-1, -1, query.shape[2], -1)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, attn_mask=bias, scale=scale
        )
    return by_products(query, keys, values, bias, scale)


def by_products(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float) -> Parts:
    """The same on any device: softmax in float32 between two products."""
    scores = (query @ keys.transpose(2, 3)).float() * scale
    scores = scores if bias is None else scores + bias
    return scores.softmax(-1).to(values.dtype) @ values, scores.logsumexp(-1)


def _longer(x: Tensor, index: Tensor | None, filled: int) -> Tensor:
    """The filled part of a buffer, of some rows, in one with room."""
    rows = len(x) if index is None else len(index)
    room = x.new_empty(rows, x.shape[1], max(ROOM, 2 * filled), x.shape[3])
    room[:, :, :filled] = x[:, :, :filled] if index is None else x[:, :, :filled].index_select(0, index)
    return room
