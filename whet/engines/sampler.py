"""Drawing responses from any Hugging Face causal LM through its key-value cache.

Each distinct prompt is read once and its cache repeated for its responses; finished rows leave the batch. All
randomness is one number in [0, 1) for each row and step, drawn beforehand: what a row says depends on its prompt
and its own numbers, not on which rows are computed beside it (up to float rounding exactly at a boundary).
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whet.batch import Batch
from whet.engines.cache import roomy
from whet.engines.forward import cut
from whet.engines.head import BLOCK, LOWEST
from whet.engines.profile import counted, stage

SPAN = 512  # tokens: about the square root of today's vocabularies, so that both searches are short
DROP = 8  # finished rows leave when they are 1/8 of those computed: ours, copying the cache costs a step or so


@dataclass(frozen=True)
class Drawing:
    """How to draw: `stop` are the token ids that end a response."""

    temperature: float
    top_p: float
    greedy: bool
    max_tokens: int
    stop: tuple[int, ...]
    padding: int


@dataclass
class Drawn:
    """n responses in at most m tokens, padded on the right."""

    tokens: Int[Tensor, "n m"]
    logp: Float[Tensor, "n m"]
    entropy: Float[Tensor, "n m"]
    length: Int[Tensor, "n"]
    finished: Bool[Tensor, "n"]
    knows_entropy: bool = True


class Sampler(Protocol):
    """What draws for an engine: the policy itself, or another program with a copy of its weights."""

    def draw(self, prompts: Sequence[tuple[int, ...]], how: Drawing, seed: int) -> Drawn:
        """One response to each prompt; the same seed gives the same responses."""
        ...

    def moves(self) -> None:
        """An update begins: the policy will not be what it was when this sampler drew last."""
        ...

    def publish(self) -> None:
        """From here on responses are drawn from the policy as it is now."""
        ...


class Own:
    """The policy draws by itself, or another `model` in its place: there is no copy of weights that could grow old."""

    def __init__(self, engine: Any, model: Any = None) -> None:
        self.engine, self.model = engine, engine.model if model is None else model

    def draw(self, prompts: Sequence[tuple[int, ...]], how: Drawing, seed: int) -> Drawn:
        """Row by row from one stream: row i has the same numbers whichever rows are computed beside it."""
        engine = self.engine
        uniform = torch.rand(len(prompts), how.max_tokens, generator=torch.Generator().manual_seed(seed))
        with engine.precision():
            return draw(self.model, prompts, uniform, how, engine.max_rows, engine.token_budget)

    def moves(self) -> None:
        """Nothing to do."""

    def publish(self) -> None:
        """Nothing to do."""


def draw(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    uniform: Float[Tensor, "n m"],
    how: Drawing,
    rows: int,
    budget: int,
) -> Drawn:
    """One response to each prompt, at most `rows` at a time and `budget` prompt tokens read at once."""
    found = empty(len(prompts), how.max_tokens, how.padding, "cpu")
    for piece in chunks(prompts, rows, budget):
        drawn = _decode(model, [prompts[i] for i in piece], uniform[piece].to(model.device), how)
        for name in ("tokens", "logp", "entropy", "length", "finished"):
            getattr(found, name)[piece] = getattr(drawn, name).cpu()
    return found


def chunks(prompts: Sequence[tuple[int, ...]], rows: int, budget: int) -> list[list[int]]:
    """Row numbers, like prompts together and short ones first, in pieces of at most `rows`.

    The distinct prompts of a piece, padded, fit into `budget` tokens, unless a single one does not.

    >>> chunks([(1, 2), (7,), (1, 2), (7,)], rows=3, budget=100)
    [[1, 3, 0], [2]]
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        members.setdefault(prompt, []).append(row)
    distinct = list(members)
    found = []
    # As few pieces as can be: what is read together is also written together, and that takes far longer.
    for piece in cut([len(prompt) for prompt in distinct], budget, piece=1e9):
        mine = [row for i in piece for row in members[distinct[i]]]
        found += [mine[start : start + rows] for start in range(0, len(mine), rows)]
    return found


