"""The shape of the project: imports are citations, layers are kept, files stay small, listing stays cheap."""

import ast
import inspect
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

from whet import shelf
from whet.fields import FIELDS
from whet.recipe import STAGES, function_of

ROOT = Path(__file__).parents[1]
PAPERS = sorted(path for path in (ROOT / "whet" / "papers").glob("*.py") if not path.stem.startswith("_"))
PACKAGE = sorted((ROOT / "whet").rglob("*.py"))
ALLOWED = {"whet", "torch", "functools", "itertools", "math", "typing", "collections", "dataclasses"}
SPINE = {"whet.fields", "whet.groups", "whet.plain", "whet.recipe", "whet.batch", "whet.tournaments", "whet"}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{alias.name}" if node.module in ("whet", "whet.papers") else node.module
                for alias in node.names
            }
    return found


def dates() -> dict[str, str]:
    found: dict[str, str] = {}
    for row in shelf.index().values():
        found[row["file"]] = min(found.get(row["file"], "9999"), row["date"])
    return found


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_a_paper_imports_only_papers_that_were_public_before_it(path):
    when = dates()
    for name in imported(path):
        if name.startswith("whet.papers."):
            cited = name.removeprefix("whet.papers.")
            assert when[cited][:7] <= when[path.stem][:7], (
                f"{path.stem} ({when[path.stem]}) cites {cited} ({when[cited]})"
            )


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_a_paper_imports_only_the_spine_and_other_papers(path):
    for name in imported(path):
        assert name.split(".")[0] in ALLOWED, name
        if name.startswith("whet"):
            assert name in SPINE or name.startswith("whet.papers."), name


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_every_recipe_has_a_title_a_date_and_says_what_is_new(path):
    rows = [row for row in shelf.index().values() if row["file"] == path.stem]
    assert rows
    for row in rows:
        assert row["title"]
        assert row["new"]
        assert row["new"] == row["new"].strip(". ")
        assert re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", row["date"]), row["date"]


def test_a_paper_is_one_file_and_a_file_one_paper():
    """Parts of one paper share a file, told by its arXiv number or, where it has none, by its address."""
    papers = {(name, recipe.paper) for name, recipe in shelf.every_recipe().items()}
    files = {(shelf.index()[name]["file"], paper.arxiv or paper.link) for name, paper in papers}
    for kind in (0, 1):
        several = [one for one, times in Counter(pair[kind] for pair in files).items() if times > 1]
        assert not several, several


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_a_paper_file_is_at_most_120_lines(path):
    assert len(path.read_text().splitlines()) <= 120


def test_the_median_paper_file_is_at_most_60_lines():
    assert median(len(path.read_text().splitlines()) for path in PAPERS) <= 60


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.stem)
def test_a_file_is_at_most_400_lines_and_a_function_at_most_60(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, f"{node.name} in {path.name}"


def test_the_step_can_be_read_at_one_sitting():
    lines = [line for line in (ROOT / "whet" / "step.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 115


def test_no_six_lines_stand_in_two_papers():
    seen: dict[tuple[str, ...], str] = {}
    for path in PAPERS:
        lines = [line.strip() for line in path.read_text().splitlines()]
        lines = [line for line in lines if len(line) > 3 and not line.startswith(("#", "import", "from", '"""'))]
        for i in range(len(lines) - 5):
            window = tuple(lines[i : i + 6])
            other = seen.setdefault(window, path.stem)
            assert other == path.stem, f"{path.stem} repeats {other}: {window}"


def test_parts_have_no_open_arguments_and_a_doctest():
    for recipe in shelf.every_recipe().values():
        for stage, part in recipe.parts(*STAGES):
            function = function_of(part)
            kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
            assert not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}, function.__name__
            numeric = stage not in ("choose", "sample", "update", "control") and function.__module__ != "whet.plain"
            if numeric:
                assert ">>>" in (function.__doc__ or ""), f"{function.__name__} has no number to check"


def test_every_field_has_a_shape_a_unit_a_maker_and_a_meaning():
    for name, field in FIELDS.items():
        assert all((field.shape, field.unit, field.made_by, field.meaning)), name


@pytest.mark.parametrize("command", [["--help"], ["list"], ["train", "--help"]])
def test_listing_and_help_import_no_heavy_library(command):
    shelf.index()
    code = (
        "import sys; sys.argv = ['whet', *sys.argv[1:]]\n"
        "from whet.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'altair', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "grpo" in done.stdout


def test_importing_the_papers_does_not_import_transformers():
    code = (
        "import sys\nfrom whet import shelf\nshelf.every_recipe()\n"
        "assert not {'transformers', 'vllm', 'ray', 'altair'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
