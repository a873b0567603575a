"""docs/reliability.md: what was done to runs on purpose, and what came of it, from the files in results/.

`python -m whet.report.reliability` writes it; with `--check` it only says whether it is stale.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from whet.report.facts import by_reason

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
NOT_YET = "not run yet"
WANTED = 6  # hours


def page(results: Path) -> str:
    """The page, from `reliability.json`, `soak.json` and `attacks.json`; what is not there is said to be missing."""
    told, soak, attacks = (_read(results / f"{name}.json") for name in ("reliability", "soak", "attacks"))
    lines = [
        "# Reliability",
        "",
        "Written from `results/` by `make docs`. The numbers are of the last `make reliability` and `make soak`.",
        "",
        "| what | tried | came out as it should |",
        "|---|---|---|",
        *_kills(told),
        *(f"| {kind} | {tried} | {handled} |" for kind, (tried, handled) in told.get("faults", {}).items()),
        *(f"| bad input: {kind} | {tried} | {tried} |" for kind, tried in told.get("bad_inputs", {}).items()),
        f"| attack programs | {attacks.get('tried', NOT_YET)} | {attacks.get('stopped', NOT_YET)} |",
        "",
        "A killed run came out as it should when weights, optimiser, memories, metrics, evaluations and kept responses",
        "of the finished run equal, byte for byte, those of the run that was never killed. A bad input came out as it",
        "should when it was accepted and worked, or was refused in one sentence.",
        "",
        *_red(told.get("failed", [])),
        "## The long run",
        "",
        *_soak(soak),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _kills(told: dict[str, Any]) -> list[str]:
    rows = told.get("kills", {}).get("rows", [])
    lines = [f"| SIGKILL, recipe `{row['recipe']}` | {row['tried']} | {row['survived']} |" for row in rows]
    tried, survived = (sum(row[name] for row in rows) for name in ("tried", "survived"))
    return (
        [*lines, f"| **SIGKILL in all** | **{tried}** | **{survived}** |"] if rows else [f"| SIGKILL | {NOT_YET} | |"]
    )


def _red(failed: list[str]) -> list[str]:
    """The tests that failed in that run: a bad input among them did not come out as it should."""
    names = [f"- `{name.split('::', 1)[-1]}`" for name in failed]
    return ["**Red in that run**, so not every count above is what it should be:", "", *names, ""] if names else []


def _soak(soak: dict[str, Any]) -> list[str]:
    if not soak:
        return [f"{NOT_YET.capitalize()}: `make soak HOURS=6`."]
    runs = soak["runs"]
    segments = [segment for run in runs for segment in run["segments"]]
    reasons: Counter[str] = Counter()
    for run in runs:
        reasons.update(run["reasons"])
    facts = {
        f"hours, of {WANTED}": f"**{soak['hours']:.2f}**, by {_many(len(segments), 'process', 'processes')} "
        f"on {_many(len(runs), 'run', 'runs')}",
        "updates": _sum(runs, "updates"),
        "responses that the judge could not judge": f"{_sum(runs, 'unknown')}, all unknown: {by_reason(reasons)}",
        "lost responses": _sum(runs, "lost_responses"), "lost metrics": _sum(runs, "lost_metrics"),
        "steps not taken": _sum(runs, "not_taken"),
        "queries to the store while it was written": sum(s.get("queries", 0) for s in segments),
        "failed queries": sum(s.get("failed", 0) for s in segments),
        "slowest query": f"{max(s.get('slowest_seconds', 0) for s in segments)} s",
    }  # fmt: skip
    lines = ["| what | found |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items()), ""]
    lines += [
        "Change per hour in each process, with its 95 % interval; the first tenth of a process is left out. Own memory",
        "is what no file backs; resident memory also falls when other programs want memory. The time of the clock",
        "moves with what else the machine does; processor time does less.",
        "",
        "| updates | hours | own memory | resident memory | of the judges | processor time | time of the clock |",
        "|" + "---|" * 7,
    ]
    columns = ("own", "memory", "judges", "cpu", "wall")
    for s in segments:
        first, last = s["updates"]
        cells = [f"{first} … {last}", f"{s['hours']:.2f}", *(_slope(s.get(n)) for n in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"\n{s['updates'][0]} … {s['updates'][1]}: {s['note']}" for s in segments if "note" in s]
    return lines + notes


def _many(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def _sum(rows: list[dict[str, Any]], name: str) -> int:
    return sum(row[name] for row in rows)


def _slope(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not measured"
    if row["per_hour"] is None:
        return "the run was too short to tell"
    unit = row["unit"].split(",")[0]
    return f"{row['per_hour']:+.3g} {unit} ({row['low']:+.3g} to {row['high']:+.3g}), mean {row['mean']:.4g}"


def main(words: list[str]) -> int:
    """Write the page, or with `--check` say whether it is stale."""
    made = page(ROOT / "results")
    if "--check" in words:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != made:
            print("docs/reliability.md is stale: run `make docs`.", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
