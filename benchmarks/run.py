"""make bench: whet and its peers in turns on this machine. Stop it and start it again: what is measured stays.

python benchmarks/run.py [A B CA CB D E] [--pairs 5] [--threads N]      → results/bench.json, docs/benchmarks.md
python benchmarks/run.py --against COMMIT                               this tree and another commit, in turns
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".bench" / "peers"
# Setting → its peers, what is compared, and the target of the ratio; the peers are told "A" or "B".
PAIRS = {
    "A": (("trl",), "seconds", 1 / 3),
    "B": (("trl",), "seconds", 1 / 6),
    "CA": (("generate", "vllm"), "tokens/s", {"generate": 2.5, "vllm": 1.3}),
    "CB": (("generate", "vllm"), "tokens/s", {"generate": 2.5, "vllm": 1.3}),
}
GROWTH = [(1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4)]  # setting E: responses and length, times


def environment() -> None:
    """The peers' own environment, once: TRL, and vLLM's build for processors without what drags in another torch."""
    if (PEERS / ".ready").exists():
        return
    if not (PEERS / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
    pip = [str(PEERS / "bin" / "python"), "-m", "pip", "install", "--quiet", "torch==2.13.0", "transformers==5.19.*"]
    subprocess.run([*pip, "trl", "datasets", "accelerate"], check=True)
    (PEERS / ".ready").touch()


def vllm_is_there() -> bool:
    """Whether vLLM was put into the peers' environment: by hand, since its requirements name another torch."""
    return any((PEERS / "lib").glob("python*/site-packages/vllm"))


def measured(command: list[str], tree: Path = ROOT) -> dict[str, float]:
    """Run one measurement in a process of its own, and read its last line."""
    paths = f"{tree}{os.pathsep}{ROOT / 'benchmarks'}"
    where = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=where, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(command[1:])} failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


class Book:
    """All measurements so far, written after each one."""

    def __init__(self, path: Path, threads: int) -> None:
        self.path = path
        known = json.loads(path.read_text()) if path.exists() else {}
        if known and known["machine"] != machine(threads):
            raise SystemExit(f"bench: {path} was measured on another machine or with other threads: move it away.")
        self.rows: dict[str, dict[str, float]] = known.get("rows", {})
        self.threads = threads

    def row(self, key: str, command: list[str], tree: Path = ROOT) -> dict[str, float]:
        """A measurement from the book, or made now."""
        if key not in self.rows:
            self.rows[key] = measured(command, tree)
            print(f"{key}: {self.rows[key]['seconds']:.2f} s, {self.rows[key]['peak_mib']:.0f} MiB", flush=True)
            self.path.parent.mkdir(exist_ok=True)
            aside = self.path.with_suffix(".new")
            aside.write_text(json.dumps({"machine": machine(self.threads), "rows": self.rows}, indent=1))
            aside.replace(self.path)
        return self.rows[key]


