"""`python -m tests.reliability` runs everything that should not be able to lose a run, and counts what happened.

The counts go into results/reliability.json, from which docs/reliability.md is written. A test counts as one fault,
injected by its kind and handled if it passed; bad inputs are counted one by one as the fuzzers try them.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "results" / "reliability.json"
ATTACKS = ROOT / "results" / "attacks.json"
QUIET = ("-q", "-W", "ignore::pytest.PytestAssertRewriteWarning")  # this module was imported by itself
KINDS = {
    "damaged": "damaged checkpoint", "version_0_1": "checkpoint of another version",
    "newer_whet": "checkpoint of another version",
    "disk_that_is_full": "full disk", "cannot_be_written": "read-only folder", "clock": "clock that goes backwards",
    "second_process": "second process on one run", "another_run": "changed problems, model, task or seed",
    "changed_part": "changed recipe", "setting_changed": "changed setting",
    "another_machine": "other machine or version",
    "number_that_is_none": "NaN or infinity, by stage", "bad_step": "NaN or infinity, in a whole run",
    "several_optimiser": "NaN or infinity, in a whole run", "three_bad": "NaN or infinity, in a whole run",
    "weights_that_are": "NaN or infinity, in a whole run", "spike": "gradient spike",
    "every_memory": "memory of a recipe saved and read back", "noise_in": "unsound model, found by the self-check",
    "another_reference": "unsound model, found by the self-check",
    "sees_padding": "unsound model, found by the self-check",
    "cannot_tell": "unsound judge, found by the self-check", "loss_that_is": "unsound recipe, found by the self-check",
    "spoiled_model": "spoiled model directory", "lack_something": "spoiled model directory",
}  # fmt: skip


class Count:
    """A pytest plugin that counts what each kind of fault came to."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.handled: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        if report.failed:
            self.failed.append(report.nodeid)
        kind = next((kind for word, kind in KINDS.items() if word in report.nodeid), "")
        if kind and not report.skipped:
            self.tried[kind] += 1
            self.handled[kind] += report.passed


def main() -> dict[str, object]:
    count, inputs = Count(), Path(tempfile.mkdtemp()) / "inputs.json"
    os.environ["WHET_BAD_INPUTS"] = str(inputs)
    files = [str(ROOT / "tests" / name) for name in ("test_reliability.py", "test_fuzz.py")]
    pytest.main([*files, *QUIET, "-k", "not killed_at_any_moment and not table_of_reliability"], plugins=[count])
    seed = random.SystemRandom().randrange(10**6)
    kills = json.loads(_killing(seed))
    result = {
        "kills": {"seed": seed, "rows": kills},
        "faults": {kind: [count.tried[kind], count.handled[kind]] for kind in dict.fromkeys(KINDS.values())},
        "bad_inputs": json.loads(inputs.read_text()),
        "failed": count.failed,
    }
    RESULT.parent.mkdir(exist_ok=True)
    ATTACKS.write_text(json.dumps(_attacks(), indent=1) + "\n")
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _attacks() -> dict[str, int]:
    """How many attacking programs were tried; they count as stopped where the test that tries them all passes."""
    from tests.sandbox.attacks import AGAINST_US, ALL, FORGERIES

    many = {"no_attack_gets_through": len(ALL), "no_forgery_gets_reward": len(FORGERIES) + len(AGAINST_US)}
    file = str(ROOT / "tests" / "sandbox" / "test_attacks.py")
    passed = [
        test
        for test in many
        if subprocess.run([sys.executable, "-m", "pytest", "-q", file, "-k", test]).returncode == 0
    ]
    return {"tried": sum(many.values()), "stopped": sum(many[test] for test in passed)}


def _killing(seed: int) -> str:
    command = [sys.executable, "-m", "tests.killing", "30", str(seed)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()[-1]


if __name__ == "__main__":
    sys.exit(bool(main()["failed"]))
