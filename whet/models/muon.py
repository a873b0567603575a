"""Muon (Jordan 2024): momentum whose matrix is made orthogonal, so that every direction moves as far.

    M ← μ M + G            W ← W - lr · 0.2 √max(rows, columns) · orthogonal(G + μ M)

Ours is in float32: torch.optim.Muon computes in bfloat16, which is slow on a CPU without it.
The factor 0.2 √max gives the update the size of AdamW's (Liu et al. 2025, 2502.16982, section 2.2).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: singular values end between about 0.7 and 1.2. [k rows columns]

    >>> orthogonal(torch.tensor([[[3.0, 0.0], [0.0, 0.1]]])).abs().round(decimals=0)
    tensor([[[1., 0.],
             [0., 1.]]])
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x  # Jordan's quintic iteration
    return x


class Muon(torch.optim.Optimizer):
    """For the matrices inside a network; embeddings, norms and biases belong to another optimiser."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update; matrices of the same shape are made orthogonal together."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                shapes.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in shapes.items():
                moved = orthogonal(torch.stack([self._momentum(matrix, group["momentum"]) for matrix in matrices]))
                for matrix, direction in zip(matrices, moved, strict=True):
                    matrix.sub_(direction, alpha=group["lr"] * 0.2 * max(shape) ** 0.5)

    def _momentum(self, matrix: Tensor, momentum: float) -> Tensor:
        """The gradient with momentum, one step ahead (Nesterov)."""
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        state["momentum"].mul_(momentum).add_(matrix.grad)
        return matrix.grad + momentum * state["momentum"]
