"""The head of a language model, a few positions at a time: numbers of the chosen tokens, and the way back.

    log π(y) = z_y - log Σ exp z        H = log Σ exp z - Σ p z        certainty = log Σ exp z - mean z
    ∂/∂z       e_y - p                    -p (log p + H)                  p - 1/v

The logits z [k v] of a large vocabulary are most of the memory of a step. They are never all there: as many
positions as fit into `ROOM` are computed, become p - e_y in their own place, and wait there for the way back where
the gradient wants them. So the gradient of log π needs no further pass over them: what a position counts scales its
hidden state instead. Room that was used is used again, since fresh memory costs more than writing to it.

Products of bfloat16 factors are added up in float32, but torch rounds what comes out. It is therefore the difference
to the chosen token's logit that is computed and rounded, [k v] + (-z_y): near the tokens that matter it is small. The
chosen token's own logit is computed in float32, as are all sums, exponentials and gradients of weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whet.engines.precision import of_products

ROOM = 160 * 2**20  # bytes of logits held at once: ours, 276 tokens of a vocabulary of 151,936 in float32
BLOCK = 2**18  # logits in one elementwise pass of a thread, 1 MiB: ours, the second-level cache of today's servers
AT_ONCE = 2**21  # numbers of a weight's gradient in one product, where it has to be copied: ours, as measured
LOWEST = -1e30  # instead of the -inf of a forbidden token, since 0 · inf is no number

_linear: "WeakKeyDictionary[Any, bool]" = WeakKeyDictionary()


class Head:
    """What a causal LM does after its backbone, whatever the architecture (Gemma caps its logits, Cohere scales).

    It speaks at most at `rows` positions at once: `chunk`, or as many as fit into `ROOM`. Made for one update: it
    keeps the weight in the format of matrix products, and the room of logits that are no longer needed.
    """

    def __init__(self, model: Any, chunk: int | None = None) -> None:
        self.model, self.last = model, model.get_output_embeddings()
        weight = self.last.weight
        self.format = of_products(weight)
        self.rows = chunk or max(ROOM // (weight.shape[0] * self.format.itemsize), 1)
        if model not in _linear:
            _linear[model] = self._is_linear()
        self.linear = _linear[model]
        self.weight = weight.detach().to(self.format)
        self.free: list[Tensor] = []

    def logits(self, hidden: Float[Tensor, "k d"]) -> Float[Tensor, "k v"]:
        """The logits at these positions, in float32; carries gradient."""
        if self.linear:
            return self.last(hidden).float()
        with _saying(self.model, hidden):
            return self.model(input_ids=hidden.new_zeros(1, 1, dtype=torch.long), use_cache=False).logits[0].float()

    def room(self, rows: int) -> Tensor:
        """Memory for so many rows of logits, whatever it holds."""
        while self.free:
            if len(found := self.free.pop()) >= rows:
                return found
        return torch.empty(rows, len(self.weight), dtype=self.format, device=self.weight.device)

    def _is_linear(self) -> bool:
        """Whether the logits are the plain product of hidden states and weights: found by trying it on large ones."""
        if type(self.last) is not torch.nn.Linear:
            return False
        weight = self.last.weight
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
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
        self.pieces = [slice(start, start + head.rows) for start in range(0, max(len(targets), 1), head.rows)]
        columns = [self._ahead(piece, also) for piece in self.pieces]
        self.found = {name: torch.cat([column[name] for column in columns]) for name in columns[0]}

    def __getitem__(self, name: str) -> Float[Tensor, "k"]:
        return self.found[name]

    def _ahead(self, piece: slice, also: tuple[str, ...]) -> dict[str, Tensor]:
        spoken = self._piece(piece, also, self.keeps)
        if self.keeps:
            self.kept.append(spoken)
        else:
            spoken.done()
        return spoken.found

    def back(self, by: dict[str, Float[Tensor, "k"]]) -> Float[Tensor, "k d"]:
        """The derivative by the hidden states, from those by `logp`, `entropy` and `certainty`; once only."""
        found = []
        for piece in self.pieces:
            also = ("entropy",) if "entropy" in by else ()
            spoken = self.kept.pop() if self.keeps else self._piece(piece, also, differentiable=True)
            with torch.no_grad(), torch.autocast(self.hidden.device.type, enabled=False):
                found.append(spoken.back({name: x[piece] for name, x in by.items()}))
            spoken.done()
        return torch.cat(found)

    def _piece(self, piece: slice, also: tuple[str, ...], differentiable: bool) -> "Piece":
        heat = None if self.temperature is None else self.temperature[piece, None]
        kind = Linear if self.head.linear else Curved
        with torch.set_grad_enabled(differentiable):
            return kind(self.head, self.hidden[piece], self.targets[piece], heat, also)


class Piece:
    """Some positions. `turned` holds total · (p - e_y) in place of the logits over temperature; `total` is near 1."""

    turned: Tensor

    def __init__(self, head: Head, hidden: Tensor, targets: Tensor, heat: Tensor | None, also: tuple[str, ...]) -> None:
        self.head, self.hidden, self.targets, self.heat = head, hidden, targets, heat
        own = self._speak()
        with torch.no_grad():
            columns = [targets[:, None], *([] if own is None else [own])]
            blocks = [_turned(z, also, *more) for z, *more in _blocks(self.turned, *columns)]
            self.found = {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
        self.total = self.found.pop("total")[:, None]

    def _speak(self) -> Tensor | None:
        """Put the logits over temperature into `turned`; returns those of the targets, [k 1], where better known."""
        raise NotImplementedError

    def back(self, by: dict[str, Tensor]) -> Tensor:
        """The derivative by the hidden states; adds to the gradients of the weights."""
        raise NotImplementedError

    def done(self) -> None:
        """Nobody will look at what is held any more."""

    def _by_logits(self, by: dict[str, Tensor]) -> Tensor:
        """Make `turned` the derivative by the logits, up to a factor [k 1] that is returned."""
        zero = torch.zeros_like(self.total[:, 0])
        logp, entropy, certainty = (by.get(name, zero)[:, None] for name in ("logp", "entropy", "certainty"))
        if by.keys() <= {"logp"}:
            return -logp / self.total
        of = [self.found["logp"], self.found.get("entropy", zero)]
        more = (self.targets, self.total[:, 0], *of)
        columns = [x[:, None] for x in more] + [logp, entropy, certainty]
        for z, target, total, own, spread, push, by_entropy, by_certainty in _blocks(self.turned, *columns):
            p = (z.float().scatter_(1, target, own.exp() * total) / total).clamp_(min=torch.finfo(torch.float32).tiny)
            slope = by_certainty - push
            if "entropy" in by:
                slope = slope - (p.log() + spread) * by_entropy
            z.copy_(p.mul_(slope).scatter_add_(1, target, push).sub_(by_certainty / z.shape[1]))
        return torch.ones_like(self.total)


class Linear(Piece):
    """Where the logits are the product of hidden states and weights."""

    def _speak(self) -> Tensor | None:
        head, bias = self.head, self.head.last.bias
        self.factors = (self.hidden if self.heat is None else self.hidden / self.heat).to(head.format)
        self.place = head.room(len(self.hidden))
        self.turned = self.place[: len(self.hidden)]
        with torch.no_grad(), torch.autocast(self.hidden.device.type, enabled=False):
            start = None if bias is None else bias.float() if self.heat is None else bias.float() / self.heat
            if head.format is torch.float32:
                _product(self.factors, head.weight, start, self.turned)
                return None
            own = (self.factors.float() * head.weight[self.targets].float()).sum(1, keepdim=True)
            if bias is not None:
                own += bias[self.targets, None].float() / (1.0 if self.heat is None else self.heat)
            origin = own.to(head.format).float()
            _product(self.factors, head.weight, -origin if start is None else start - origin, self.turned)
            return own - origin

    def back(self, by: dict[str, Tensor]) -> Tensor:
        """The derivative by the hidden states; adds to the gradients of the weights."""
        head, factor = self.head, self._by_logits(by)
        weight, bias = head.last.weight, head.last.bias
        if weight.requires_grad:
            _add_product(_gradient_of(weight), self.turned, (self.factors * factor).to(head.format))
        factor = factor if self.heat is None else factor / self.heat
        if bias is not None and bias.requires_grad:
            _gradient_of(bias).add_((self.turned * factor).sum(0))
        return (self.turned @ head.weight).float() * factor

    def done(self) -> None:
        """Others may use the room."""
        self.head.free.append(self.place)


class Curved(Piece):
    """Where a head does something to its logits: autograd knows the way back."""

    def _speak(self) -> Tensor | None:
        self.inside = self.hidden.clone().requires_grad_(torch.is_grad_enabled())
        self.whole = self.head.logits(self.inside)  # its graph leads to whatever weights there are
        self.whole = self.whole if self.heat is None else self.whole / self.heat
        self.turned = self.whole.detach().clone()
        return None

    def back(self, by: dict[str, Tensor]) -> Tensor:
        """The derivative by the hidden states; adds to the gradients of the weights."""
        self.turned.mul_(self._by_logits(by))
        torch.autograd.backward(self.whole, self.turned)
        assert self.inside.grad is not None
        return self.inside.grad


def _turned(
    z: Float[Tensor, "k v"], also: tuple[str, ...], target: Int[Tensor, "k 1"], own: Float[Tensor, "k 1"] | None = None
) -> dict[str, Tensor]:
    """The numbers of one block of logits, which become `total` · (p - e_y); `own` are those of the targets."""
    x = z.float()
    if own is not None:
        x.scatter_(1, target, own)
    most = x.amax(1, keepdim=True)
    chosen = (x.gather(1, target) - most).clamp_(min=LOWEST)[:, 0]
    p = x.sub_(most).clamp_(min=LOWEST).softmax(1) if also else torch.softmax(x, 1, out=x)
    total = p.sum(1)  # torch's softmax leaves out up to 2.5e-5 of it at 151,936 tokens
    rest = total.log() - p.amax(1).log()  # log Σ exp of the logits less the largest
    found = {"logp": chosen - rest, "total": total}
    if "collision" in also:
        found["collision"] = (p / total[:, None]).square_().sum(1)
    if "entropy" in also:
        found["entropy"] = rest - (p * x).sum(1) / total
    if "certainty" in also:
        found["certainty"] = rest - x.mean(1)
    p.scatter_add_(1, target, -total[:, None])
    if p.data_ptr() != z.data_ptr():
        z.copy_(p)
    return found


def _product(one: Tensor, other: Tensor, start: Tensor | None, into: Tensor) -> None:
    """one @ other.T + start, in place."""
    if start is None:
        torch.mm(one, other.T, out=into)
    else:
        into.copy_(start.expand_as(into)).addmm_(one, other.T)


def _add_product(gradient: Float[Tensor, "v d"], one: Float[Tensor, "k v"], other: Float[Tensor, "k d"]) -> None:
    """Add one.T @ other; where it is rounded when it is made, some of it at a time, in the cache."""
    if one.dtype is gradient.dtype:
        gradient.addmm_(one.T, other)
        return
    rows = max(AT_ONCE // gradient.shape[1], 1)
    for part, mine in zip(gradient.split(rows), one.split(rows, 1), strict=True):
        part.add_(mine.T @ other)


def _blocks(logits: Tensor, *columns: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of the logits and of some columns, so few that they stay in the cache."""
    cpu = logits.device.type == "cpu"
    rows = max(BLOCK // max(logits.shape[1], 1), 1) * (torch.get_num_threads() if cpu else 64)
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
