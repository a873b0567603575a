"""Recording a step that always reads and writes the same places, and the weights that it reads there."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

REHEARSALS = 2  # of a step before it is recorded, in which libraries set up what they need; ours
Step = Callable[[], Any]


def recorder(device: torch.device) -> Callable[[Step], Step]:
    """What makes one launch of a step on a GPU; elsewhere the step stays as it is.

    A step is rehearsed on a stream beside. Graphs of one recorder share memory for what lives within a step, so none
    may run beside another.
    """
    if device.type != "cuda":
        return lambda step: step
    pool = torch.cuda.graph_pool_handle()

    def record(step: Step) -> Step:
        beside, here = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            for _ in range(REHEARSALS):
                step()
        here.wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile: a judge's, say.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            step()
        return graph.replay

    return record


def addresses(model: Any) -> tuple[int, ...]:
    """Where weights and buffers of a model are: a graph reads there, whatever is written there by then."""
    return tuple(x.data_ptr() for x in (*model.parameters(), *model.buffers()))


def waits(model: Any) -> bool:
    """Whether a model is known to ask the host in each step: rotary positions that change with the longest one."""
    kinds = " ".join(str(getattr(module, "rope_type", "")) for module in model.modules())
    return "dynamic" in kinds or "longrope" in kinds


class Rounded:
    """A model whose linear weights are rounded once, where autocast would round them in every recorded step: a view."""

    def __init__(self, model: Any) -> None:
        self.model, self.config, kind = model, model.config, model.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        linear = [(name, x) for name, x in model.named_modules() if isinstance(x, torch.nn.Linear | Conv1D)]
        self.exact: dict[str, Tensor] = {
            f"{name}.{part}": x.detach()
            for name, module in linear
            for part, x in module.named_parameters(recurse=False)
            if dtype and x.dtype != dtype
        }
        self.rounded = {name: x.to(dtype, copy=True) for name, x in self.exact.items()}

    def refresh(self) -> None:
        """Round the weights as they are now."""
        for name, x in self.exact.items():
            self.rounded[name].copy_(x)

    def __call__(self, **asked: Any) -> Any:
        """The forward pass. Where an embedding is the head as well, only the head is rounded, as by autocast."""
        if not self.rounded:
            return self.model(**asked)
        return functional_call(self.model, self.rounded, (), asked, tie_weights=False)
