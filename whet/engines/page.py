"""What is written: responses as tensors, and how one more token of each that runs gets there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whet.batch import Batch
from whet.engines.pick import Drawing, pick
from whet.engines.reading import products


@dataclass
class Drawn:
    """n responses in at most m tokens, padded on the right."""

    tokens: Int[Tensor, "n m"]
    logp: Float[Tensor, "n m"]
    entropy: Float[Tensor, "n m"]
    length: Int[Tensor, "n"]
    finished: Bool[Tensor, "n"]
    knows_entropy: bool = True


# Told rows, their tokens [r m] and lengths [r], once, when some responses have ended and others have not.
Ended = Callable[[list[int], Tensor, Tensor], None]


class Page:
    """What is written: n responses of at most m tokens, and how the next token of each is chosen."""

    def __init__(self, model: Any, uniform: Float[Tensor, "n m"], how: Drawing, ended: Ended | None = None) -> None:
        self.uniform, self.how, self.device, self.ended = uniform.to(model.device), how, model.device, ended
        self.stop = torch.tensor(how.stop, device=self.device, dtype=torch.long)
        self.weights = products(model)
        # One column more than responses can have: where those that have ended write until they are dropped.
        self.out = empty(len(uniform), how.max_tokens + 1, how.padding, self.device)

    def opened(self, rows: Sequence[int], position: Int[Tensor, "r"]) -> "Front":
        """These responses, of which nothing is written yet."""
        zero = torch.zeros_like(position)
        row = torch.tensor(rows, device=self.device, dtype=torch.long)
        return Front(row, zero, zero, position, torch.ones_like(row, dtype=torch.bool))

    def write(self, front: "Front", logits: Float[Tensor, "r v"]) -> "Front":
        """One more token of each response in front; those that end with it stop running."""
        out, row, last = self.out, front.row, self.how.max_tokens - 1
        token, logp, entropy = pick(logits, self.uniform[row, front.written.clamp(max=last)], self.how)
        at = torch.where(front.running, front.written, last + 1)
        out.tokens[row, at], out.logp[row, at], out.entropy[row, at] = token, logp, entropy
        out.length[row] += front.running
        ended = front.running & (token[:, None] == self.stop).any(1)
        out.finished[row] |= ended
        running = front.running & ~ended & (front.written < last)
        return Front(row, token, front.written + front.running, front.position, running)

    def left(self, front: "Front") -> None:
        """Those in front that do not run leave: whoever wants to know is told what they say."""
        row = front.row[~front.running]
        if self.ended and len(row):
            self.ended(row.tolist(), self.out.tokens[row, : self.how.max_tokens].cpu(), self.out.length[row].cpu())

    def whole(self) -> Drawn:
        """All responses; nothing was written behind their ends."""
        out, m = self.out, self.how.max_tokens
        tokens, logp, entropy = (x[:, :m].cpu() for x in (out.tokens, out.logp, out.entropy))
        return Drawn(tokens, logp, entropy, out.length.cpu(), out.finished.cpu())


@dataclass
class Front:
    """r responses that are being written: their rows, last tokens, tokens so far, and where the last one stands."""

    row: Int[Tensor, "r"]
    token: Int[Tensor, "r"]
    written: Int[Tensor, "r"]
    position: Int[Tensor, "r"]
    running: Bool[Tensor, "r"]

    def __len__(self) -> int:
        return len(self.row)

    def kept(self, index: Int[Tensor, "k"] | slice) -> "Front":
        """Some of them."""
        return Front(*(x[index] for x in vars(self).values()))

    def beside(self, other: "Front") -> "Front":
        """Both together."""
        return Front(*(torch.cat(both) for both in zip(vars(self).values(), vars(other).values(), strict=True)))

    def moved(self) -> "Front":
        """With the next position."""
        return replace(self, position=self.position + 1)


def lengthened(batch: Batch, rows: Int[Tensor, "r"], more: Drawn) -> Batch:
    """The batch with more tokens behind some of its responses; they are of age 0."""
    before = batch["length"][rows]
    length = batch["length"].index_add(0, rows, more.length)
    width = int(length.max())
    counts = torch.arange(more.tokens.shape[1]) < more.length[:, None]
    row, column = counts.nonzero(as_tuple=True)
    fields = {}
    for name, new in (("tokens", more.tokens), ("sampled_logp", more.logp), ("sampled_entropy", more.entropy)):
        wide = torch.nn.functional.pad(batch[name], (0, width - batch[name].shape[1]))
        fields[name] = wide.index_put((rows[row], before[row] + column), new[row, column])
    return batch.having(
        **fields,
        length=length,
        mask=torch.arange(width) < length[:, None],
        finished=batch["finished"].index_put((rows,), more.finished),
        age=torch.nn.functional.pad(batch["age"], (0, width - batch["age"].shape[1])),
    )


def empty(rows: int, tokens: int, padding: int, device: Any) -> Drawn:
    """Room for so many responses of so many tokens."""
    return Drawn(
        tokens=torch.full((rows, tokens), padding, device=device),
        logp=torch.zeros(rows, tokens, device=device),
        entropy=torch.zeros(rows, tokens, device=device),
        length=torch.zeros(rows, dtype=torch.long, device=device),
        finished=torch.zeros(rows, dtype=torch.bool, device=device),
    )
