"""How a model is held and asked: its device and numbers, which of its weights are trained, and its chat."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from whet.refusal import Refused

ASKED = ("dtype", "system", "thinking", "trust_remote_code", "allow_pickle")  # what a trained model is opened with


@dataclass(frozen=True)
class Setup:
    """The choices that change no recipe. What is typed on the command line, as it was typed.

    `lora` is like `r=16,alpha=32,targets=q_proj|v_proj`; empty trains all weights. `freeze` holds patterns of
    parameter names, such as `*embed*,*.layers.0.*`. `recompute` trades time for memory in the backward pass.
    `tokens_at_once` is the size of a micro-batch, padding included: the gradient is the same, the memory is not.
    `optimiser` is adamw or adamw_8bit, whose moments take a quarter of the memory.
    `graph` records the steps of the sampler on a GPU: the same responses, not measured there yet.
    `system` is the system message of every chat; `thinking` is on or off for templates that know `enable_thinking`.
    `trust_remote_code` runs the Python files of a model directory where it has an architecture of its own, and
    `allow_pickle` opens its pytorch_model.bin where it has no safetensors: both can do anything that the user can.
    """

    device: str = "cpu"
    dtype: str = "float32"
    lora: str = ""
    freeze: str = ""
    recompute: bool = False
    system: str = ""
    thinking: str = ""
    tokens_at_once: int = 16384
    trust_remote_code: bool = False
    allow_pickle: bool = False
    optimiser: str = "adamw"
    graph: bool = False

    def __post_init__(self) -> None:
        if self.thinking not in ("", "on", "off"):
            raise Refused(f"--thinking is on or off, so it cannot be {self.thinking!r}.")

    def held_in(self) -> str:
        """The numbers that the weights are kept in: bfloat16 is enough for those that never change."""
        return self.dtype if self.lora else "float32"

    def asked_only(self) -> "Setup":
        """The same prompts, for a model that is no longer trained: its adapters are merged when it is opened."""
        return replace(Setup(), **{name: getattr(self, name) for name in ASKED})

    def applied(self, model: Any) -> Any:
        """Freeze, adapt and prepare the model in place; returns its PEFT wrapper, or None for full fine-tuning."""
        adapters = None
        if self.lora:
            from whet.models import lora

            adapters = lora.attach(model, lora.parsed(self.lora))
        if self.freeze:
            freeze(model, self.freeze)
        if self.recompute:
            prepare(model)
        return adapters


def freeze(model: Any, patterns: str) -> None:
    """No gradient for the parameters whose names match one of the comma-separated patterns."""
    wanted = [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]
    named = {name: x for name, x in model.named_parameters() if x.requires_grad}
    for pattern in wanted:
        matched = [name for name in named if fnmatchcase(name, pattern)]
        if not matched:
            raise Refused(f"--freeze {pattern!r} matches no trained weight; their names are like {_some(list(named))}.")
        for name in matched:
            named[name].requires_grad_(False)
    if not any(x.requires_grad for x in named.values()):
        raise Refused(f"--freeze {patterns!r} leaves nothing to train: freeze less.")


def _some(names: list[str]) -> str:
    return ", ".join([*names[:2], *names[len(names) // 2 : len(names) // 2 + 2], *names[-1:]])


# --- recomputing ------------------------------------------------------------------------------------------


def prepare(model: Any) -> None:
    """Make the layers able to recompute themselves in the backward pass, with dropout off as everywhere."""
    if not model.supports_gradient_checkpointing:
        raise Refused(f"{type(model).__name__} cannot recompute its layers: leave --recompute out.")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in _layers(model):
        for name, value in vars(layer).items():
            if "dropout" in name and isinstance(value, float):
                setattr(layer, name, 0.0)


def recomputing(model: Any) -> AbstractContextManager[None]:
    """Inside, a model that was prepared keeps only the input of each layer for the backward pass."""
    return _recomputing(model) if getattr(model, "is_gradient_checkpointing", False) else nullcontext()


@contextmanager
def _recomputing(model: Any) -> Iterator[None]:
    # transformers recomputes only what is in training mode; the modules inside a layer stay in evaluation mode.
    layers = _layers(model)
    try:
        for layer in layers:
            layer.training = True
        yield
    finally:
        for layer in layers:
            layer.training = False


def _layers(model: Any) -> list[Any]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
