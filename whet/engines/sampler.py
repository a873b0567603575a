"""Drawing responses from any Hugging Face causal LM through its key-value cache.

Each distinct prompt is read once for all its responses; finished rows leave the batch, and others begin in their
place (`waves.py`; where an architecture's attention allows no other, batch after batch through its own cache). All
randomness is one number in [0, 1) for each row and step, drawn beforehand: what a row says depends on its prompt
and its own numbers, not on which rows are computed beside it (up to float rounding exactly at a boundary).
"""

import inspect
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whet.batch import Batch
from whet.engines import waves
from whet.engines.cache import roomy
from whet.engines.forward import cut
from whet.engines.pick import Drawing, pick
from whet.engines.profile import counted, stage

DROP = 8  # finished rows leave when they are 1/8 of those computed: ours, copying the cache costs a step or so


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


class Sampler(Protocol):
    """What draws for an engine: the policy itself, or another program with a copy of its weights."""

    def draw(self, prompts: Sequence[tuple[int, ...]], how: Drawing, seed: int, ended: Ended | None = None) -> Drawn:
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

    def draw(self, prompts: Sequence[tuple[int, ...]], how: Drawing, seed: int, ended: Ended | None = None) -> Drawn:
        """Row by row from one stream: row i has the same numbers whichever rows are computed beside it."""
        engine = self.engine
        uniform = torch.rand(len(prompts), how.max_tokens, generator=torch.Generator().manual_seed(seed))
        with engine.precision():
            return draw(self.model, prompts, uniform, how, engine.max_rows, engine.token_budget, ended)

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
    ended: Ended | None = None,
) -> Drawn:
    """One response to each prompt, at most `rows` at a time and `budget` prompt tokens read at once."""
    page = Page(model, uniform, how, ended)
    if waves.fits(model, _takes(model.__class__)):
        with suppress(waves.Unfit):  # known at the first step, before any response has ended
            _continuous(model, prompts, page, rows, budget)
            return page.whole()
        waves.unfit(model)
        page = Page(model, uniform, how, ended)
    _in_turns(model, prompts, page, rows, budget)
    return page.whole()


