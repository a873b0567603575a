"""A forward pass over some rows of a batch: what the model says of each response token that counts.

Sequences are padded on the right and carry no attention mask: a causal model cannot look to the right, so the
padding is invisible, and the same sequence has the same numbers in any company.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from whet.batch import Batch
from whet.draw import generator
from whet.engines.head import Head, Numbers

PIECE = 64  # tokens that one more forward pass costs, beside its own: ours, measured with the shipped base
STEPS = 128  # lengths told apart when pieces are cut


@dataclass(frozen=True)
class Rows:
    """Rows of a batch laid out for one forward pass: b rows, s input tokens, t response tokens, k that count.

    Row i is a prompt up to `prompt[i]` and its response up to `end[i]`; `where` is True at the positions that
    predict the `targets`.
    """

    index: Int[Tensor, "b"]
    ids: Int[Tensor, "b s"]
    prompt: Int[Tensor, "b"]
    end: Int[Tensor, "b"]
    where: Bool[Tensor, "b s"]
    mask: Bool[Tensor, "b t"]
    targets: Int[Tensor, "k"]
    temperature: Float[Tensor, "k"]

    def spread(self, x: Float[Tensor, "k"]) -> Float[Tensor, "b t"]:
        """A number for each token that counts, in its place; 0 elsewhere. Carries gradient."""
        return x.new_zeros(self.mask.shape).masked_scatter(self.mask, x)

    def parts(self, tokens: int) -> Iterator[tuple["Rows", slice]]:
        """These rows in runs of at most so many tokens that count, one row at least; and which of the k they have."""
        counts = self.mask.sum(1).tolist()
        begin = at = 0
        while begin < len(counts):
            end, size = begin + 1, counts[begin]
            while end < len(counts) and size + counts[end] <= tokens:
                end, size = end + 1, size + counts[end]
            yield self._run(slice(begin, end), slice(at, at + size)), slice(at, at + size)
            begin, at = end, at + size

    def _run(self, rows: slice, tokens: slice) -> "Rows":
        width = int((self.end - self.prompt)[rows].max())
        return Rows(
            index=self.index[rows],
            ids=self.ids[rows],
            prompt=self.prompt[rows],
            end=self.end[rows],
            where=self.where[rows],
            mask=self.mask[rows, :width],
            targets=self.targets[tokens],
            temperature=self.temperature[tokens],
        )


def cut(lengths: Sequence[int], budget: int, piece: float = PIECE) -> list[list[int]]:
    """Rows sorted by length, cut so that rows × longest ≤ budget; a row longer than that goes alone.

    Where to cut is what costs least, if a piece costs its tokens, padding included, and `piece` more.

    >>> cut([5, 1, 2, 9], budget=6)
    [[1, 2], [0], [3]]
    >>> cut([10, 900, 11, 905], budget=16384)
    [[0, 2], [1, 3]]
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    if not order:
        return []
    grain = ceil(max(lengths[order[-1]], 1) / STEPS)
    ends = [i for i in range(1, len(order)) if lengths[order[i]] // grain != lengths[order[i - 1]] // grain]
    ends = [0, *ends, len(order)]  # the places at which a cut may be
    best: list[tuple[float, int]] = [(0.0, 0)]
    for j in range(1, len(ends)):
        longest = lengths[order[ends[j] - 1]]
        cheapest = (inf, 0)
        for i in range(j - 1, -1, -1):
            rows = ends[j] - ends[i]
            pieces = ceil(rows / max(budget // max(longest, 1), 1))
            cheapest = min(cheapest, (best[i][0] + rows * longest + piece * pieces, i))
        best.append(cheapest)
    found: list[list[int]] = []
    j = len(ends) - 1
    while j:
        i = best[j][1]
        run = order[ends[i] : ends[j]]
        size = max(budget // max(lengths[run[-1]], 1), 1)
        size = ceil(len(run) / ceil(len(run) / size))  # pieces as equal as can be
        found[:0] = [run[k : k + size] for k in range(0, len(run), size)]
        j = i
    return found


def micro_batches(batch: Batch, budget: int, device: Any, only: Sequence[int] | None = None) -> Iterator[Rows]:
    """The batch, or `only` some rows, in pieces of at most `budget` tokens, prompts and padding included."""
    lengths = batch["length"].tolist()
    chosen = range(len(lengths)) if only is None else only
    for piece in cut([len(batch.prompts[i]) + lengths[i] for i in chosen], budget):
        yield _lay_out(batch, [chosen[i] for i in piece], lengths, device)


def _lay_out(batch: Batch, piece: list[int], lengths: list[int], device: Any) -> Rows:
    index = torch.tensor(piece)
    width = max(lengths[i] for i in piece)
    tokens, mask = batch["tokens"][index, :width], batch["mask"][index, :width]
    sequences = [torch.tensor([*batch.prompts[i], *tokens[j, : lengths[i]].tolist()]) for j, i in enumerate(piece)]
    ids = pad_sequence(sequences, batch_first=True)
    prompt = torch.tensor([len(batch.prompts[i]) for i in piece])
    at = torch.arange(ids.shape[1]) - prompt[:, None] + 1  # the response token that a position predicts
    inside = (at >= 0) & (at < width)
    where = inside & mask.gather(1, at.clamp(0, max(width - 1, 0))) if width else inside
    temperature = batch["temperature"][index][:, None].expand(mask.shape)[mask]
    return Rows(
        index=index,
        ids=ids.to(device),
        prompt=prompt.to(device),
        end=torch.tensor([len(sequence) for sequence in sequences], device=device),
        where=where.to(device),
        mask=mask.to(device),
        targets=tokens[mask].to(device),
        temperature=temperature.to(device),
    )


def hidden(model: Any, rows: Rows) -> Float[Tensor, "k d"]:
    """What the head is given at the positions that predict the targets; carries gradient.

    Taken by a hook in front of the head, which itself is given nothing: that works for every architecture.
    """
    found: list[Tensor] = []

    def take(_: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
        found.append(inputs[0][rows.where])
        return (inputs[0][:, :0],)

    hook = model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        model(input_ids=rows.ids, use_cache=False)
    finally:
        hook.remove()
    return found[0]


@contextmanager
def few_embeddings(model: Any) -> Iterator[None]:
    """Inside, the gradient of what is looked up names the tokens that were there, and is no table of all of them."""
    table = model.get_input_embeddings()
    dense = type(table) is not torch.nn.Embedding or table.weight.grad is None or table.sparse
    if dense:
        yield
        return
    table.sparse = True
    try:
        yield
    finally:
        table.sparse = False


@torch.no_grad()
def policy(model: Any, rows: Rows, *also: str, chunk: int | None = None) -> dict[str, Float[Tensor, "b t"]]:
    """`logp` of each token that counts, and if asked for the others below; float32, 0 where nothing counts.

    Certainty is the log-sum-exp of the logits minus their mean: KL from uniform to the policy, plus log vocabulary.
    Collision is Σ π², the probability that two draws are the same token.
    """
    asked = tuple(name for name in also if name in ("entropy", "certainty", "collision"))
    numbers = Numbers(Head(model, chunk), hidden(model, rows), rows.targets, rows.temperature, asked)
    return {name: rows.spread(numbers[name]) for name in ("logp", *asked)}


def next_token(model: Any, rows: Rows) -> Float[Tensor, "k v"]:
    """The logits over temperature that predict each token that counts, all of them at once; carries gradient."""
    return Head(model).logits(hidden(model, rows)) / rows.temperature[:, None]


def states(model: Any, rows: Rows, last: int = 10) -> dict[str, Float[Tensor, "b d"]]:
    """Last hidden state, mean over the `last` tokens of the prompt and of the response, or over all where fewer."""
    hidden = model.base_model(input_ids=rows.ids, use_cache=False).last_hidden_state.float()
    at = torch.arange(rows.ids.shape[1], device=rows.ids.device)
    found = {}
    for name, begin, end in (("prompt_state", 0 * rows.prompt, rows.prompt), ("response_state", rows.prompt, rows.end)):
        these = (at >= torch.maximum(begin, end - last)[:, None]) & (at < end[:, None])
        found[name] = (hidden * these[:, :, None]).sum(1) / these.sum(1, keepdim=True).clamp(min=1)
    return found


def blind(rows: Rows, token: int, share: float = 0.6) -> Rows:
    """The same rows with a `share` of each prompt's tokens replaced by `token`.

    0.6 is the share of the image that PAPO hides (2507.06448). Which tokens depends on the prompt alone, so that
    the responses to one problem miss the same tokens, and any split gives the same gradient.
    """
    ids = rows.ids.clone()
    for row, length in zip(ids, rows.prompt.tolist(), strict=True):
        hidden = torch.rand(length, generator=generator(*row[:length].tolist())) < share
        row[:length][hidden.to(row.device)] = token
    return replace(rows, ids=ids)


def flops(model: Any, rows: Rows) -> float:
    """The matrix products of one forward pass over these rows, attention aside: the head only where it speaks."""
    head = model.get_output_embeddings().weight
    tied = model.get_input_embeddings().weight is head
    body = model.num_parameters() - (1 if tied else 2) * head.numel()
    return 2.0 * (body * rows.ids.numel() + head.numel() * len(rows.targets))


class Critic(torch.nn.Module):
    """Forecasts the reward before each response token: the start's own backbone with a linear head, zero at first.

    A separate copy, so that learning to forecast does not move the policy; both the copy and the head are trained.
    """

    def __init__(self, backbone: Any, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = torch.nn.Linear(width, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def hidden(self, rows: Rows) -> Float[Tensor, "k d"]:
        """What the backbone says at the position that predicts each token, before the token is known."""
        return self.backbone(input_ids=rows.ids, use_cache=False).last_hidden_state[rows.where]

    def forward(self, rows: Rows) -> Float[Tensor, "b t"]:
        """The forecasts; 0 where nothing counts."""
        return rows.spread(self.forecast(self.hidden(rows)))

    def forecast(self, hidden: Float[Tensor, "k d"]) -> Float[Tensor, "k"]:
        """The forecast at each of these positions."""
        return self.head(hidden)[:, 0].float()


class Forecasts:
    """`new_value` at k positions, and the way back; the counterpart of `head.Numbers`."""

    def __init__(self, critic: Critic, hidden: Float[Tensor, "k d"]) -> None:
        self.hidden = hidden.detach().requires_grad_()
        self.found = critic.forecast(self.hidden)

    def __getitem__(self, name: str) -> Float[Tensor, "k"]:
        return {"new_value": self.found.detach()}[name]

    def back(self, by: dict[str, Float[Tensor, "k"]]) -> Float[Tensor, "k d"]:
        """The derivative by the hidden states; adds to the gradient of the critic's head."""
        torch.autograd.backward(self.found, by["new_value"])
        assert self.hidden.grad is not None
        return self.hidden.grad
