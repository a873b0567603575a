"""Runs over the cores: one process of one thread for each, what is there already is kept, what broke off is redone."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from whet.compare.plan import Job
from whet.prepare import Run
from whet.refusal import Refused
from whet.report.facts import duration
from whet.runs.store import Store

POLL = 0.2  # seconds between two looks at the runs
PRELOAD = ["whet.compare.work", "whet.engines.local", "whet.train", "whet.models.tiny"]  # tiny: Llama of transformers
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def carry_out(jobs: Sequence[Job], out: Console, workers: int = 0, without: bool = False) -> dict[Path, str]:
    """Make every run that is not there yet. Interrupted, it loses the runs in progress; the same call goes on.

    Runs that cannot begin leave nothing: they are refused at the end, or told by their folders where one can do
    `without` them.
    """
    for root in {Path(job.run.out) for job in jobs}:
        root.mkdir(parents=True, exist_ok=True)
    with _alone(sorted({job.run.out for job in jobs})):
        waiting = [job for job in jobs if job.store is None]
        if len(waiting) < len(jobs):
            out.print(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are there already.")
        if not waiting:
            return {}
        crew = _Crew(waiting, len(jobs), out, min(workers or cores(), len(waiting)))
        crew.go()
    if crew.broken and not without:
        names = ", ".join(dict.fromkeys(f"{job.arm} on {job.task}" for job, _ in crew.broken.values()))
        raise Refused(
            f"{len(crew.broken)} of {len(jobs)} runs left nothing ({names}): the reasons are above; all others are "
            "done, and the same command goes on."
        )
    return {folder: why for folder, (_, why) in crew.broken.items()}


@contextmanager
def _alone(roots: Sequence[str]) -> Iterator[None]:
    """Nobody else makes runs of a comparison in these folders; the lock goes with the process."""
    try:
        import fcntl
    except ImportError:  # no such locks here: two comparisons at once are then the user's business
        yield
        return
    held = []
    try:
        for root in roots:
            held.append(open(Path(root) / ".compare.lock", "w"))  # noqa: SIM115
            try:
                fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Refused(
                    f"Another comparison makes runs in {root}: wait for it, or choose another --runs."
                ) from None
        yield
    finally:
        for file in held:
            file.close()


class _Crew:
    """The processes at work and what is left to do."""

    def __init__(self, waiting: Sequence[Job], whole: int, out: Console, workers: int) -> None:
        self.waiting, self.whole, self.out, self.workers = list(waiting), whole, out, workers
        self.at_work: dict[Any, tuple[Job, Any, Any, float]] = {}
        self.broken: dict[Path, tuple[Job, str]] = {}
        self.took: list[float] = []
        methods = multiprocessing.get_all_start_methods()
        self.context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:  # imports are done once, and every run is still a process of its own
            multiprocessing.set_forkserver_preload(PRELOAD)
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=out,
        )  # fmt: skip
        self.line = self.bar.add_task("runs", total=whole, completed=whole - len(waiting), left="")

    def go(self) -> None:
        """Until nothing is left; a run that breaks does not keep the others waiting.

        Ctrl-C ends the processes and says how to go on.
        """
        before = {name: os.environ.get(name) for name in THREADS}
        os.environ.update(dict.fromkeys(THREADS, "1"))
        if self.out.is_terminal:
            self.bar.start()
        try:
            while self.waiting or self.at_work:
                while self.waiting and len(self.at_work) < self.workers:
                    self.begin(self.waiting.pop(0))
                for sentinel in wait(list(self.at_work), timeout=POLL):
                    self.end(sentinel)
                self.tell()
        except KeyboardInterrupt:
            left = len(self.waiting) + len(self.at_work)
            raise Refused(
                f"Interrupted: {self.whole - left} of {self.whole} runs are done; the same command goes on."
            ) from None
        finally:
            for _, process, *_ in self.at_work.values():
                process.kill()
                process.join()
            self.bar.stop()
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def begin(self, job: Job) -> None:
        """A process for a run; half a run that an earlier process left is thrown away."""
        if job.folder.exists():
            _wait_for_its_end(job.folder)
            shutil.rmtree(job.folder)
        hears, tells = self.context.Pipe(duplex=False)
        process = self.context.Process(target=make_run, args=(job.run, job.base, tells), daemon=False)  # type: ignore[attr-defined]
        process.start()
        tells.close()
        self.at_work[process.sentinel] = (job, process, hears, time.perf_counter())

    def end(self, sentinel: Any) -> None:
        """A run is over, by itself or because its process broke."""
        job, process, hears, began = self.at_work.pop(sentinel)
        process.join()
        self.took.append(time.perf_counter() - began)
        store = job.store
        if store is None:
            try:
                why = hears.recv()
            except EOFError:
                why = f"its process ended with status {process.exitcode}; `whet train` with the same settings shows why"
            self.broken[job.folder] = (job, why)
            self.out.print(f"{job.arm} on {job.task}, seed {job.seed}: {why}")
            return
        if store.state[0] == "failed":
            self.out.print(f"{job.arm}, seed {job.seed}: failed. {store.state[1]}")
        if not self.out.is_terminal:
            done = self.whole - len(self.waiting) - len(self.at_work)
            self.out.print(f"{done} of {self.whole} runs: {job.folder.name} in {duration(self.took[-1])}{self.left()}")

    def left(self) -> str:
        """How long the rest takes if runs go on taking as long as those that are over."""
        if not self.took:
            return ""
        mean, now = sum(self.took) / len(self.took), time.perf_counter()
        rest = sum(max(mean - (now - began), 0.0) for *_, began in self.at_work.values())
        seconds = (mean * len(self.waiting) + rest) / self.workers
        return f", {duration(seconds)} left" if self.waiting or self.at_work else ""

    def tell(self) -> None:
        """The bars: runs that are over, and how far those at work have come."""
        done = self.whole - len(self.waiting) - len(self.at_work)
        if self.out.is_terminal:
            now = " · ".join(
                f"{job.arm} s{job.seed} {far(job.folder, job.run):.0%}" for job, *_ in self.at_work.values()
            )
            self.bar.update(self.line, completed=done, description=now or "runs", left=self.left().lstrip(", "))


def _wait_for_its_end(folder: Path, patience: float = 10.0) -> None:
    """A run whose comparison was just killed ends by itself, a moment later."""
    until = time.monotonic() + patience
    while (folder / "run.json").is_file() and Store(folder).state[0] == "running" and time.monotonic() < until:
        time.sleep(POLL)


def far(folder: Path, run: Run) -> float:
    """The share of its budget that a run has spent, read from its store; 0 while it has none."""
    if not (folder / "run.json").is_file():
        return 0.0
    store = Store(folder)
    if run.steps:
        return min(store.steps / run.steps, 1.0)
    name, most = ("drawn_tokens", run.tokens) if run.tokens else ("seconds", run.budget)
    spent = store.metrics(name).get(name)
    return min(float(spent[1].sum()) / float(most or 1), 1.0) if spent else 0.0


def make_run(run: Run, base: str, tells: Any) -> None:
    """One whole run in a process of its own, on one thread, which ends when the comparison does."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in the terminal is for the comparison, which ends its runs itself
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_ends_with, args=(parent.sentinel,), daemon=True).start()
    import torch

    from whet.train import start_run

    torch.set_num_threads(1)
    try:
        start_run(run).tell(base_hash=base)
    except Exception as error:  # a run that is there says so itself; the comparison counts it as failed
        if not (Path(run.out) / run.name / "run.json").is_file():
            tells.send(str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}")
            raise SystemExit(1) from None


def _ends_with(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
