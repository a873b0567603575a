"""Where the time of a step goes: seconds, tokens and memory by stage, against what the machine was measured to do.

A stage is entered with `stage(name)`. At any moment the time belongs to the innermost stage that is open, and to
`other` where none is, so that the seconds of all stages add up to those of the step. Only the thread that steps is
told: what another does beside it (a judge, say) costs the step what the step waits for it. Without a profile in
progress a stage costs nothing.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

STAGES = ("prefill", "decode", "judge", "score", "forward", "backward", "optimiser", "other")
CPU = torch.device("cpu")


@dataclass
class Spent:
    """What one stage has taken: `tokens` that it was for, `padded` with the padding that it computed too."""

    seconds: float = 0.0
    tokens: int = 0
    padded: int = 0
    flops: float = 0.0
    moved: float = 0.0
    peak: int = 0


@dataclass
class Profile:
    """All stages of the steps since it began: seconds, matrix products and bytes where a stage tells them."""

    device: torch.device = CPU
    spent: dict[str, Spent] = field(default_factory=lambda: {name: Spent() for name in STAGES})
    opened: list[str] = field(default_factory=list)
    since: float = 0.0

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(spent.seconds for spent in self.spent.values())

    def turn(self) -> None:
        """What has passed since the last turn goes to the innermost stage that is open."""
        now = _clock(self.device)
        if self.opened:
            spent = self.spent[self.opened[-1]]
            spent.seconds += now - self.since
            spent.peak = max(spent.peak, _peak_until_now(self.device))
        self.since = now


_now: ContextVar[Profile | None] = ContextVar("profile", default=None)


@contextmanager
def profiling(profile: Profile) -> Iterator[None]:
    """Inside, stages are measured, and what is in none of them is `other`."""
    token = _now.set(profile)
    _peak_until_now(profile.device)
    try:
        with stage("other"):
            yield
    finally:
        _now.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Inside, time belongs to this stage, less what belongs to stages entered inside it."""
    profile = _now.get()
    if profile is None:
        yield
        return
    profile.turn()
    profile.opened.append(name)
    try:
        yield
    finally:
        profile.turn()
        profile.opened.pop()


def counted(name: str, tokens: int, padded: int = 0, flops: float = 0.0, moved: float = 0.0) -> None:
    """A stage was for so many tokens, and took so many products and so many bytes of weights and cache."""
    profile = _now.get()
    if profile is not None:
        spent = profile.spent[name]
        spent.tokens, spent.padded = spent.tokens + tokens, spent.padded + max(padded, tokens)
        spent.flops, spent.moved = spent.flops + flops, spent.moved + moved


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# --- memory ----------------------------------------------------------------------------------------------

_most: dict[str, int] = {}  # device → the highest peak that was forgotten


def most_bytes(device: torch.device) -> int:
    """The most memory so far: of the GPU where the model is on one, of the process otherwise."""
    return max(_most.get(device.type, 0), _peak(device))


def _peak_until_now(device: torch.device) -> int:
    """The most memory since the last call; the process's since its start where the kernel cannot forget it."""
    peak = _peak(device)
    _most[device.type] = max(_most.get(device.type, 0), peak)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the highest resident size is counted from now on
    return peak


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# --- the machine -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """What this machine was measured to do: matrix products in flop/s, and bytes/s of a copy."""

    matmul: float
    bandwidth: float


def limits(device: torch.device, dtype: torch.dtype = torch.float32) -> Limits:
    """Measured now, in a second or two: the best of five, with as many threads as torch uses.

    Square matrices in this number format, and a copy that fits into no cache; larger ones on a GPU.
    """
    size, megabytes = (8192, 2048) if device.type == "cuda" else (2048, 256)
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    x = torch.ones(megabytes * 2**18, device=device)
    y = torch.zeros_like(x)
    return Limits(2 * size**3 / _best(lambda: a @ b, device), 2 * x.numel() * 4 / _best(lambda: y.copy_(x), device))


def _best(work: Callable[[], object], device: torch.device, times: int = 5, enough: float = 2.0) -> float:
    """The least seconds of some tries: five, or fewer where they take long."""
    work()
    found: list[float] = []
    while len(found) < times and sum(found) < enough:
        began = _clock(device)
        work()
        found.append(_clock(device) - began)
    return min(found)


class Profiler:
    """The profile of a run's steps, beside what the machine was measured to do before the first of them."""

    def __init__(self) -> None:
        self.profile, self.steps = Profile(), 0
        self.machine: Limits | None = None
        self.dtype = torch.float32

    @contextmanager
    def measuring(self, engine: Any) -> Iterator[None]:
        """Inside, a step is measured; one that was not taken took its time too."""
        if self.machine is None:
            self.profile.device, self.dtype = engine.device, getattr(engine, "dtype", torch.float32)
            self.machine = limits(engine.device, self.dtype)
        self.steps += 1
        with profiling(self.profile):
            yield

    def rows(self) -> list[tuple[str, ...]]:
        """One row for each stage that took time, under `HEADS`, and one for all of them."""
        spent = self.profile.spent
        rows = [self._row(name, x) for name, x in spent.items() if x.seconds > 0]
        return [*rows, self._row("step", Spent(self.profile.seconds, peak=max(x.peak for x in spent.values())))]

    def _row(self, name: str, spent: Spent) -> tuple[str, ...]:
        assert self.machine is not None
        tokens = spent.tokens or self.profile.spent["decode"].tokens
        return (
            name,
            f"{spent.seconds / self.steps:.3f}",
            f"{spent.seconds / self.profile.seconds:.1%}",
            f"{tokens / spent.seconds:,.0f}",
            f"{1 - spent.tokens / spent.padded:.1%}" if spent.padded else "",
            f"{spent.flops / spent.seconds / self.machine.matmul:.0%}" if spent.flops else "",
            f"{spent.moved / spent.seconds / self.machine.bandwidth:.0%}" if spent.moved else "",
            f"{spent.peak / 2**20:,.0f}",
        )

    def table(self) -> Any:
        """Where the time of a run's steps went, for the terminal."""
        from rich.table import Table

        found = Table(box=None, header_style="bold", pad_edge=False, caption=self.caption(), caption_justify="left")
        for head in HEADS:
            found.add_column(head, justify="left" if head == "stage" else "right", no_wrap=True)
        *rows, whole = self.rows()
        for row in rows:
            found.add_row(*row)
        found.add_section()
        found.add_row(*whole, style="bold")
        return found

    def caption(self) -> str:
        """What the columns mean, and what the machine was measured to do."""
        assert self.machine is not None
        where = "the GPU" if self.profile.device.type == "cuda" else "the process"
        number = str(self.dtype).removeprefix("torch.")
        return (
            f"Means of {self.steps} steps; evaluation and checkpoints are not in them. prefill reads the prompts, "
            "decode writes the responses, judge waits for rewards, score reads the responses before the update, "
            "forward and backward are the loss and its gradient. tokens/s: of the tokens that a stage reads or "
            "writes; for judge, optimiser, other and step, of the responses. padding: share of computed tokens "
            "that nobody asked for. matmul, memory: share of what this machine did at the start, "
            f"{self.machine.matmul / 1e9:,.0f} GFLOP/s in {number} and {self.machine.bandwidth / 1e9:.1f} GB/s; "
            f"nothing where a stage does not count it. peak: the most memory of {where} during the stage."
        )


HEADS = ("stage", "s/step", "share", "tokens/s", "padding", "matmul", "memory", "peak MiB")