@torch.inference_mode()
def _decode(model: Any, prompts: list[tuple[int, ...]], uniform: Float[Tensor, "r m"], how: Drawing) -> Drawn:
    """r responses together, in max_tokens steps or fewer."""
    with stage("prefill"):
        logits, cache, attention = _read(model, prompts, how)
    with stage("decode"):
        return _write(model, logits, cache, attention, uniform, how)


def _write(model: Any, logits: Tensor, cache: Any, attention: Tensor, uniform: Tensor, how: Drawing) -> Drawn:
    """The steps after the prompts: a token for each row that is not finished, then the model on those tokens."""
    rows = len(logits)
    position = attention[:, : -how.max_tokens].sum(1)
    stop = torch.tensor(how.stop, device=model.device)
    out = empty(rows, how.max_tokens, how.padding, model.device)
    live = torch.arange(rows, device=model.device)
    running, computed = torch.ones_like(live, dtype=torch.bool), 0
    for step in range(how.max_tokens):
        token, logp, entropy = pick(logits, uniform[live, step], how)
        out.tokens[live, step], out.logp[live, step], out.entropy[live, step] = token, logp, entropy
        out.length[live] += running
        ended = running & torch.isin(token, stop)
        out.finished[live] |= ended
        running = running & ~ended
        left = int(running.sum())
        if not left or step + 1 == how.max_tokens:
            break
        if (len(live) - left) * DROP >= len(live):
            keep = running.nonzero()[:, 0]
            cache.reorder_cache(keep)
            live, running, token, position, attention = (x[keep] for x in (live, running, token, position, attention))
        width = attention.shape[1] - how.max_tokens + step + 1
        computed += len(live)
        logits = _forward(model, token[:, None], attention[:, :width], position[:, None], cache).logits[:, -1]
        position = position + 1
    counted(
        "decode",
        int(out.length.sum()),
        flops=2.0 * _weights(model) * computed,
        moved=4.0 * _weights(model) * (step + 1),
    )
    counts = torch.arange(how.max_tokens, device=model.device) < out.length[:, None]
    out.tokens = torch.where(counts, out.tokens, how.padding)
    out.logp, out.entropy = out.logp * counts, out.entropy * counts
    return out


def _read(model: Any, prompts: list[tuple[int, ...]], how: Drawing) -> tuple[Tensor, Any, Tensor]:
    """Logits after each prompt, the cache, and the attention mask with room for the response; one row for each."""
    distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
    width = max(map(len, distinct))
    ids = torch.tensor([[how.padding] * (width - len(p)) + list(p) for p in distinct], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in distinct], device=model.device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    counted("prefill", sum(map(len, distinct)), ids.numel(), 2.0 * _weights(model) * ids.numel())
    read = _forward(model, ids, mask, position, None)
    row = torch.tensor([distinct[prompt] for prompt in prompts], device=model.device)
    cache = roomy(read.past_key_values)
    cache.reorder_cache(row)
    return read.logits[:, -1][row], cache, torch.nn.functional.pad(mask[row], (0, how.max_tokens), value=1)


def _forward(model: Any, ids: Tensor, mask: Tensor, position: Tensor, cache: Any) -> Any:
    """One pass that extends the cache; logits of the last position only, where the model can be asked for that."""
    wishes = {"position_ids": position, "logits_to_keep": 1}
    wishes = {name: value for name, value in wishes.items() if name in _takes(model.__class__)}
    return model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **wishes)


def _weights(model: Any) -> int:
    """The numbers that a token is multiplied with: all weights, embeddings only where they are the head as well."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    return model.num_parameters() - (embeddings.weight.numel() if head.weight is not embeddings.weight else 0)


@lru_cache
def _takes(kind: Any) -> frozenset[str]:
    """The names of the arguments of a model's forward pass; not every architecture has the same."""
    return frozenset(inspect.signature(kind.forward).parameters)


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


