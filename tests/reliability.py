"""`python -m tests.reliability` runs everything that should not be able to lose a run, and counts what happened.

A part alone is run by its name: tests, kills or attacks.

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
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "results" / "reliability.json"
ATTACKS = ROOT / "results" / "attacks.json"
FILES = [
    str(ROOT / "tests" / name)
    for name in (
        "test_reliability.py", "test_fuzz.py", "tasks/test_judging.py", "engines/test_trust.py",
        "sandbox/test_sandbox.py",
    )
]  # fmt: skip
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
    "sampler_that_reports": "unsound model, found by the self-check",
    "learner_that_reads": "unsound model, found by the self-check",
    "gradient_that_does": "unsound model, found by the self-check",
    "whatever_a_judge_does": "hostile judge",
    "nonsense_into_the_pipes": "hostile judge", "fails_now_and_then": "hostile judge", "always_hangs": "hostile judge",
    "unknown_rewards": "judge that cannot judge, in a whole run",
    "machine_has_no_time": "machine too busy for a program", "however_much_else": "machine too busy for a program",
    "system_kills": "machine too busy for a program", "nothing_is_left": "process left behind by a killed run",
    "sandbox_that_was": "lost sandbox", "every_sandbox_is_lost": "lost sandbox",
    "opened_unasked": "pickles and code of a model, unasked",
    "pickle_that_runs": "pickles and code of a model, unasked",
    "adapters_in_a_pickle": "pickles and code of a model, unasked",
    "spoiled_model": "spoiled model directory", "lack_something": "spoiled model directory",
}  # fmt: skip


class Count:
    """A pytest plugin that counts what each kind of fault came to."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.handled: Counter[str] = Counter()
        self.failed: list[str] = []
        from tests.tasks.test_judging import REASONS

        self.many = {"whatever_a_judge_does": len(REASONS)}  # one test, one judge that does each of these

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        if report.failed:
            self.failed.append(report.nodeid)
        word = next((word for word in KINDS if word in report.nodeid), "")
        if word and not report.skipped:
            many = self.many.get(word, 1)
            self.tried[KINDS[word]] += many
            self.handled[KINDS[word]] += many * report.passed


def main(parts: Sequence[str]) -> list[str]:
    """Run some parts, or all without one; each writes what it found at once. Returns what failed."""
    for part in parts or PARTS:
        found = PARTS[part]()
        place = ATTACKS if part == "attacks" else RESULT
        before = json.loads(place.read_text()) if place.is_file() else {}
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps({**before, **found}, indent=1) + "\n")
    return json.loads(RESULT.read_text()).get("failed", [])


def _tests() -> dict[str, object]:
    count, inputs = Count(), Path(tempfile.mkdtemp()) / "inputs.json"
    os.environ["WHET_BAD_INPUTS"] = str(inputs)
    pytest.main([*FILES, *QUIET, "-k", "not killed_at_any_moment and not table_of_reliability"], plugins=[count])
    return {
        "faults": {kind: [count.tried[kind], count.handled[kind]] for kind in dict.fromkeys(KINDS.values())},
        "bad_inputs": json.loads(inputs.read_text()),
        "failed": count.failed,
    }


def _kills() -> dict[str, object]:
    seed = random.SystemRandom().randrange(10**6)
    command = [sys.executable, "-m", "tests.killing", "30", str(seed)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    return {"kills": {"seed": seed, "rows": json.loads(told)}}


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


PARTS = {"tests": _tests, "kills": _kills, "attacks": _attacks}


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
