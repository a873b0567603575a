"""The side that asks: workers that are kept warm and told whose turn it is. `work.take_turns` is the other side."""

import json
import os
import subprocess
import tempfile
from typing import Any

import work

Row = dict[str, float]


class Worker:
    """A process that measures when it is asked to; a context, at whose end it is over."""

    def __init__(self, command: list[str], threads: int, tree: Any = work.ROOT, seed: int = 0) -> None:
        where = {
            **os.environ,
            "PYTHONPATH": f"{tree}{os.pathsep}{work.ROOT / 'benchmarks'}",
            "OMP_NUM_THREADS": str(threads),
            "BENCH_SEED": str(seed),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            # vLLM would keep one core for its scheduler: all of them compute, as for the others.
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        self.command, self.errors = command, tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=where,
            cwd=work.PLACE,
        )  # fmt: skip

    def __enter__(self) -> "Worker":
        self._read()  # ready, warm
        return self

    def turn(self, number: int) -> Row:
        """One measurement."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        return json.loads(self._read())

    def _read(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(work.TURN):
                return line.removeprefix(work.TURN).strip()
        self.process.wait()
        self.errors.seek(0)
        raise SystemExit(f"bench: {' '.join(self.command[1:])} failed: {self.errors.read().strip()[-2000:]}")

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
