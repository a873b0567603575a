"""docs/reliability.md: what was done to runs on purpose, and what came of it, from the files in results/.

`python -m whet.report.reliability` writes it; with `--check` it only says whether it is stale.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
NOT_YET = "not run yet"


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


def _soak(soak: dict[str, Any]) -> list[str]:
    if not soak:
        return [f"{NOT_YET.capitalize()}: `make soak HOURS=6`."]
    facts = {
        "hours": soak["hours"], "updates": soak["updates"], "ended as": soak["ended"],
        "memory, change per hour (95 % interval)": _slope(soak["memory"]),
        "speed, change per hour (95 % interval)": _slope(soak["speed"]),
        "responses that the judge could not judge, counted as unknown": soak["unknown"],
        "lost responses": soak["lost_responses"], "lost metrics": soak["lost_metrics"],
        "queries to the store while it was written": soak["queries"], "failed queries": soak["failed"],
        "slowest query": f"{soak['slowest_seconds']} s",
    }  # fmt: skip
    return ["| what | found |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())]


def _slope(row: dict[str, Any]) -> str:
    if row["per_hour"] is None:
        return "the run was too short to tell"
    return f"{row['per_hour']:+.3g} {row['unit']} ({row['low']:+.3g} to {row['high']:+.3g}), mean {row['mean']:.4g}"


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
