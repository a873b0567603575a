"""Keys and values in buffers that stay where they are: a row for each slot, a place for each position."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whet.engines.waves import Parts


class Room:
    """Keys and values of all slots [slots heads width size], layer by layer, that a step sees the beginning of."""

    filled = 0  # positions are always given

    def __init__(self, like: Sequence[Parts], slots: int, width: int) -> None:
        self.layers = [tuple(x.new_zeros(slots, x.shape[1], width, x.shape[3]) for x in parts) for parts in like]
        device = like[0][0].device
        self.slots, self.columns = torch.arange(slots, device=device), torch.arange(width, device=device)
        self.look(self.slots[:0], width)

    def __len__(self) -> int:
        return len(self.position)

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return len(self.layers)

    def clear(self) -> None:
        """Zeros: what is masked is multiplied by 0, which leaves nothing only of a number."""
        for x in (x for parts in self.layers for x in parts):
            x.zero_()

    def put(self, slots: Int[Tensor, "r"], layers: Sequence[Parts], mask: Int[Tensor, "d p"], which: Tensor) -> None:
        """Prompts that were read with padding before them, `which` [r] in each of these slots, from position 0 on."""
        width = mask.shape[1]
        column = (self.columns[:width] + width - mask.sum(1)[:, None]) % width  # padding comes behind: not seen there
        for parts, read_ in zip(self.layers, layers, strict=True):
            for buffer, x in zip(parts, read_, strict=True):
                buffer[slots, :, :width] = x.gather(2, column[:, None, :, None].expand_as(x))[which]

    def close_up(self, slots: Int[Tensor, "k"]) -> None:
        """What is in these slots is in the first ones from here on."""
        for x in (x for parts in self.layers for x in parts):
            x[: len(slots)] = x[slots]

    def look(self, position: Int[Tensor, "r"], width: int) -> None:
        """The first r slots are computed, each at its position, over the first `width` ones."""
        self.position, self.width = position, width
        hidden: Bool[Tensor, "r w"] = self.columns[:width] > position[:, None]
        self.bias = self.layers[0][0].new_zeros(hidden.shape).masked_fill(hidden, -torch.inf)[:, None, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Float[Tensor, "r h 1 s"]:
        """Attention of one new token of each response, [r h 1 s], to all before it and to itself."""
        r, heads, _, size = query.shape
        for buffer, new in zip(self.layers[layer], (key, value), strict=True):
            buffer[self.slots[:r], :, self.position] = new[:, :, 0]
        keys, values = (x[:r, :, : self.width] for x in self.layers[layer])
        query = query.reshape(r, keys.shape[1], -1, size)  # the queries that share a key are one matrix
        bias = self.bias.expand(-1, -1, query.shape[2], -1)
        out = torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=scale)
        return out.reshape(r, heads, 1, -1)
