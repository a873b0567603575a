"""Where the time of a step goes: seconds, tokens and memory by stage, against what the machine was measured to do.

A stage is entered with `stage(name)`; what is entered inside another is taken out of it, so that the seconds add
up. Without a profile in progress a stage costs nothing.
"""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

STAGES = ("prefill", "decode", "judge", "score", "forward", "backward", "optimiser", "other")


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
    """All stages of the steps since it began, in float32 matrix products and bytes where a stage tells them."""

    spent: dict[str, Spent] = field(default_factory=lambda: {name: Spent() for name in STAGES})
    inner: list[float] = field(default_factory=list)  # seconds of stages inside those that are open


_now: ContextVar[Profile | None] = ContextVar("profile", default=None)


@contextmanager
def profiling(profile: Profile) -> Iterator[None]:
    """Inside, stages are measured."""
    token = _now.set(profile)
    try:
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
    _forget_peak()
    profile.inner.append(0.0)
    began = _clock()
    try:
        yield
    finally:
        took = _clock() - began
        spent = profile.spent[name]
        spent.seconds += took - profile.inner.pop()
        spent.peak = max(spent.peak, peak_bytes())
        if profile.inner:
            profile.inner[-1] += took


def counted(name: str, tokens: int, padded: int = 0, flops: float = 0.0, moved: float = 0.0) -> None:
    """A stage was for so many tokens, and took so many products and so many bytes of weights and cache."""
    profile = _now.get()
    if profile is not None:
        spent = profile.spent[name]
        spent.tokens, spent.padded = spent.tokens + tokens, spent.padded + max(padded, tokens)
        spent.flops, spent.moved = spent.flops + flops, spent.moved + moved


def _clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# --- memory ----------------------------------------------------------------------------------------------


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # elsewhere than on Linux the peak is that of the process
        Path("/proc/self/clear_refs").write_text("5")  # the highest resident size is counted from now on


def peak_bytes() -> int:
    """The most memory since the stage began: of the GPU where there is one, of the process otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- the machine -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """What this machine was measured to do: matrix products in flop/s, and bytes/s of a copy."""

    matmul: float
    bandwidth: float


def limits(device: torch.device, size: int = 1024, megabytes: int = 256) -> Limits:
    """Measured now, in about a second: the best of five, with as many threads as torch uses."""
    a, b = torch.randn(2, size, size, device=device)
    x = torch.empty(megabytes * 2**18, device=device).fill_(1.0)
    y = torch.empty_like(x).fill_(0.0)
    return Limits(2 * size**3 / _best(lambda: a @ b), 2 * x.numel() * 4 / _best(lambda: y.copy_(x)))


def _best(work: Callable[[], object], times: int = 5) -> float:
    work()
    found = []
    for _ in range(times):
        began = _clock()
        work()
        found.append(_clock() - began)
    return min(found)


class Profiler:
    """The profile of a run's steps, beside what the machine was measured to do before the first of them."""

    def __init__(self) -> None:
        self.profile, self.seconds = Profile(), 0.0
        self.machine: Limits | None = None

    @contextmanager
    def measuring(self, engine: Any) -> Iterator[None]:
        """Inside, a step is measured."""
        if self.machine is None:
            self.machine = limits(engine.device)
        began = _clock()
        try:
            with profiling(self.profile):
                yield
        finally:  # a step that was not taken took its time too
            self.seconds += _clock() - began

    def rows(self) -> list[tuple[str, ...]]:
        """One row for each stage that took time, under `HEADS`."""
        assert self.machine is not None
        known = sum(spent.seconds for spent in self.profile.spent.values())
        self.profile.spent["other"].seconds = self.seconds - known + self.profile.spent["other"].seconds
        return [self._row(name, spent) for name, spent in self.profile.spent.items() if spent.seconds > 0]

    def _row(self, name: str, spent: Spent) -> tuple[str, ...]:
        assert self.machine is not None
        return (
            name,
            f"{spent.seconds:.2f}",
            f"{spent.seconds / self.seconds:.0%}",
            f"{spent.tokens / spent.seconds:,.0f}" if spent.tokens else "",
            f"{1 - spent.tokens / spent.padded:.1%}" if spent.padded else "",
            f"{spent.flops / spent.seconds / self.machine.matmul:.0%}" if spent.flops else "",
            f"{spent.moved / spent.seconds / self.machine.bandwidth:.0%}" if spent.moved else "",
            f"{spent.peak / 2**20:,.0f}" if spent.peak else "",
        )

    def table(self) -> Any:
        """Where the time of a run's steps went, for the terminal."""
        from rich.table import Table

        assert self.machine is not None
        found = Table(box=None, header_style="bold", pad_edge=False)
        for head in HEADS:
            found.add_column(head, justify="left" if head == "stage" else "right")
        for row in self.rows():
            found.add_row(*row)
        found.caption = (
            f"of {self.seconds:.1f} s in training steps; measured here: {self.machine.matmul / 1e9:,.0f} GFLOP/s "
            f"of float32 matrix products, {self.machine.bandwidth / 1e9:.0f} GB/s of copies"
        )
        return found


HEADS = ("stage", "seconds", "share", "tokens/s", "padding", "of matmul", "of bandwidth", "peak MiB")
