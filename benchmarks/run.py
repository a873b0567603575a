"""make bench: whet and its peers in turns on this machine. Stop it and start it again: finished settings stay.

python benchmarks/run.py                     the settings that results/bench.json lacks, or has of another commit
python benchmarks/run.py A CB                these, again
python benchmarks/run.py --against COMMIT    this tree and another commit, in turns
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median

import page
import work
from machine import described
from turns import Row, Worker

ROOT, PLACE = work.ROOT, work.PLACE
PEERS = PLACE / "peers"
PAIRS = {
    "A": ["trl"],
    "B": ["trl"],
    "B8": ["trl"],
    "B16": ["trl"],
    "CA": ["generate", "vllm"],
    "CB": ["generate", "vllm"],
}
GROWTH = ["1x1", "2x1", "4x1", "8x1", "1x2", "1x4"]  # setting E: responses × length
GOAL, LAST, MOST = 0.8, 3, 150  # setting T: this mean reward over the last three steps, in at most so many
ALL = ("A", "B", "B8", "B16", "CA", "CB", "D", "E", "T")


def environment() -> None:
    """The peers' own environment, once: TRL, `generate`, and vLLM's build for processors, beside the same torch."""
    ready, python = PEERS / ".ready", PEERS / "bin" / "python"
    if not ready.exists():
        print(f"Making the environment of the peers in {PEERS}: about 3 GB and some minutes, once.", flush=True)
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "-r", str(ROOT / "benchmarks" / "peers.txt"), "-c", "constraints.txt"], cwd=ROOT, check=True
        )
        subprocess.run([*pip, "--no-deps", "-r", "constraints-vllm.txt"], cwd=ROOT, check=True)
        ready.touch()


def prepared() -> None:
    """Models and problems, once."""
    if not (PLACE / "compose-12.json").exists() or not (PLACE / "models" / "large" / "model.safetensors").exists():
        subprocess.run(ours("prepare"), env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, check=True)


def ours(*words: str) -> list[str]:
    """whet as a worker."""
    return [sys.executable, str(ROOT / "benchmarks" / "ours.py"), *words]


def theirs(peer: str, *words: str) -> list[str]:
    """A peer as a worker."""
    return [str(PEERS / "bin" / "python"), str(ROOT / "benchmarks" / "peers.py"), peer, *words]


class Bench:
    """The book of results, and how a setting is measured."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.path, self.pairs, self.threads, self.size = asked.out, asked.pairs, asked.threads, asked.size
        self.book = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.here = described(asked.threads, PEERS / "bin" / "python")
        if not (asked.settings or asked.against) and self.book.get("machine", self.here) != self.here:
            raise SystemExit(f"bench: {self.path} is of another machine or other versions: name the settings to redo.")
        self.settings = self.book.setdefault("settings", {})
        if "machine" not in self.book or set(self.settings) <= set(asked.settings):
            self.book["machine"] = self.here  # of all that will be in the book
        self.commit = commit()

    def stale(self, setting: str) -> bool:
        """Whether this setting was not measured at this commit."""
        return self.settings.get(setting, {}).get("commit") != self.commit

    def measure(self, setting: str) -> None:
        """Measure a setting, and write the book."""
        began = time.time()
        found = {"D": self.learner, "E": self.growth, "T": self.target}.get(setting, lambda: self.paired(setting))()
        elsewhere = {} if self.here == self.book["machine"] else {"machine": self.here}
        minutes = round((time.time() - began) / 60, 1)
        self.settings[setting] = {"commit": self.commit, "minutes": minutes, **elsewhere, **found}
        self.path.parent.mkdir(exist_ok=True)
        aside = self.path.with_suffix(".new")
        aside.write_text(json.dumps(self.book, indent=1) + "\n")
        aside.replace(self.path)

    def paired(self, setting: str) -> dict[str, dict[str, list[Row]]]:
        """whet and its peers in turns, whoever began last comes first next."""
        what = "sample" if setting.startswith("C") else "step"
        commands = {"whet": ours(what, setting, self.size)}
        commands |= {peer: theirs(peer, setting, self.size) for peer in PAIRS[setting]}
        return {"rows": self.in_turns(setting, commands, self.pairs if setting != "B8" else min(self.pairs, 2))}

    def in_turns(self, setting: str, commands: dict[str, list[str]], rounds: int) -> dict[str, list[Row]]:
        """So many turns of each worker; all are warm before the first."""
        with ExitStack() as stack:
            workers = {name: stack.enter_context(Worker(x, self.threads)) for name, x in commands.items()}
            rows: dict[str, list[Row]] = {name: [] for name in workers}
            for turn in range(1, rounds + 1):
                for name in [*workers][:: 1 if turn % 2 else -1]:
                    rows[name].append(workers[name].turn(turn))
                    say(setting, name, rows[name][-1])
        return rows

    def learner(self) -> dict[str, dict[str, list[Row]]]:
        """D: in both number formats, where this processor has both."""
        commands = {"float32": ours("learner", "B", self.size)}
        if {"avx512_bf16", "amx_bf16"} & {*self.here["instructions"]}:
            commands["bfloat16"] = ours("learner", "B", self.size or "1x1", "bfloat16")
        return {"rows": self.in_turns("D", commands, self.pairs)}

    def growth(self) -> dict[str, dict[str, list[Row]]]:
        """E: each size in a process of its own, so that its peak is its own."""
        rows: dict[str, list[Row]] = {}
        for size in GROWTH:
            rows |= self.in_turns("E", {size: ours("step", "E", self.size or size)}, 2)
        return {"rows": rows}

    def target(self) -> dict[str, dict[str, list[Row]]]:
        """T: whet and TRL on the same task, step by step in turns, each until it has reached the goal."""
        found: dict[str, list[Row]] = {"whet": [], "trl": []}
        for seed in range(1 if self.size else 3):
            commands = {"whet": ours("step", "T", self.size), "trl": theirs("trl", "T", self.size)}
            with ExitStack() as stack:
                left = {x: stack.enter_context(Worker(y, self.threads, seed=seed)) for x, y in commands.items()}
                rows: dict[str, list[Row]] = {name: [] for name in commands}
                for turn in range(1, 3 if self.size else MOST):
                    for name, worker in [*left.items()]:
                        rows[name].append(worker.turn(turn))
                        last = [row["score"] for row in rows[name][-LAST:]]
                        if len(last) == LAST and mean(last) >= GOAL:
                            left.pop(name)
            for name, mine in rows.items():
                scores = [round(row["score"], 4) for row in mine]
                row = {"seconds": sum(row["seconds"] for row in mine), "steps": len(mine), "reached": name not in left}
                found[name].append({**row, "scores": scores})  # type: ignore[dict-item]
                say("T", name, row)
        return {"rows": found}


