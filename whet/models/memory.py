"""How much memory a run will need, from the model's files alone, before anything is loaded; and what would fit.

An estimate: weights, gradients and optimiser are exact, what the passes keep is counted by the layer. It is compared
with a real run in tests/engines/test_memory.py.
"""

import json
import pickle
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whet.engines.head import ROOM
from whet.engines.learner import NEAR
from whet.engines.slots import power, width_for
from whet.models import lora
from whet.models.setup import Setup
from whet.refusal import Refused

GB = 1e9
KEPT_WIDE, KEPT_INNER = 14, 4  # ours: tensors as wide as the model, and as its inner layers, that a layer keeps
HEAD, PICKED = 2, 4  # copies of them in float32, and of the logits that a token of each response is drawn from
ROWS = 512  # responses whose cache is held at once: engines.local.MAX_ROWS


@dataclass(frozen=True)
class Need:
    """Bytes by what they are for."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    critic: float
    passes: float
    cache: float
    graph: float = 0.0

    @property
    def total(self) -> float:
        """All of it; the cache is gone before the gradient is computed, but what recorded steps read and write."""
        return sum(vars(self).values()) - min(self.passes, self.cache)

    def told(self) -> str:
        """The parts that matter, in GB."""
        large = {name: x for name, x in vars(self).items() if x > 0.01 * self.total}
        return ", ".join(f"{name} {_gb(x)}" for name, x in sorted(large.items(), key=lambda item: -item[1]))


def _gb(size: float) -> str:
    """Bytes in GB, two digits.

    >>> _gb(1.52e11), _gb(2.44e10), _gb(2.4e8)
    ('150', '24', '0.24')
    """
    return f"{float(f'{size / GB:.2g}'):g}"


def parameters(folder: Path) -> int:
    """The number of weights in a directory, from the heads of its files; of pickled ones, the shapes alone."""
    from math import prod

    import torch
    from safetensors import SafetensorError, safe_open

    count = 0
    for path in [] if any(folder.glob("*.safetensors")) else sorted(folder.glob("*.bin")):
        try:
            found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            tensors = [x for x in found.values() if isinstance(x, torch.Tensor)]
            count += sum({x.data_ptr(): x.numel() for x in tensors}.values())  # tied ones once
        except (OSError, RuntimeError, EOFError, ValueError, AttributeError, pickle.UnpicklingError):
            count += path.stat().st_size // 4  # an older format, or no weights: whoever opens it says so
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except (OSError, SafetensorError):
            continue  # whoever opens it says what is wrong
    return count


def estimate(
    folder: Path, setup: Setup, needs: Collection[str] = (), rows: int = 256, prompt: int = 128, max_tokens: int = 256
) -> Need:
    """What training the model in a directory takes; `needs` are the fields that the recipe asks for.

    `rows` responses of at most `max_tokens` tokens are drawn at once, to prompts of about `prompt` tokens.
    """
    count, shape = parameters(folder), _Shape.of(_config(folder))
    small = 2 if setup.dtype == "bfloat16" else 4
    # On the CPU a token is drawn for a few responses after the other, so there is one copy of their logits.
    drawn = shape.vocabulary * (4 * PICKED if setup.device.startswith("cuda") else small)
    trained = _adapted(shape, lora.parsed(setup.lora).r) if setup.lora else count
    at_once = setup.tokens_at_once if setup.device.startswith("cuda") else min(setup.tokens_at_once, NEAR)
    slots, token = min(rows, ROWS), shape.layers * shape.cached * small
    kept = power(slots) * width_for(prompt + max_tokens) * token + count * (2 if small < 4 and not setup.lora else 0)
    return Need(
        weights=count * (2 if setup.held_in() == "bfloat16" else 4),
        gradients=4 * trained,
        optimizer=(2 if setup.optimiser == "adamw_8bit" else 8) * trained,
        reference=(4 if setup.lora else 8) * trained,  # the start, and the model that is built from it
        critic=16 * count if {"value", "new_value"} & set(needs) else 0,
        passes=_passes(shape, setup, small, min(at_once, rows * (prompt + max_tokens))),
        cache=slots * ((prompt + max_tokens) * token * (not setup.graph) + drawn),
        graph=kept * setup.graph,
    )


def _config(folder: Path) -> dict[str, Any]:
    """What config.json says of the text model; nothing where it is spoiled: whoever opens it says how."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        return {}
    found = found if isinstance(found, dict) else {}
    inner = found.get("text_config")
    return {**found, **(inner if isinstance(inner, dict) else {})}


