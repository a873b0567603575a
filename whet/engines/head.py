"""The head of a language model, a few positions at a time: numbers of the chosen tokens, and the way back.

    log π(y) = z_y - log Σ exp z        H = log Σ exp z - Σ p z        certainty = log Σ exp z - mean z
    ∂/∂z       e_y - p                    -p (z - Σ p z)                  p - 1/v

The logits z [k v] of a large vocabulary are most of the memory of a step. They are never all there: as many
positions as fit into `ROOM` are computed, used and, where the gradient wants them, kept; beyond that they are
computed again on the way back. Differentiating by hand lets the logits be overwritten in place, block by block in
the processor's cache, and adds the weight's gradient to what is there where autograd would make a new one each time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROOM = 2**25  # logits held at once, 128 MiB in float32: ours, about 220 tokens of a vocabulary of 151,936
BLOCK = 2**18  # logits in one elementwise pass, 1 MiB: ours, half of the second-level cache of today's servers
LOWEST = -1e30  # instead of the -inf of a forbidden token, since 0 · inf is no number

_linear: "WeakKeyDictionary[Any, bool]" = WeakKeyDictionary()


class Head:
    """What a causal LM does after its backbone, whatever the architecture (Gemma caps its logits, Cohere scales).

    It speaks at most at `rows` positions at once: `chunk`, or as many as fit into `ROOM`.
    """

    def __init__(self, model: Any, chunk: int | None = None) -> None:
        self.model, self.last = model, model.get_output_embeddings()
        self.rows = chunk or max(ROOM // self.last.weight.shape[0], 1)
        if model not in _linear:
            _linear[model] = self._is_linear()
        self.linear = _linear[model]

    def logits(self, hidden: Float[Tensor, "k d"]) -> Float[Tensor, "k v"]:
        """The logits at these positions, in float32; carries gradient."""
        if self.linear:
            return self.last(hidden).float()
        with _saying(self.model, hidden):
            return self.model(input_ids=hidden.new_zeros(1, 1, dtype=torch.long), use_cache=False).logits[0].float()

    def _is_linear(self) -> bool:
        """Whether the logits are the plain product of hidden states and weights: found by trying it on large ones."""
        if type(self.last) is not torch.nn.Linear:
            return False
        weight = self.last.weight
        with torch.no_grad():
            hidden = 100 * torch.randn(3, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
            with _saying(self.model, hidden):
                told = self.model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=weight.device), use_cache=False)
            return torch.equal(told.logits[0], self.last(hidden[None])[0])


class Numbers:
    """`logp`, and where asked for `entropy`, `certainty` and `collision`, [k] in float32, at k positions of a head.

    `back` takes the derivative of a loss by each of them, adds to the gradients of the head's weights, and returns
    the derivative by the hidden states.
    """

    def __init__(
        self,
        head: Head,
        hidden: Float[Tensor, "k d"],
        targets: Int[Tensor, "k"],
        temperature: Float[Tensor, "k"],
        also: tuple[str, ...] = (),
        differentiable: bool = False,
    ) -> None:
        self.head, self.hidden, self.targets = head, hidden.detach(), targets
        self.temperature = None if bool((temperature == 1).all()) else temperature
        self.keeps = differentiable and len(targets) <= head.rows
        self.kept: list[Piece] = []
        pieces = [slice(start, start + head.rows) for start in range(0, max(len(targets), 1), head.rows)]
        self.pieces = pieces
        columns = [self._ahead(piece, also) for piece in pieces]
        self.found = {name: torch.cat([column[name] for column in columns]) for name in columns[0]}

    def __getitem__(self, name: str) -> Float[Tensor, "k"]:
        return self.found[name]

    def _ahead(self, piece: slice, also: tuple[str, ...]) -> dict[str, Tensor]:
        with torch.set_grad_enabled(self.keeps):
            spoken = Piece(self.head, self.hidden[piece], self._heat(piece))
        if self.keeps:
            self.kept.append(spoken)
        with torch.no_grad():
            blocks = [_of_logits(z, y, also) for z, y in _blocks(spoken.logits, self.targets[piece])]
            return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}

    def back(self, by: dict[str, Float[Tensor, "k"]]) -> Float[Tensor, "k d"]:
        """The derivative by the hidden states, from those by `logp`, `entropy` and `certainty`; once only."""
        found = []
        for piece in self.pieces:
            with torch.enable_grad():
                spoken = self.kept.pop() if self.keeps else Piece(self.head, self.hidden[piece], self._heat(piece))
            with torch.no_grad():
                self._by_logits(spoken.logits, piece, by)
                found.append(spoken.by_hidden(self._heat(piece)))
        return torch.cat(found)

    def _heat(self, piece: slice) -> Tensor | None:
        return None if self.temperature is None else self.temperature[piece, None]

    def _by_logits(self, logits: Tensor, piece: slice, by: dict[str, Tensor]) -> None:
        """Overwrite the logits with the derivative by them."""
        zero = torch.zeros_like(self["logp"])
        given = [by.get(name, zero) for name in ("logp", "entropy", "certainty")]
        columns = [x[piece] for x in (self.targets, self["total"], self["mean"], *given)]
        for z, target, total, mean, logp, entropy, certainty in _blocks(logits, *columns):
            slope = (certainty - logp)[:, None]
            if "entropy" in by:
                slope = (mean[:, None] - z.clamp_(min=LOWEST)).mul_(entropy[:, None]).add_(slope)
            z.sub_(total[:, None]).exp_().mul_(slope)
            z.scatter_add_(1, target[:, None], logp[:, None])
            if "certainty" in by:
                z.sub_(certainty[:, None] / z.shape[1])


class Piece:
    """The logits at some positions, divided by the temperature, which their owner may overwrite; and the way back."""

    def __init__(self, head: Head, hidden: Tensor, temperature: Tensor | None) -> None:
        self.head, self.hidden = head, hidden
        if head.linear:
            with torch.no_grad():
                self.logits = head.logits(hidden)
        else:
            self.hidden = hidden.clone().requires_grad_(torch.is_grad_enabled())
            self.whole = head.logits(self.hidden)  # its graph leads to whatever weights there are
            self.logits = self.whole.detach().clone()
        if temperature is not None:
            self.logits.div_(temperature)

    def by_hidden(self, temperature: Tensor | None) -> Tensor:
        """Carry the derivative by the logits, which is what they now hold, to hidden states and weights."""
        if temperature is not None:
            self.logits.div_(temperature)
        if not self.head.linear:
            torch.autograd.backward(self.whole, self.logits)
            assert self.hidden.grad is not None
            return self.hidden.grad
        weight, bias = self.head.last.weight, self.head.last.bias
        if weight.requires_grad:
            _add_product(_gradient_of(weight), self.logits.T, self.hidden)
        if bias is not None and bias.requires_grad:
            _gradient_of(bias).add_(self.logits.sum(0))
        return self.logits.to(weight.dtype) @ weight  # frozen weights may be in bfloat16


def _of_logits(z: Float[Tensor, "k v"], target: Int[Tensor, "k"], also: tuple[str, ...]) -> dict[str, Tensor]:
    """The numbers of one block of logits, and `total` and `mean`, log Σ exp z and Σ p z, for the way back."""
    most = z.amax(1, keepdim=True)
    z = (z - most).clamp_(min=LOWEST)
    p = z.exp()
    weight = p.sum(1)
    rest = weight.log()
    collision = {"collision": (p / weight[:, None]).square_().sum(1)} if "collision" in also else {}
    found = {"total": most[:, 0] + rest, "logp": z.gather(1, target[:, None])[:, 0] - rest, **collision}
    mean = p.mul_(z).sum(1) / weight if "entropy" in also else torch.zeros_like(rest)
    found["mean"] = most[:, 0] + mean
    if "entropy" in also:
        found["entropy"] = rest - mean
    if "certainty" in also:
        found["certainty"] = rest - z.mean(1)
    return found


def _add_product(gradient: Tensor, one: Tensor, other: Tensor) -> None:
    """Add a matrix product in place; under autocast the product is made in its number format first."""
    if torch.is_autocast_enabled(gradient.device.type):
        gradient.add_(one @ other)
    else:
        gradient.addmm_(one, other)


def _blocks(logits: Tensor, *columns: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of the logits and of some columns, so few that they stay in the cache."""
    rows = max(BLOCK // max(logits.shape[1], 1), 1)
    return zip(logits.split(rows), *(column.split(rows) for column in columns), strict=True)


def _gradient_of(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


class _Said:
    """What a backbone returns, as far as a head looks at it."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden[None]

    def __getitem__(self, place: int) -> Any:
        return self.last_hidden_state if place == 0 else None

    def __getattr__(self, name: str) -> None:
        return None


@contextmanager
def _saying(model: Any, hidden: Tensor) -> Iterator[None]:
    """Inside, the model's backbone says these hidden states, so that calling the model is calling its head."""
    backbone = model.base_model
    backbone.forward = lambda *_, **__: _Said(hidden)
    try:
        yield
    finally:
        del backbone.forward