def say(setting: str, name: str, row: Row) -> None:
    """One measurement, for whoever waits."""
    print(f"{setting} {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)


def commit() -> str:
    """The last commit that changed what is measured, and whether it was changed since."""
    code = ["--", "whet", "benchmarks"]
    told = subprocess.run(["git", "log", "-1", "--format=%h", *code], cwd=ROOT, capture_output=True, text=True)
    changed = subprocess.run(["git", "status", "--porcelain", *code], cwd=ROOT, capture_output=True, text=True)
    return (told.stdout.strip() or "unknown") + ("-changed" if changed.stdout.strip() else "")


def against(base: str, bench: Bench, settings: list[str]) -> None:
    """This tree and another commit, in turns."""
    tree = PLACE / "base"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "remove", "--force", str(tree)], capture_output=True)
    made = subprocess.run([*git, "add", "--detach", str(tree), base], capture_output=True, text=True)
    if made.returncode:
        raise SystemExit(f"bench: there is no commit {base!r} to compare with: {made.stderr.strip().splitlines()[-1]}")
    try:
        for setting in settings:
            command = ours("sample" if setting.startswith("C") else "step", setting, bench.size)
            with ExitStack() as stack:
                both = [stack.enter_context(Worker(command, bench.threads, place)) for place in (ROOT, tree)]
                rows: list[list[Row]] = [[], []]
                for turn in range(1, bench.pairs + 1):
                    for side in (0, 1) if turn % 2 else (1, 0):
                        rows[side].append(both[side].turn(turn))
            times, peaks = (page.ratios(*rows, key) for key in ("seconds per token", "peak_mib"))
            print(
                f"{setting}, this tree / {base}: time per token {page.spread(times)}, peak memory {median(peaks):.2f}"
            )
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], capture_output=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "settings", nargs="*", metavar="SETTING", help=f"of {', '.join(ALL)}; those that are stale without"
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "bench.json")
    parser.add_argument("--size", default="", help="tiny: only to see whether the benchmark itself works")
    parser.add_argument("--against", default="", metavar="COMMIT", help="compare with a commit instead of with peers")
    asked = parser.parse_args()
    unknown = [name for name in asked.settings if name not in ALL]
    if unknown:
        parser.error(f"there is no setting {unknown[0]}: they are {', '.join(ALL)}")
    PLACE.mkdir(exist_ok=True)
    prepared()
    if not asked.against:
        environment()
    bench = Bench(asked)
    if asked.against:
        against(asked.against, bench, asked.settings or ["A", "CA"])
        return
    for setting in asked.settings or [name for name in ALL if bench.stale(name)]:
        bench.measure(setting)
    print(page.made(bench.book))
    if asked.out == ROOT / "results" / "bench.json":
        page.PAGE.write_text(page.made(bench.book), encoding="utf-8")


if __name__ == "__main__":
    main()
