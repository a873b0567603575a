"""Continuous batching in fixed shapes, so that a GPU can be given a whole step of decoding as one recorded graph.

A slot has room for one response. Its keys and values lie in one buffer a layer, the prompt's first; a new token is
written at its own position and attends to what stands at or before it. A step (the model, the choice of each next
token, and all that is noted of it) reads and writes only what stays where it is, and asks nothing of the host, which
looks once in `STEPS` steps who has ended, and lets others begin there. Until then those that have ended are computed
to no effect. Training changes weights where they are, so a graph is right until they move.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whet.engines import replaced
from whet.engines.page import Drawn, Ended, Front, Page, empty
from whet.engines.pick import Drawing
from whet.engines.precision import of_products, unremembered
from whet.engines.profile import counted, stage
from whet.engines.reading import beginning, chunks, read
from whet.engines.recording import Rounded, Step, addresses, recorder, waits
from whet.engines.room import Room
from whet.engines.sampler import FAR, apart, numbers
from whet.engines.sharing import experts
from whet.engines.waves import Prompts
from whet.refusal import Refused

STEPS = 8  # between two looks at who has ended: ours, in the mean a response idles for half of them
BLOCK = 64  # positions: widths are multiples of it; ours


def power(n: int) -> int:
    """The power of two that holds n.

    >>> power(1), power(5), power(8)
    (1, 8, 8)
    """
    return 1 << (n - 1).bit_length()


def width_for(tokens: int) -> int:
    """The positions that are looked at for so many tokens: few different ones, and at most a quarter too many.

    >>> [width_for(n) for n in (1, 65, 300, 1000, 1100)]
    [64, 128, 320, 1024, 1280]
    """
    step = max(BLOCK, power(tokens + 1) // 8)
    return -(-tokens // step) * step


def checked(engine: Any, slots: "Slots") -> float | None:
    """Nats a token from what is drawn in slots to the forward pass, or None where this model cannot be drawn so."""
    model = engine.model
    with engine.precision():
        if not replaced.fits(model) or experts(model.config.get_text_config()) or waits(model):
            return None
    try:
        return apart(engine, slots)
    except replaced.Unfit:
        return None


class Slots:
    """The policy of a LocalEngine draws in recorded steps; without a GPU the same steps are computed as they are."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.forget()
        gap, kind = checked(engine, self), type(engine.model).__name__
        if gap is None:
            raise Refused(
                f"a step of {kind} cannot be recorded, since its attention is more than keys, values and a scale, or "
                "something in it waits for the host: leave --graph out."
            )
        if not gap <= FAR[engine.dtype]:
            raise Refused(
                f"recorded steps of this {kind} differ by {gap:.2g} nats a token from its forward pass, so what they "
                "draw would not come from the policy that is trained: leave --graph out."
            )
        self.forget()

    def forget(self) -> None:
        """All graphs and all they write to: the weights have moved, or there is too little room."""
        self.room: Room | None = None
        self.desks: dict[tuple[Drawing, int], Desk] = {}
        self.policy: Rounded | None = None
        self.size, self.known = (0, 0), tuple[int, ...]()
        self.record = recorder(self.engine.device)

    def draw(self, prompts: Sequence[tuple[int, ...]], how: Drawing, seed: int, ended: Ended | None = None) -> Drawn:
        """One response to each prompt, by the numbers that any sampler takes for this seed."""
        n = len(prompts)
        if not n:
            return empty(0, how.max_tokens, how.padding, "cpu")
        slots, width = min(power(n), self.engine.max_rows), width_for(max(map(len, prompts)) + how.max_tokens)
        with self.engine.precision():
            desk = self._desk(how, power(n), slots, width)
            self._write(prompts, desk, slots, numbers(n, how.max_tokens, seed), ended)
        all_ = desk.page.whole()
        tokens, logp, entropy = (x[:n].clone() for x in (all_.tokens, all_.logp, all_.entropy))
        return Drawn(tokens, logp, entropy, all_.length[:n].clone(), all_.finished[:n].clone())

    def moves(self) -> None:
        """Nothing to do."""

    def publish(self) -> None:
        """Nothing to do."""

    def _desk(self, how: Drawing, lines: int, slots: int, width: int) -> "Desk":
        """Where so many responses are written, with all that was recorded there, if it is still right."""
        known = addresses(self.engine.model)
        if known != self.known or slots > self.size[0] or width > self.size[1]:
            size = (max(slots, self.size[0]), max(width, self.size[1]))
            self.forget()
            self.size, self.known, self.policy = size, known, Rounded(self.engine.model)
        if (how, lines) not in self.desks:
            self.desks[how, lines] = Desk(self.engine.model, how, lines, self.size[0])
        return self.desks[how, lines]

    @torch.inference_mode()
    def _write(
        self, prompts: Sequence[tuple[int, ...]], desk: "Desk", slots: int, uniform: Tensor, ended: Ended | None
    ) -> None:
        """New responses begin whenever a quarter of the slots is free."""
        self._clear(desk, uniform, ended)
        waiting = deque(chunks(prompts, max(slots // 4, 1), self.engine.token_budget, by_prompt=True))
        owners: list[int | None] = [None] * slots  # which response is in each slot
        while True:
            seen = desk.look(owners)
            free = [slot for slot, row in enumerate(owners) if row is None]
            if waiting and 4 * len(free) >= slots and len(waiting[0]) <= len(free):
                with stage("prefill"):
                    mine = beginning(waiting, prompts, len(free), self.engine.token_budget)
                    self._begin(desk, [prompts[i] for i in mine], dict(zip(free, mine, strict=False)), owners)
                counted("decode", len(mine))
            elif len(free) == len(owners):
                return
            elif waiting or not self._closed_up(desk, owners):
                with stage("decode"):
                    self._steps(desk, len(owners), seen)

    def _clear(self, desk: "Desk", uniform: Tensor, ended: Ended | None) -> None:
        """Nothing is written, and the policy is as it is now."""
        assert self.policy is not None
        self.policy.refresh()
        desk.clear(uniform, ended)
        if self.room is not None:
            self.room.clear()

    def _begin(
        self, desk: "Desk", prompts: list[tuple[int, ...]], rows: dict[int, int], owners: list[int | None]
    ) -> None:
        """Responses begin, `rows` by slot: their prompts are read, and their first tokens written."""
        model, page = self.engine.model, desk.page
        logits, cache, mask, which = read(model, prompts, page.how)
        held = Prompts.of(cache, mask, of_products(model.get_input_embeddings().weight))
        if self.room is None:
            self.room = Room(held.layers, *self.size)
        slots = torch.tensor(list(rows), device=page.device)
        self.room.put(slots, held.layers, mask, which)
        opened = page.opened(list(rows.values()), mask.sum(1)[which])
        put(desk.front, slots, page.write(opened, logits[which]))
        for slot, row in rows.items():
            owners[slot] = row

    def _closed_up(self, desk: "Desk", owners: list[int | None]) -> bool:
        """Whether those that are left needed but half of the slots: they moved together, and fewer are computed."""
        alive = [slot for slot, row in enumerate(owners) if row is not None]
        if 2 * power(len(alive)) > len(owners):
            return False
        assert self.room is not None
        slots = torch.tensor(alive, device=desk.page.device)
        self.room.close_up(slots)
        desk.close_up(slots)
        owners[:] = [owners[slot] for slot in alive] + [None] * (power(len(alive)) - len(alive))
        return True

    def _steps(self, desk: "Desk", rows: int, seen: "Seen") -> None:
        """Some steps of the first slots, as far as a response of them has tokens left."""
        steps, weights = min(STEPS, seen.left), desk.page.weights
        step = self._recorded(desk, rows, min(width_for(seen.furthest + steps), self.size[1]))
        for _ in range(steps):
            step()
        written = int(desk.front.written[:rows].sum()) - seen.written
        counted("decode", written, rows * steps, 2.0 * weights * rows * steps, 4.0 * weights * steps)

    def _recorded(self, desk: "Desk", rows: int, width: int) -> Step:
        """One step of the first slots over so many positions, recorded when it is first wanted."""
        assert self.policy is not None
        assert self.room is not None
        if (rows, width) not in desk.steps:
            before = desk.front.kept(desk.every)
            desk.front.running.zero_()  # a rehearsal then changes nothing that is not put back or written again
            desk.steps[rows, width] = self.record(partial(_step, self.policy, self.room, desk, rows, width))
            put(desk.front, desk.every, before)
        return desk.steps[rows, width]


def _step(policy: "Rounded", room: "Room", desk: "Desk", rows: int, width: int) -> None:
    """One more token of each response in the first slots: where all of it is read and written does not change."""
    front = desk.front.kept(slice(rows))
    room.look(front.position, width)
    with unremembered(desk.page.device):
        logits = replaced.forward(policy, [room], front.token, front.position)
    after = desk.page.write(front, logits)
    put(desk.front, slice(rows), replace(after, position=front.position + after.running))


@dataclass(frozen=True)
class Seen:
    """Of the responses in the slots: tokens written, the furthest position of one that runs, the most tokens left."""

    written: int
    furthest: int
    left: int


class Desk:
    """What one kind of draw is written on, who is in which slot, and the steps recorded for it by rows and width."""

    def __init__(self, model: Any, how: Drawing, lines: int, slots: int) -> None:
        # One line more than responses: for the slots that nobody is in.
        self.page = Page(model, torch.zeros(lines + 1, how.max_tokens, device=model.device), how)
        self.every = torch.arange(slots, device=self.page.device)
        self.front = self.page.opened([lines] * slots, torch.zeros_like(self.every))
        self.front = self.front.kept(self.every)  # each field a tensor of its own
        self.steps: dict[tuple[int, int], Step] = {}

    def clear(self, uniform: Float[Tensor, "n m"], ended: Ended | None) -> None:
        """Nothing is written, and nobody is in a slot."""
        page, out = self.page, self.page.out
        page.uniform[: len(uniform)], page.ended = uniform.to(page.device), ended
        out.tokens.fill_(page.how.padding)
        for x in (out.logp, out.entropy, out.length, out.finished):
            x.zero_()
        self._leave(slice(None))

    def _leave(self, slots: slice) -> None:
        self.front.row[slots], self.front.running[slots] = len(self.page.uniform) - 1, False

    def close_up(self, slots: Int[Tensor, "k"]) -> None:
        """The responses in these slots are in the first ones from here on."""
        put(self.front, slice(len(slots)), self.front.kept(slots))
        self._leave(slice(len(slots), None))

    def look(self, owners: list[int | None]) -> Seen:
        """Wait for the steps; who has ended is told, and leaves a slot without owner."""
        front = self.front.kept(slice(len(owners)))
        running, written, position = torch.stack([front.running.long(), front.written, front.position]).tolist()
        ended = [slot for slot, row in enumerate(owners) if row is not None and not running[slot]]
        if ended:
            self.page.left(front.kept(torch.tensor(ended, device=self.page.device)))
            for slot in ended:
                owners[slot] = None
        going = [slot for slot, row in enumerate(owners) if row is not None]
        left = self.page.how.max_tokens - min((written[slot] for slot in going), default=0)
        return Seen(sum(written), max((position[slot] for slot in going), default=0), left)


def put(front: Front, at: Tensor | slice, new: Front) -> None:
    """Write a front over some places of another, which stays where it is."""
    for mine, theirs in zip(vars(front).values(), vars(new).values(), strict=True):
        mine[at] = theirs
