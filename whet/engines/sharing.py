"""Prompts that several responses share, read once: the prompt, then one response behind the other, in one row.

No response sees another, and each is at the positions that follow the prompt, so every hidden state is the one that
the response would have alone. It pays where prompts are long beside responses; attention, which looks at the whole
row, costs more, so that rows are not longer than twice the width of the model.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

PAYS = 0.8  # ours: with less to gain than a fifth of the products, the plain way
_can: "WeakKeyDictionary[Any, bool]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Shared:
    """p rows of s tokens; `at` says which of the p · s positions predicts each of the k targets."""

    ids: Int[Tensor, "p s"]
    position: Int[Tensor, "p s"]
    seen: Bool[Tensor, "p 1 s s"]
    at: Int[Tensor, "k"]
    tokens: int

    def asked(self, model: Any) -> dict[str, Tensor]:
        """What a model must be called with."""
        mask = self.seen
        if model.config._attn_implementation == "eager":  # which adds its mask
            mask = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, torch.finfo(torch.float32).min)
        return {"input_ids": self.ids, "position_ids": self.position, "attention_mask": mask}


def packs(prompts: Sequence[tuple[int, ...]], lengths: Sequence[int], width: int, most: int) -> list[list[int]]:
    """Which rows are read together: of one prompt, and with it at most 2 · `width` or `most` tokens, or one response.

    Every row by itself where sharing does not pay, by the products of layers (24 · width a token) and of attention.

    >>> packs([(1,) * 8] * 3 + [(2,)], [5, 1, 2, 4], width=16, most=12)
    [[1, 2], [0], [3]]
    >>> packs([(1, 2)] * 2 + [(3,)], [50, 70, 60], width=64, most=999)
    [[0], [1], [2]]
    """
    alike = defaultdict(list)
    for row in sorted(range(len(prompts)), key=lengths.__getitem__):
        alike[prompts[row]].append(row)
    found: list[list[int]] = []
    for prompt, rows in alike.items():
        room = -1
        for row in rows:
            if lengths[row] > room:
                found.append([])
                room = min(2 * width, most) - len(prompt)
            found[-1].append(row)
            room -= lengths[row]
    alone = sum(_cost(len(prompts[row]) + lengths[row], width) for row in range(len(prompts)))
    together = sum(_cost(len(prompts[pack[0]]) + sum(lengths[row] for row in pack), width) for pack in found)
    return found if together <= PAYS * alone else [[row] for row in range(len(prompts))]


def _cost(tokens: int, width: int) -> float:
    return tokens * (24.0 * width + 4 * tokens)


def laid_out(
    packs: Sequence[Sequence[int]], prompts: Sequence[tuple[int, ...]], responses: Sequence[Tensor], mask: Tensor
) -> Shared:
    """Packs of rows in the order of `responses` and of `mask` [b t], which says which of their tokens count."""
    ids: list[Tensor] = []
    position: list[Tensor] = []
    who: list[Tensor] = []
    at: list[tuple[int, Tensor]] = []
    for pack in packs:
        prompt = torch.tensor(prompts[pack[0]])
        parts, places, owners, end = [prompt], [torch.arange(len(prompt))], [torch.zeros_like(prompt)], len(prompt)
        for nth, row in enumerate(pack):
            read = responses[row][:-1]  # the last token predicts nothing
            before = torch.cat([torch.tensor([len(prompt) - 1]), torch.arange(end, end + len(read))])
            at.append((len(ids), before[mask[row, : len(before)]]))
            parts.append(read)
            places.append(torch.arange(len(prompt), len(prompt) + len(read)))
            owners.append(torch.full_like(read, nth + 1))
            end += len(read)
        ids.append(torch.cat(parts))
        position.append(torch.cat(places))
        who.append(torch.cat(owners))
    owner = pad_sequence(who, batch_first=True, padding_value=-1)
    size = owner.shape[1]
    seen = (owner[:, None] == 0) | (owner[:, None] == owner[:, :, None])
    return Shared(
        ids=pad_sequence(ids, batch_first=True),
        position=pad_sequence(position, batch_first=True),
        seen=(seen & torch.ones(size, size, dtype=torch.bool).tril())[:, None],
        at=torch.cat([pack * size + places for pack, places in at]),
        tokens=sum(map(len, ids)),
    )


def width(model: Any) -> int:
    """The width of a model that can share prompts, 0 for others."""
    return model.config.get_text_config().hidden_size if possible(model) else 0


def possible(model: Any) -> bool:
    """Whether every layer attends to all that it may see, and the model does as it is told: found by trying it.

    Not with experts: a router makes more of rounding, and sampler and learner would be further apart than stated.
    """
    if model not in _can:
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
        told = {"position_ids", "attention_mask"} <= set(signature(model.forward).parameters)
        plain = told and not kinds and not experts(config) and not getattr(config, "sliding_window", None)
        _can[model] = plain and _agrees(model)
    return _can[model]


def experts(config: Any) -> bool:
    """Whether a router sends tokens to experts in a model of this configuration."""
    return any(getattr(config, name, 0) for name in ("num_experts", "num_local_experts", "n_routed_experts"))


@torch.no_grad()
def _agrees(model: Any) -> bool:
    device = model.device
    prompt, responses = (3, 1, 4), [torch.tensor([1, 5, 2, 6]), torch.tensor([5, 3, 5])]
    mask = torch.arange(4) < torch.tensor([[4], [3]])
    shared = laid_out([[0, 1]], [prompt, prompt], responses, mask)
    with torch.autocast(device.type, enabled=False):
        asked = {name: x.to(device) for name, x in shared.asked(model).items()}
        together = model(**asked, use_cache=False).logits.flatten(0, 1)[shared.at.to(device)].float()
        alone = [
            model(input_ids=torch.tensor([[*prompt, *mine.tolist()]], device=device), use_cache=False).logits[0, 2:-1]
            for mine in responses
        ]
    apart = torch.cat(alone).float()
    return bool((together - apart).abs().max() <= 1e-4 * apart.abs().max())
