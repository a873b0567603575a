"""The number format of matrix products, and the limits within which sampler and learner must agree.

Weights are float32 always. In bfloat16 a GPU computes under autocast. A processor rounds only the factors of each
product to bfloat16 and adds up in float32, so that logits and log-probabilities keep their digits; that is fast
where the processor has instructions for it (AMX, AVX512-BF16) and refused where it has none.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from whet.refusal import Refused

KNOWN = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Nats, at most over all tokens of a batch. Six architectures with random weights gave less than 1e-5 and 0.11.
GAP = {torch.float32: 1e-5, torch.bfloat16: 0.2}


def checked(dtype: str, device: torch.device) -> torch.dtype:
    """The format by its name, if it is known and this device is fast in it."""
    if dtype not in KNOWN:
        raise Refused(f"dtype {dtype!r} is not known: it is float32 or bfloat16.")
    if dtype == "bfloat16" and device.type == "cpu" and not _processor_has_bfloat16():
        raise Refused("this processor has no instructions for bfloat16 (AMX or AVX512-BF16): take the dtype float32.")
    return KNOWN[dtype]


def computing(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """Inside, matrix products are computed in this format, forward and backward."""
    if dtype is torch.float32:
        return nullcontext()
    return _rounded_factors() if device.type == "cpu" else torch.autocast(device.type, dtype=dtype)


def _processor_has_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def _rounded_factors() -> Iterator[None]:
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
