"""How long each recipe takes to learn `digits`: python -m tests.learning.seconds. Writes results/digits.json."""

import json
from pathlib import Path

import torch

from tests.learning.base import ENOUGH, RECIPES, STEPS, excused, trained

RESULT = Path(__file__).parents[2] / "results" / "digits.json"


def main() -> None:
    """Train every recipe, print what it came to, and keep it."""
    torch.set_num_threads(1)
    rows = {}
    for name in sorted(RECIPES):
        best, seconds = trained(name)
        rows[name] = {"share": round(best, 3), "seconds": round(seconds, 2), "excused": excused(name)}
        print(f"{name:32} {best:6.2f} {seconds:6.2f} s{'  says why not' if excused(name) else ''}", flush=True)
    learned = {name: row for name, row in rows.items() if row["share"] >= ENOUGH}
    slowest = max(learned, key=lambda name: learned[name]["seconds"])
    print(f"{len(learned)} of {len(rows)} reach {ENOUGH}; the slowest is {slowest}, {learned[slowest]['seconds']} s")
    about = {
        "command": "python -m tests.learning.seconds",
        "steps": STEPS,
        "enough": ENOUGH,
        "seconds": "CPU, 1 thread",
    }
    RESULT.write_text(json.dumps({**about, "recipes": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