def chunks(prompts: Sequence[tuple[int, ...]], rows: int, budget: int, by_prompt: bool = False) -> list[list[int]]:
    """Row numbers, like prompts together and short ones first, in pieces of at most `rows`.

    The distinct prompts of a piece, padded, fit into `budget` tokens, unless a single one does not; `by_prompt`,
    each piece has one.

    >>> chunks([(1, 2), (7,), (1, 2), (7,)], rows=3, budget=100)
    [[1, 3, 0], [2]]
    >>> chunks([(1, 2), (7,), (1, 2), (7,)], rows=3, budget=100, by_prompt=True)
    [[1, 3], [0, 2]]
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        members.setdefault(prompt, []).append(row)
    if by_prompt:
        pieces = [members[prompt] for prompt in sorted(members, key=len)]
        return [piece[start : start + rows] for piece in pieces for start in range(0, len(piece), rows)]
    distinct = list(members)
    found = []
    # As few pieces as can be: what is read together is also written together, and that takes far longer.
    for piece in cut([len(prompt) for prompt in distinct], budget, piece=1e9):
        mine = [row for i in piece for row in members[distinct[i]]]
        found += [mine[start : start + rows] for start in range(0, len(mine), rows)]
    return found


def _drawn(way: Any, model: Any, prompts: Any, uniform: Tensor, how: Drawing, rows: int, budget: int) -> Drawn:
    page = Page(model, uniform, how)
    way(model, prompts, page, rows, budget)
    return page.whole()


class Page:
    """What is written: n responses of at most m tokens, and how the next token of each is chosen."""

    def __init__(self, model: Any, uniform: Float[Tensor, "n m"], how: Drawing, ended: Ended | None = None) -> None:
        self.uniform, self.how, self.device, self.ended = uniform.to(model.device), how, model.device, ended
        self.stop = torch.tensor(how.stop, device=self.device)
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
        ended = front.running & torch.isin(token, self.stop)
        out.finished[row] |= ended
        running = front.running & ~ended & (front.written < last)
        return Front(row, token, front.written + 1, front.position, running)

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

    def kept(self, index: Int[Tensor, "k"]) -> "Front":
        """Some of them."""
        return Front(*(x[index] for x in vars(self).values()))

    def beside(self, other: "Front") -> "Front":
        """Both together."""
        return Front(*(torch.cat(both) for both in zip(vars(self).values(), vars(other).values(), strict=True)))

    def moved(self) -> "Front":
        """With the next position."""
        return replace(self, position=self.position + 1)


@torch.inference_mode()
def _continuous(model: Any, prompts: Sequence[tuple[int, ...]], page: Page, rows: int, budget: int) -> None:
    """New responses begin whenever a quarter of the room is free, so that cost follows the tokens written."""
    waiting = deque(chunks(prompts, max(rows // 4, 1), budget, by_prompt=True))
    front, going = page.opened([], torch.zeros(0, dtype=torch.long, device=page.device)), list[waves.Wave]()
    while True:
        left = int(front.running.sum())
        if (len(front) - left) * DROP >= max(len(front), 1) or (waiting and (rows - left) * 4 >= rows):
            page.left(front)
            front, going = _dropped(front, going)
        if waiting and (rows - left) * 4 >= rows and len(waiting[0]) <= rows - left:
            with stage("prefill"):
                mine = _next(waiting, prompts, rows - left, budget)
                logits, wave, position = _begun(model, [prompts[i] for i in mine], mine, page)
            front, going = front.beside(page.write(page.opened(mine, position), logits)), [*going, wave]
        elif not left:
            page.left(front)
            return
        else:
            with stage("decode"):
                logits = waves.forward(model, going, front.token, front.position)
                front = page.write(front, logits).moved()
            counted("decode", left, flops=2.0 * _weights(model) * len(front), moved=4.0 * _weights(model))


def _dropped(front: Front, going: list[waves.Wave]) -> tuple[Front, list[waves.Wave]]:
    """Only the responses that are not finished."""
    alive = []
    for wave, running in zip(going, front.running.split([len(wave) for wave in going]), strict=True) if going else ():
        if running.any():
            alive.append(wave if running.all() else wave.kept(running))
    return front.kept(front.running.nonzero()[:, 0]), alive


def _next(waiting: deque[list[int]], prompts: Sequence[tuple[int, ...]], room: int, budget: int) -> list[int]:
    """The rows that begin now: the pieces that wait longest, as far as there is room for them and their prompts."""
    mine, width, distinct = list[int](), 0, set[tuple[int, ...]]()
    while waiting and len(mine) + len(waiting[0]) <= room:
        prompt = prompts[waiting[0][0]]
        width, more = max(width, len(prompt)), distinct | {prompt}
        if mine and width * len(more) > budget:
            break
        mine, distinct = mine + waiting.popleft(), more
    return mine


def _begun(
    model: Any, prompts: list[tuple[int, ...]], rows: list[int], page: Page
) -> tuple[Tensor, waves.Wave, Tensor]:
    """The logits after each prompt, a wave of the responses to them, and the position of their first tokens."""
    logits, cache, mask, which = _read(model, prompts, page.how)
    held = waves.Prompts.of(cache, mask)
    row = torch.tensor(rows, device=page.device)
    return logits[which], waves.Wave(row, held, which), mask.sum(1)[which]


@torch.inference_mode()
def _in_turns(model: Any, prompts: Sequence[tuple[int, ...]], page: Page, rows: int, budget: int) -> None:
    """One batch after another through the model's own cache, whatever its layers keep."""
    for piece in chunks(prompts, rows, budget):
        with stage("prefill"):
            logits, cache, mask, which = _read(model, [prompts[i] for i in piece], page.how)
            cache = roomy(cache)
            cache.reorder_cache(which)
        with stage("decode"):
            _to_the_end(model, page, piece, logits[which], cache, mask[which])


def _to_the_end(model: Any, page: Page, piece: list[int], logits: Tensor, cache: Any, mask: Tensor) -> None:
    """A token for each row that is not finished, then the model on those tokens, until none is left."""
    front = page.write(page.opened(piece, mask.sum(1)), logits)
    width = mask.shape[1]
    mask = torch.nn.functional.pad(mask, (0, page.how.max_tokens), value=1)
    while left := int(front.running.sum()):
        if (len(front) - left) * DROP >= len(front):
            page.left(front)
            keep = front.running.nonzero()[:, 0]
            cache.reorder_cache(keep)
            front, mask = front.kept(keep), mask[keep]
        width += 1
        counted("decode", left, flops=2.0 * _weights(model) * len(front), moved=4.0 * _weights(model))
        logits = _forward(model, front.token[:, None], mask[:, :width], front.position[:, None], cache).logits[:, -1]
        front = page.write(front, logits).moved()
    page.left(front)


def _read(model: Any, prompts: list[tuple[int, ...]], how: Drawing) -> tuple[Tensor, Any, Tensor, Tensor]:
    """Logits after each of d distinct prompts, the cache and the mask [d p] they leave, and which is each row's."""
    distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
    width = max(map(len, distinct))
    ids = torch.tensor([[how.padding] * (width - len(p)) + list(p) for p in distinct], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in distinct], device=model.device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    counted("prefill", sum(map(len, distinct)), ids.numel(), 2.0 * _weights(model) * ids.numel())
    read = _forward(model, ids, mask, position, None)
    which = torch.tensor([distinct[prompt] for prompt in prompts], device=model.device)
    return read.logits[:, -1], read.past_key_values, mask, which


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
