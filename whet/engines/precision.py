"""The number format of matrix products, and the limits within which sampler and learner must agree.

Weights are float32 always, and so are their gradients and the optimiser. In bfloat16 the factors of matrix products
are rounded (torch's autocast), each product is added up in float32, and its result is rounded; what follows the
backbone is told in `head`: softmax and log-probabilities are float32. Whether a processor is fast in it is measured.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor

from whet.refusal import Refused

KNOWN = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Nats, at most over all tokens of a batch. 16 architectures with random weights gave less than 1e-5 and 0.10.
GAP = {torch.float32: 1e-5, torch.bfloat16: 0.2}
FASTER = 1.2  # ours: with less to gain, the digits are worth more


def checked(dtype: str, device: torch.device) -> torch.dtype:
    """The format by its name, if it is known and this device is fast in it."""
    if dtype not in KNOWN:
        raise Refused(f"dtype {dtype!r} is not known: it is float32 or bfloat16.")
    if dtype == "bfloat16" and device.type == "cpu" and (gain := speedup()) < FASTER:
        raise Refused(
            f"this processor multiplies bfloat16 matrices at {gain:.1f} times its speed in float32, which does not pay "
            f"(less than {FASTER}): take the dtype float32."
        )
    return KNOWN[dtype]


def computing(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """Inside, matrix products are computed in this format, forward and backward.

    Weights are rounded once in the outermost of nested ones, so a change of weights belongs outside.
    """
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype=dtype)


def unremembered(device: torch.device) -> AbstractContextManager[None]:
    """Inside, the format stays, and no rounded weight is kept for later: a recorded step would find another there."""
    kind = device.type
    on, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return torch.autocast(kind, dtype=dtype, enabled=on, cache_enabled=False)


def of_products(weight: Tensor) -> torch.dtype:
    """The format that a weight has in matrix products here and now."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


@cache
def speedup(size: int = 512, times: int = 7) -> float:
    """How much faster bfloat16 products are than float32 ones on this processor; measured once, in milliseconds."""
    seconds: dict[torch.dtype, float] = {}
    pairs = {dtype: torch.ones(2, size, size, dtype=dtype) for dtype in KNOWN.values()}
    for _ in range(times):  # in turn, so that other work on the machine meets both
        for dtype, (a, b) in pairs.items():
            began = time.perf_counter()
            _ = a @ b
            seconds[dtype] = min(time.perf_counter() - began, seconds.get(dtype, float("inf")))
    return seconds[torch.float32] / seconds[torch.bfloat16]
