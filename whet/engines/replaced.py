"""Attention replaced by name, inside any model of transformers that lets it be: keys and values are held outside.

Where a layer has a window, a cap on its scores, a bias or sinks, `fits` says no, or the first step is `Unfit`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from whet.engines.precision import of_products
from whet.engines.reading import takes
from whet.engines.sharing import experts

NAME = "whet_held"
# What architectures hand to any attention function, and what does not change what it computes.
HARMLESS = frozenset(
    {"position_ids", "cache_position", "use_cache", "is_causal", "output_attentions", "output_router_logits"}
)


class Unfit(Exception):
    """This architecture's attention is more than keys, values and a scale."""


class Held(Protocol):
    """Some responses whose keys and values are kept: `filled` tokens of each, in `depth` layers."""

    filled: int

    @property
    def depth(self) -> int:
        """How many layers there are."""
        ...

    def __len__(self) -> int: ...

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Float[Tensor, "r h 1 s"]:
        """Attention of one new token of each response, [r h 1 s], to all before it and to itself."""
        ...


@dataclass
class _Writing:
    """The responses that the model is computing now, and the layers that have attended in this step."""

    held: Sequence[Held] = ()
    seen: list[int] = field(default_factory=list)


_now = _Writing()
_fit: "WeakKeyDictionary[Any, bool]" = WeakKeyDictionary()


def fits(model: Any) -> bool:
    """Whether this model's attention can be replaced; a model that was found `Unfit` once does not fit."""
    config = model.config.get_text_config()
    ours = getattr(model, "_supports_attention_backend", False) and config._attn_implementation in ("sdpa", "eager")
    rounded = of_products(model.get_input_embeddings().weight) is not torch.float32
    told = "position_ids" in takes(model.__class__)
    # A router makes more of rounding: in a short format the order of sums must be that of the learner's attention.
    return ours and told and not (rounded and experts(config)) and _fit.get(model, True)


def unfit(model: Any) -> None:
    """Remember that this model's attention cannot be replaced."""
    _fit[model] = False


class _Through(Cache):
    """A cache that keeps nothing: whoever holds the responses does."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """The keys and values of the new token alone."""
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The longest response: only for models that count positions themselves, and ours are given."""
        return max(held.filled for held in _now.held)


@contextmanager
def writing(model: Any) -> Iterator[None]:
    """Inside, the model's attention is that of the responses it is computing."""
    config, before = model.config, model.config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _now.held = ()


def forward(
    model: Any, held: Sequence[Held], token: Int[Tensor, "r"], position: Int[Tensor, "r"]
) -> Float[Tensor, "r v"]:
    """Logits after one more token of each response that is held, in their order."""
    _now.held, _now.seen = held, []
    with writing(model):
        logits: Tensor = model(
            input_ids=token[:, None], position_ids=position[:, None], past_key_values=_Through(), use_cache=True
        ).logits[:, -1]
    if sorted(_now.seen) != list(range(held[0].depth)):
        raise Unfit
    return logits


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any,
    scaling: float | None = None, dropout: float = 0.0, **more: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """What a layer calls instead of its own attention: [r h 1 s] of all that are held → [r 1 h s]."""
    if attention_mask is not None or any(x is not None for name, x in more.items() if name not in HARMLESS):
        raise Unfit
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer, sizes = module.layer_idx, [len(held) for held in _now.held]
    _now.seen.append(layer)
    # Where autocast rounds products, rotated queries and keys are float32, values are not: attention takes theirs.
    pieces = zip(_now.held, *(x.to(value.dtype).split(sizes) for x in (query, key, value)), strict=True)
    return torch.cat([held.attend(layer, q, k, v, scale) for held, q, k, v in pieces]).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