def pick(logits: Float[Tensor, "r v"], uniform: Float[Tensor, "r"], how: Drawing) -> tuple[Tensor, Tensor, Tensor]:
    """A token for each row, its log-probability as drawn, and the entropy of the untruncated distribution [r].

    Row by row where the vocabulary is large, so that all passes over a row find it in the processor's cache.
    """
    rows = max(BLOCK // logits.shape[1], 1) if logits.device.type == "cpu" else len(logits)
    pieces = [_pick(z, u, how) for z, u in zip(logits.split(rows), uniform.split(rows), strict=True)]
    token, logp, entropy = (torch.cat(column) for column in zip(*pieces, strict=True))
    return token, logp, entropy


def _pick(logits: Tensor, uniform: Tensor, how: Drawing) -> tuple[Tensor, Tensor, Tensor]:
    z = logits.float() if how.temperature == 1 else logits.float() / how.temperature
    z = (z - z.amax(1, keepdim=True)).clamp_(min=LOWEST)
    weight = z.exp()
    total = weight.sum(1, keepdim=True)
    entropy = (total.log() - (weight * z).sum(1, keepdim=True) / total)[:, 0]
    if how.greedy:
        token = z.argmax(1)
        return token, (z.gather(1, token[:, None]) - total.log())[:, 0], entropy
    kept = nucleus(weight / total, how.top_p) if how.top_p < 1 else weight
    token, mass = invert(kept, uniform)
    # Without truncation the mass is the total, of which `total` is what learner and scorer compute too.
    mass = mass.log() if how.top_p < 1 else total[:, 0].double().log()
    chosen = z.gather(1, token[:, None])[:, 0] - (total[:, 0].log() if how.top_p < 1 else 0)
    return token, (chosen - mass).float(), entropy


def invert(weight: Float[Tensor, "r v"], uniform: Float[Tensor, "r"]) -> tuple[Int[Tensor, "r"], Float[Tensor, "r"]]:
    """The token at which the running sum of a row passes `uniform` times its total; and that total, in float64.

    First among sums of `SPAN` tokens, then inside that span: no running sum over the whole vocabulary. All sums are
    in float64, since in float32 the tail of a large vocabulary would be lost.

    >>> invert(tensor([[0.5, 0.0, 0.25, 0.25]]), tensor([0.5]))[0]
    tensor([2])
    """
    vocabulary = weight.shape[1]
    span = min(SPAN, vocabulary)
    spans = torch.nn.functional.pad(weight, (0, -vocabulary % span)).view(len(weight), -1, span)
    ends = spans.sum(2, dtype=torch.float64).cumsum(1)
    mass = ends[:, -1:]
    # uniform has 24 bits, so uniform × mass stays below the mass: a token of weight 0 is never drawn
    aim = uniform[:, None] * mass
    first = torch.searchsorted(ends, aim, right=True)
    first = first.clamp(max=ends.shape[1] - 1)  # for weights that are no numbers, which `sample` refuses
    before = torch.where(first > 0, ends.gather(1, (first - 1).clamp(min=0)), 0.0)
    inside = spans.gather(1, first[:, :, None].expand(-1, 1, span))[:, 0]
    # A span's running sum may end a rounding below its sum: what is left then goes to its last token with weight.
    running = inside.cumsum(1, dtype=torch.float64)
    aim = torch.minimum(aim - before, running[:, -1:].nextafter(torch.zeros_like(aim)))
    place = torch.searchsorted(running, aim, right=True).clamp(max=span - 1)
    return (first * span + place)[:, 0].clamp(max=vocabulary - 1), mass[:, 0]


def nucleus(probability: Float[Tensor, "r v"], top_p: float) -> Float[Tensor, "r v"]:
    """The smallest set of likeliest tokens that holds `top_p` (Holtzman et al. 2019, 1904.09751); 0 elsewhere.

    >>> nucleus(tensor([[0.5, 0.2, 0.3]]), 0.6)
    tensor([[0.5000, 0.0000, 0.3000]])
    """
    likely, order = probability.sort(dim=-1, descending=True, stable=True)
    before = likely.cumsum(-1) - likely
    return torch.zeros_like(probability).scatter(-1, order, torch.where(before < top_p, likely, 0.0))
