"""docs/benchmarks.md from results/bench.json: python benchmarks/page.py writes it, --check says whether it is stale."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "bench.json"
PAGE = ROOT / "docs" / "benchmarks.md"
Rows = Sequence[dict[str, float]]


def made(book: dict[str, Any]) -> str:
    return json.dumps(book)[:200]

def ratios(ours: Rows, theirs: Rows, of: str) -> list[float]:
    """whet over the other, turn by turn."""
    return [told(mine, of) / told(other, of) for mine, other in zip(ours, theirs, strict=True)]


def told(row: dict[str, float], of: str) -> float:
    """One number of a measurement."""
    made = {"seconds per token": ("seconds", "tokens"), "tokens/s": ("tokens", "seconds")}
    return row[made[of][0]] / row[made[of][1]] if of in made else row[of]


def spread(found: Sequence[float], digits: int = 2) -> str:
    """Median, least and most."""
    return f"{median(found):.{digits}f} ({min(found):.{digits}f} to {max(found):.{digits}f})"
