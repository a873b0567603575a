"""AdamW, its two moments in float32 or, by bitsandbytes, in 8 bits: a quarter of their memory.

The 8 bits are a block's place on a scale of its own (Dettmers et al. 2021, 2110.02861); weights of less than 4096
numbers keep float32. The weights themselves are float32 either way.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from whet.refusal import Refused

BETAS = (0.9, 0.999)


def made(name: str, parameters: Sequence[Tensor], lr: float) -> torch.optim.Optimizer:
    """The optimiser by its name, without weight decay."""
    how: dict[str, Any] = {"lr": lr, "betas": BETAS, "weight_decay": 0.0}
    if name == "adamw":
        on_cpu = all(x.device.type == "cpu" for x in parameters)
        return torch.optim.AdamW(parameters, **how, fused=on_cpu or None)  # an eighth of the time; equal to 1e-6
    if name == "adamw_8bit":
        return _eight_bits()(parameters, **how)
    raise Refused(f"there is no optimiser {name!r}: it is adamw or adamw_8bit.")


def _eight_bits() -> Any:
    said = logging.getLogger("bitsandbytes")
    before = said.level
    said.setLevel(logging.ERROR)  # on a processor it warns of kernels for something else
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise Refused(
            "the optimiser adamw_8bit needs bitsandbytes: run pip install 'whet[8bit]', or take adamw."
        ) from None
    finally:
        said.setLevel(before)
    return AdamW8bit


def count(optimizer: torch.optim.Optimizer, step: Tensor) -> Any:
    """How many steps were taken, as this optimiser keeps it: torch on the CPU whatever the device of the weights."""
    return step.clone() if isinstance(optimizer, torch.optim.AdamW) else int(step)