@dataclass(frozen=True)
class _Shape:
    """The sizes of a model that matter here; `cached` numbers are kept for each token and layer."""

    layers: int
    wide: int
    inner: int
    vocabulary: int
    cached: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> "_Shape":
        def first(*names: str, default: int) -> int:
            given = [config[name] for name in names if isinstance(config.get(name), int) and config[name] > 0]
            return given[0] if given else default

        wide = first("hidden_size", "n_embd", default=1024)
        heads = first("num_attention_heads", "n_head", default=16)
        keys = first("num_key_value_heads", default=heads) * first("head_dim", default=wide // heads)
        inner = first("intermediate_size", "n_inner", "moe_intermediate_size", default=4 * wide)
        inner *= first("num_experts_per_tok", default=1)
        layers = first("num_hidden_layers", "n_layer", default=12)
        return cls(layers, wide, inner, first("vocab_size", default=32000), 2 * keys)


def _adapted(shape: _Shape, r: int) -> int:
    """The weights of adapters of rank r on the seven linear layers of a block."""
    return shape.layers * r * (4 * 2 * shape.wide + 3 * (shape.wide + shape.inner))


def _passes(shape: _Shape, setup: Setup, small: int, tokens: int) -> float:
    """What the backward pass needs for a micro-batch: the layers of all its tokens, and the logits of a few."""
    layer = (KEPT_WIDE * shape.wide + KEPT_INNER * shape.inner) * small
    kept = shape.layers * shape.wide * small + layer if setup.recompute else shape.layers * layer
    return tokens * kept + HEAD * 4 * min(tokens * shape.vocabulary, max(ROOM // 4, shape.vocabulary))


# --- before starting --------------------------------------------------------------------------------------


def free(device: str) -> float:
    """Bytes that are free on a device; on the CPU, what the machine and the container leave."""
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.mem_get_info(device)[0])
    import psutil

    return min(float(psutil.virtual_memory().available), _container())


def _container() -> float:
    """What the control group of this process still allows; no bound where there is none."""
    folder = Path("/sys/fs/cgroup")
    try:
        bound = (folder / "memory.max").read_text().strip()
        return float(bound) - float((folder / "memory.current").read_text())
    except (OSError, ValueError):  # no control groups, or `max`
        return float("inf")


def refuse_if_short(path: str | Path, setup: Setup, room: float | None = None, **about: Any) -> Need:
    """The estimate; refused in one sentence, with what would fit, where it is more than there is."""
    folder = lora.base_of(Path(path)) if lora.is_adapter(Path(path)) else Path(path)
    need, room = estimate(folder, setup, **about), free(setup.device) if room is None else room
    if need.total <= room:
        return need
    fitting = [
        f"{words} ({_gb(found.total)} GB)"
        for words, smaller in _smaller(setup)
        if (found := estimate(folder, smaller, **about)).total <= room
    ]
    advice = f"would fit: {'; or '.join(fitting[:3])}" if fitting else "nothing here would fit: take a smaller model"
    raise Refused(
        f"this run needs about {_gb(need.total)} GB ({need.told()}), and {_gb(room)} GB are free on "
        f"{setup.device}; {advice}; --guard.memory=false begins all the same."
    )


def _smaller(setup: Setup) -> list[tuple[str, Setup]]:
    """Ways to need less, the least intrusive first."""
    fewer = replace(setup, tokens_at_once=min(setup.tokens_at_once, 512))
    again = replace(fewer, recompute=True)
    half = replace(again, dtype="bfloat16")
    adapters = replace(half, lora=setup.lora or "r=16")
    return [
        ("--tokens-at-once 512", fewer),
        ("--tokens-at-once 512 --recompute", again),
        ("--tokens-at-once 512 --recompute --dtype bfloat16", half),
        (f"--tokens-at-once 512 --recompute --dtype bfloat16 --lora {adapters.lora}", adapters),
    ]
