"""A key-value cache with room: a new token is written in its place, where transformers copies all earlier ones."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

BLOCK = 64  # tokens of room made at a time; ours: copying once in 64 steps costs next to nothing


def roomy(cache: Any) -> Any:
    """The same cache with room in its plain layers; sliding, recurrent and compressed layers stay as they are."""
    cache.layers = [Roomy(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class Roomy(DynamicLayer):
    """`keys` and `values`, [rows heads tokens size], are the filled part of buffers that are a little longer."""

    keys: Tensor
    values: Tensor

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        assert layer.keys is not None
        assert layer.values is not None
        self.buffers: tuple[Tensor, Tensor] = (layer.keys, layer.values)
        self.keys, self.values = self.buffers

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new tokens behind the earlier ones; returns all of them."""
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        if end > self.buffers[0].shape[-2]:
            self.buffers = (_longer(self.keys, end + BLOCK), _longer(self.values, end + BLOCK))
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take these rows, in this order, each as often as it is named."""
        keys, values = (buffer.index_select(0, beam_idx) for buffer in self.buffers)
        length = self.keys.shape[-2]
        self.buffers = (keys, values)
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]


def _longer(x: Tensor, tokens: int) -> Tensor:
    rows, heads, filled, size = x.shape
    room = torch.empty(rows, heads, tokens, size, dtype=x.dtype, device=x.device)
    room[:, :, :filled] = x
    return room
