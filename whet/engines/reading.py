"""Reading prompts: each distinct one once for all its responses, and how a model is asked."""

import inspect
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from whet.engines.forward import cut
from whet.engines.pick import Drawing
from whet.engines.profile import counted


def chunks(prompts: Sequence[tuple[int, ...]], rows: int, budget: int, by_prompt: bool = False) -> list[list[int]]:
    """Row numbers, like prompts together and short ones first, in pieces of at most `rows`.

    The distinct prompts of a piece, padded, fit into `budget` tokens, unless a single one does not; `by_prompt`,
    each piece has one.

    >>> chunks([(1, 2), (7,), (1, 2), (7,)], rows=3, budget=100)
    [[1, 3, 0], [2]]
    >>> chunks([(1, 2), (7,), (1, 2), (7,)], rows=3, budget=100, by_prompt=True)
    [[1, 3], [0, 2]]
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        members.setdefault(prompt, []).append(row)
    if by_prompt:
        pieces = [members[prompt] for prompt in sorted(members, key=len)]
        return [piece[start : start + rows] for piece in pieces for start in range(0, len(piece), rows)]
    distinct = list(members)
    found = []
    # As few pieces as can be: what is read together is also written together, and that takes far longer.
    for piece in cut([len(prompt) for prompt in distinct], budget, piece=1e9):
        mine = [row for i in piece for row in members[distinct[i]]]
        found += [mine[start : start + rows] for start in range(0, len(mine), rows)]
    return found


def beginning(waiting: deque[list[int]], prompts: Sequence[tuple[int, ...]], room: int, budget: int) -> list[int]:
    """The rows that begin now: the pieces that wait longest, as far as there is room for them and their prompts."""
    mine, width, distinct = list[int](), 0, set[tuple[int, ...]]()
    while waiting and len(mine) + len(waiting[0]) <= room:
        prompt = prompts[waiting[0][0]]
        width, more = max(width, len(prompt)), distinct | {prompt}
        if mine and width * len(more) > budget:
            break
        mine, distinct = mine + waiting.popleft(), more
    return mine


def read(model: Any, prompts: list[tuple[int, ...]], how: Drawing) -> tuple[Tensor, Any, Tensor, Tensor]:
    """Logits after each of d distinct prompts, the cache and the mask [d p] they leave, and which is each row's."""
    distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
    width = max(map(len, distinct))
    ids = torch.tensor([[how.padding] * (width - len(p)) + list(p) for p in distinct], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in distinct], device=model.device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    counted("prefill", sum(map(len, distinct)), ids.numel(), 2.0 * products(model) * ids.numel())
    found = forward(model, ids, mask, position, None)
    which = torch.tensor([distinct[prompt] for prompt in prompts], device=model.device)
    return found.logits[:, -1], found.past_key_values, mask, which


def forward(model: Any, ids: Tensor, mask: Tensor, position: Tensor, cache: Any) -> Any:
    """One pass that extends the cache; logits of the last position only, where the model can be asked for that."""
    wishes = {"position_ids": position, "logits_to_keep": 1}
    wishes = {name: value for name, value in wishes.items() if name in takes(model.__class__)}
    return model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **wishes)


def products(model: Any) -> int:
    """The numbers that a token is multiplied with: all weights, embeddings only where they are the head as well."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    return model.num_parameters() - (embeddings.weight.numel() if head.weight is not embeddings.weight else 0)


@lru_cache
def takes(kind: Any) -> frozenset[str]:
    """The names of the arguments of a model's forward pass; not every architecture has the same."""
    return frozenset(inspect.signature(kind.forward).parameters)
