"""A forward pass over some rows of a batch: what the model says of each response token that counts.

Sequences are padded on the right and carry no attention mask: a causal model cannot look to the right, so the
padding is invisible, and the same sequence has the same numbers in any company.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from whet.batch import Batch
from whet.draw import generator


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


def cut(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Rows sorted by length, cut so that rows × longest ≤ budget; a row longer than that goes alone.

    >>> cut([5, 1, 2, 9], budget=6)
    [[1, 2], [0], [3]]
    """
    pieces: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if pieces and (len(pieces[-1]) + 1) * lengths[row] <= budget:
            pieces[-1].append(row)
        else:
            pieces.append([row])
    return pieces


def micro_batches(batch: Batch, budget: int, device: Any) -> Iterator[Rows]:
    """The batch in pieces of at most `budget` tokens, prompts and padding included."""
    lengths = batch["length"].tolist()
    for piece in cut([len(p) + n for p, n in zip(batch.prompts, lengths, strict=True)], budget):
        yield _lay_out(batch, piece, lengths, device)


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


def policy(model: Any, rows: Rows, *also: str) -> dict[str, Float[Tensor, "b t"]]:
    """`logp` of each token that counts, and if asked for the others below; float32, 0 where nothing counts.

    Certainty is the log-sum-exp of the logits minus their mean: KL from uniform to the policy, plus log vocabulary.
    Collision is Σ π², the probability that two draws are the same token.
    """
    logits = next_token(model, rows)
    # x - logsumexp keeps one copy of the logits for the gradient where log_softmax would keep two.
    total = logits.logsumexp(-1)
    found = {"logp": rows.spread(logits.gather(-1, rows.targets[:, None])[:, 0] - total)}
    if "entropy" in also:
        found["entropy"] = rows.spread(total - (logits.softmax(-1) * logits).sum(-1))
    if "certainty" in also:
        found["certainty"] = rows.spread(total - logits.mean(-1))
    if "collision" in also:
        found["collision"] = rows.spread(((2 * logits).logsumexp(-1) - 2 * total).exp())
    return found


def next_token(model: Any, rows: Rows) -> Float[Tensor, "k v"]:
    """The logits over temperature that predict each token that counts, row after row."""
    with only(model, rows.where):
        logits: Tensor = model(input_ids=rows.ids, use_cache=False).logits[0]
    return logits.float() / rows.temperature[:, None]


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


@contextmanager
def only(model: Any, where: Bool[Tensor, "b s"]) -> Iterator[None]:
    """Inside, the model's head sees only the chosen positions: logits are [1 k vocabulary], not [b s vocabulary].

    The head is most of the memory of a small model with a large vocabulary. A hook in front of it works for every
    architecture, and what some do to their logits afterwards (Gemma's soft cap, Cohere's scale) still happens.
    """
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][where][None],))
    try:
        yield
    finally:
        hook.remove()


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

    def forward(self, rows: Rows) -> Float[Tensor, "b t"]:
        """The forecast at the position that predicts each token, before the token is known."""
        hidden = self.backbone(input_ids=rows.ids, use_cache=False).last_hidden_state[rows.where]
        return rows.spread(self.head(hidden)[:, 0].float())
