"""Drawing responses from any Hugging Face causal LM through its key-value cache.

Each distinct prompt is read once for all its responses; finished rows leave the batch, and others begin in their
place (`waves.py`; where an architecture's attention allows no other, batch after batch through its own cache). All
randomness is one number in [0, 1) for each row and step, drawn beforehand: what a row says depends on its prompt
and its own numbers, not on which rows are computed beside it (up to float rounding exactly at a boundary).
"""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from whet.engines import replaced, waves
from whet.engines.cache import roomy
from whet.engines.page import Drawn, Ended, Front, Page
from whet.engines.pick import Drawing
from whet.engines.precision import of_products
from whet.engines.profile import counted, stage
from whet.engines.reading import beginning, chunks, forward, read

FAR = {torch.float32: 0.05, torch.bfloat16: 0.5}  # nats a token at the start; ours: rounding gives 1e-6 and 1e-2
DROP = 8  # finished rows leave when they are 1/8 of those computed: ours, copying the cache costs a step or so


class Sampler(Protocol):
    """What draws for an engine: the policy itself, or another program with a copy of its weights."""

    def draw(self, prompts: Sequence[tuple[int, ...]], how: Drawing, seed: int, ended: Ended | None = None) -> Drawn:
        """One response to each prompt; the same seed gives the same responses."""
        ...

    def moves(self) -> None:
        """A learner is asked for: until the next draw the memory is its."""
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
        uniform = numbers(len(prompts), how.max_tokens, seed)
        with engine.precision():
            return draw(self.model, prompts, uniform, how, engine.max_rows, engine.token_budget, ended)

    def moves(self) -> None:
        """Nothing to do."""

    def publish(self) -> None:
        """Nothing to do."""


def numbers(rows: int, tokens: int, seed: int) -> Float[Tensor, "n m"]:
    """What decides each token of each response, in [0, 1): the same for the same seed, whoever draws."""
    return torch.rand(rows, tokens, generator=torch.Generator().manual_seed(seed))


def apart(engine: Any, other: Sampler) -> float:
    """Nats a token, in the mean, from what a sampler says of 32 tokens that it draws to the policy's forward pass."""
    model = engine.model
    vocabulary = model.get_input_embeddings().weight.shape[0]
    prompt = tuple(i * (vocabulary - 1) // 7 for i in range(8))
    drawn = other.draw([prompt] * 4, Drawing(1.0, 1.0, False, 8, (), 0), seed=0)
    told, ours = [], []
    for tokens, logp, length in zip(drawn.tokens, drawn.logp, drawn.length.tolist(), strict=True):
        ids = torch.cat([torch.tensor(prompt), tokens[:length]])[None].to(model.device)
        with torch.no_grad(), engine.precision():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, len(prompt) - 1 : -1]
        all_ = logits.float().log_softmax(-1).cpu()
        ours.append(all_.gather(1, tokens[:length, None])[:, 0])
        told.append(logp[:length])
    return float((torch.cat(ours) - torch.cat(told)).abs().mean())


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
    if replaced.fits(model):
        with suppress(replaced.Unfit):  # known at the first step, before any response has ended
            _continuous(model, prompts, page, rows, budget)
            return page.whole()
        replaced.unfit(model)
        page = Page(model, uniform, how, ended)
    _in_turns(model, prompts, page, rows, budget)
    return page.whole()


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
                mine = beginning(waiting, prompts, rows - left, budget)
                logits, wave, position = _begun(model, [prompts[i] for i in mine], mine, page)
            front, going = front.beside(page.write(page.opened(mine, position), logits)), [*going, wave]
            counted("decode", len(mine))
        elif not left:
            page.left(front)
            return
        else:
            with stage("decode"):
                logits = waves.forward(model, going, front.token, front.position)
                front = page.write(front, logits).moved()
            counted("decode", left, flops=2.0 * page.weights * len(front), moved=4.0 * page.weights)


def _dropped(front: Front, going: list[waves.Wave]) -> tuple[Front, list[waves.Wave]]:
    """Only the responses that are not finished."""
    alive = []
    for wave, running in zip(going, front.running.split([len(wave) for wave in going]), strict=True) if going else ():
        if running.any():
            alive.append(wave if running.all() else wave.kept(running))
    return front.kept(front.running.nonzero()[:, 0]), alive


def _begun(
    model: Any, prompts: list[tuple[int, ...]], rows: list[int], page: Page
) -> tuple[Tensor, waves.Wave, Tensor]:
    """The logits after each prompt, a wave of the responses to them, and the position of their first tokens."""
    logits, cache, mask, which = read(model, prompts, page.how)
    held = waves.Prompts.of(cache, mask, of_products(model.get_input_embeddings().weight))
    row = torch.tensor(rows, device=page.device)
    return logits[which], waves.Wave(row, held, which), mask.sum(1)[which]


@torch.inference_mode()
def _in_turns(model: Any, prompts: Sequence[tuple[int, ...]], page: Page, rows: int, budget: int) -> None:
    """One batch after another through the model's own cache, whatever its layers keep."""
    for piece in chunks(prompts, rows, budget):
        with stage("prefill"):
            logits, cache, mask, which = read(model, [prompts[i] for i in piece], page.how)
            cache = roomy(cache)
            cache.reorder_cache(which)
        with stage("decode"):
            _to_the_end(model, page, piece, logits[which], cache, mask[which])


def _to_the_end(model: Any, page: Page, piece: list[int], logits: Tensor, cache: Any, mask: Tensor) -> None:
    """A token for each row that is not finished, then the model on those tokens, until none is left."""
    front = page.write(page.opened(piece, mask.sum(1)), logits)
    counted("decode", len(piece))
    width = mask.shape[1]
    mask = torch.nn.functional.pad(mask, (0, page.how.max_tokens), value=1)
    while left := int(front.running.sum()):
        if (len(front) - left) * DROP >= len(front):
            page.left(front)
            keep = front.running.nonzero()[:, 0]
            cache.reorder_cache(keep)
            front, mask = front.kept(keep), mask[keep]
        width += 1
        counted("decode", left, flops=2.0 * page.weights * len(front), moved=4.0 * page.weights)
        logits = forward(model, front.token[:, None], mask[:, :width], front.position[:, None], cache).logits[:, -1]
        front = page.write(front, logits).moved()
    page.left(front)