def machine(threads: int) -> dict[str, str | int]:
    """The machine, as far as a reader must know it."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())  # fmt: skip
    return {"cpu": cpu, "cores": os.cpu_count() or 0, "threads": threads, "python": platform.python_version()}


def ours(setting: str, threads: int, *more: int) -> list[str]:
    """The command of one measurement of whet."""
    return [sys.executable, str(ROOT / "benchmarks" / "ours.py"), setting, str(threads), *map(str, more)]


def pair(book: Book, setting: str, peer: str, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """whet and a peer on the same prompts, in alternating order."""
    theirs = [str(PEERS / "bin" / "python"), str(ROOT / "benchmarks" / "peers.py"), peer, setting[-1]]
    todo = {"whet": ours(setting, book.threads, seed), peer: [*theirs, str(book.threads), str(seed)]}
    names = list(todo) if seed % 2 else list(todo)[::-1]
    found = {name: book.row(f"{setting}/{peer}/{seed}/{name}", todo[name]) for name in names}
    return found["whet"], found[peer]


def compared(book: Book, setting: str, pairs: int) -> list[str]:
    """Rows of the table for one setting."""
    peers, unit, target = PAIRS[setting]
    rows = []
    for peer in peers:
        if peer == "vllm" and not vllm_is_there():
            rows.append(f"| {setting} | vllm | not measured: not installed | | | |")
            continue
        both = [pair(book, setting, peer, seed) for seed in range(1, pairs + 1)]
        speed = [(mine["tokens"] / mine["seconds"]) / (other["tokens"] / other["seconds"]) for mine, other in both]
        time = [mine["seconds"] / other["seconds"] for mine, other in both]
        peak = median(mine["peak_mib"] / other["peak_mib"] for mine, other in both)
        ratio, goal = (time, target) if unit == "seconds" else (speed, target[peer])  # type: ignore[index]
        reached = median(ratio) <= goal if unit == "seconds" else median(ratio) >= goal
        each = ", ".join(f"{x:.2f}" for x in ratio)
        said = "yes" if reached else "no"
        rows.append(f"| {setting} | {peer} | {median(ratio):.2f} ({each}) | {goal:.2f} | {peak:.2f} | {said} |")
    return rows


def alone(book: Book, settings: list[str], pairs: int) -> list[str]:
    """D, the share of the matmul limit; E, growth with responses and with length."""
    lines = []
    if "D" in settings:
        found = [book.row(f"D/{seed}", ours("D", book.threads, seed))["matmul_share"] for seed in range(1, pairs + 1)]
        lines.append(
            f"\nD. The learner alone, B's shapes: {median(found):.0%} of the measured matmul limit (target 50 %).\n"
        )
    if "E" in settings:
        lines += [
            "\n| E. B, responses × | length × | seconds | tokens | µs per token | peak MiB |",
            "|---|---|---|---|---|---|",
        ]
        for times, longer in GROWTH:
            x = book.row(f"E/{times}/{longer}", ours("B", book.threads, 1, times, longer))
            each = x["seconds"] / x["tokens"] * 1e6
            lines.append(
                f"| {times} | {longer} | {x['seconds']:.1f} | {x['tokens']:.0f} | {each:.0f} | {x['peak_mib']:.0f} |"
            )
    return lines


def page(book: Book, settings: list[str], pairs: int) -> str:
    """docs/benchmarks.md."""
    has = ", ".join(f"{name} {value}" for name, value in machine(book.threads).items())
    lines = [
        "# Benchmarks\n",
        f"Written by `make bench` on: {has}.",
        "whet and each peer took turns; the ratio is the median of the pairs in brackets.\n",
        "| setting | peer | whet / peer | target | peak memory, whet / peer | reached |",
        "|---|---|---|---|---|---|",
    ]
    for setting in [name for name in settings if name in PAIRS]:
        lines += compared(book, setting, pairs)
    return "\n".join([*lines, *alone(book, settings, pairs), ""])


def against(commit: str, pairs: int, threads: int) -> None:
    """This tree and another commit on setting A, in turns."""
    tree = ROOT / ".bench" / "base"
    subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, capture_output=True)
    subprocess.run(["git", "worktree", "add", "--detach", str(tree), commit], cwd=ROOT, check=True, capture_output=True)
    command = [sys.executable, str(ROOT / "benchmarks" / "speed.py"), str(threads)]
    try:
        for name in ("CA", "step"):
            ratios = []
            for seed in range(1, pairs + 1):
                both = {
                    side: measured([*command, name, str(seed)], side) for side in (ROOT, tree)[:: 1 if seed % 2 else -1]
                }
                ratios.append(both[ROOT]["seconds"] / both[tree]["seconds"])
            print(f"{name}: {median(ratios):.2f} of the time of {commit} ({', '.join(f'{x:.2f}' for x in ratios)})")
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, capture_output=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=["A", "B", "CA", "CB", "D", "E"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "bench.json")
    parser.add_argument("--against", default="", help="a commit to compare this tree with, instead of peers")
    asked = parser.parse_args()
    (ROOT / ".bench").mkdir(exist_ok=True)
    if asked.against:
        against(asked.against, asked.pairs, asked.threads)
        return
    environment()
    measured_before = (ROOT / ".bench" / "compose.json").exists()
    if not measured_before:
        subprocess.run(
            ours("prepare", asked.threads), check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT
        )
    text = page(Book(asked.out, asked.threads), asked.settings, asked.pairs)
    (ROOT / "docs" / "benchmarks.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
