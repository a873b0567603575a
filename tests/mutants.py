"""Planted bugs: does a test turn red?

`python -m tests.mutants` plants one bug at a time in a copy of the package (a flipped sign, a wrong axis, a mean
over padding, a forgotten detach, min for max, the wrong side of a clip, a dropped epsilon, …), runs the laws,
the doctests and the parity tests that concern the file, and prints which bugs no test noticed. Bugs that change
nothing that can be observed are listed with the reason in `tests/mutants.json`.
"""

import argparse
import ast
import copy
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXCUSES = Path(__file__).with_suffix(".json")
SPINE = ("groups", "plain", "step", "batch", "draw", "metrics", "recipe")
SPINE_TESTS = ["tests/laws", "tests/parity", "tests/test_recipe.py", "tests/test_step.py"]
SPINE_RECIPES = "rloo or grpo or ppo or gspo or dapo or k2_loss or nsr or remax or not_a_recipe"
LIMIT = 120  # seconds for one mutant; a bug that hangs is noticed

OTHER_OPERATOR = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.GtE, ast.GtE: ast.Lt,
    ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.FloorDiv: ast.Div,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult,
}  # fmt: skip
OTHER_NAME = {
    "minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min", "amax": "amin", "amin": "amax",
    "low": "high", "high": "low", "any": "all", "all": "any", "cumsum": "cumprod", "exp": "expm1", "log": "log1p",
    "token_mean": "token_sum", "token_sum": "token_mean", "old_logp": "logp", "argmax": "argmin", "argmin": "argmax",
}  # fmt: skip
PADDED = {"token_mean": "mean(1)", "batch_mean": "mean()", "token_sum": "sum(1)"}
WITHOUT_GROUPS = {"mean": "mean()", "std": "std()", "total": "sum()"}


@dataclass(frozen=True)
class Mutant:
    """One planted bug."""

    file: str
    line: int
    what: str
    source: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def edits(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], ast.AST]]]:
    """Every way to spoil one node, as a sentence and a function of a copy of it."""
    if isinstance(node, ast.BinOp) and type(node.op) in OTHER_OPERATOR:
        other = OTHER_OPERATOR[type(node.op)]
        yield f"{type(node.op).__name__} → {other.__name__}", lambda n: _with(n, op=other())
        if isinstance(node.op, ast.Add | ast.Mult | ast.Sub):
            yield f"{ast.unparse(node)} → its left side", lambda n: n.left
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER_OPERATOR:
        other = OTHER_OPERATOR[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} → {other.__name__}", lambda n: _with(n, ops=[other()])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert | ast.Not):
        yield f"{type(node.op).__name__} dropped from {ast.unparse(node)}", lambda n: n.operand
    if isinstance(node, ast.Attribute) and node.attr in OTHER_NAME:
        yield f"{node.attr} → {OTHER_NAME[node.attr]}", lambda n: _with(n, attr=OTHER_NAME[n.attr])
    if isinstance(node, ast.Name) and node.id in OTHER_NAME and isinstance(node.ctx, ast.Load):
        yield f"{node.id} → {OTHER_NAME[node.id]}", lambda n: _with(n, id=OTHER_NAME[n.id])
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value in (0, 1, 2):
        yield f"{node.value} → {node.value + 1}", lambda n: _with(n, value=n.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is float and node.value:
        yield f"{node.value} → {-node.value}", lambda n: _with(n, value=-n.value)
    if isinstance(node, ast.Call):
        yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[tuple[str, Callable[[ast.AST], ast.AST]]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    on_groups = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "groups"
    if name in ("detach", "clamp", "sqrt", "abs"):
        yield f".{name}() dropped", lambda n: n.func.value
    if name == "where" and len(node.args) == 3:
        yield "the branches of where swapped", lambda n: _with(n, args=[n.args[0], n.args[2], n.args[1]])
    if on_groups and name == "spread":
        yield "spread without the mask", lambda n: n.args[0]
    if on_groups and name in PADDED:
        yield f"groups.{name} over padding", lambda n: _expression(f"({ast.unparse(n.args[0])}).{PADDED[name]}")
    if on_groups and name in WITHOUT_GROUPS and len(node.args) == 2:
        yield (
            f"groups.{name} over the whole batch",
            lambda n: _expression(f"({ast.unparse(n.args[0])}).{WITHOUT_GROUPS[name]}"),
        )


def _with(node: ast.AST, **changes: object) -> ast.AST:
    for name, value in changes.items():
        setattr(node, name, value)
    return node


def _expression(text: str) -> ast.AST:
    return ast.parse(text, mode="eval").body


class _Spoil(ast.NodeTransformer):
    """Applies edit number `which` in the order of a walk."""

    def __init__(self, which: int) -> None:
        self.which, self.count, self.what, self.line = which, 0, "", 0

    def visit(self, node: ast.AST) -> ast.AST:
        for what, edit in edits(node):
            if self.count == self.which:
                self.what, self.line = what, getattr(node, "lineno", 0)
                self.count += 1
                return ast.copy_location(edit(copy.deepcopy(node)), node)
            self.count += 1
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = [self.visit(child) for child in node.body]
        return node


def mutants_of(path: Path) -> list[Mutant]:
    """Every bug that can be planted in the functions of a file; settings and recipes are left alone."""
    text = path.read_text()
    found = []
    tree = ast.parse(text)
    for i, top in enumerate(tree.body):
        functions = [top] if isinstance(top, ast.FunctionDef) else []
        if isinstance(top, ast.ClassDef):
            functions = [node for node in top.body if isinstance(node, ast.FunctionDef)]
        for function in functions:
            found += _mutants_in(path, tree, i, function)
    return found


def _mutants_in(path: Path, tree: ast.Module, top: int, function: ast.FunctionDef) -> list[Mutant]:
    found, which = [], 0
    while True:
        spoiled = copy.deepcopy(tree)
        target = next(
            node for node in ast.walk(spoiled.body[top])
            if isinstance(node, ast.FunctionDef) and node.name == function.name
        )  # fmt: skip
        spoil = _Spoil(which)
        spoil.visit(target)
        if not spoil.what:
            return found
        source = ast.unparse(ast.fix_missing_locations(spoiled))
        found.append(Mutant(str(path.relative_to(ROOT)), spoil.line, f"in {function.name}, {spoil.what}", source))
        which += 1


def chosen(each: int, spine: int, only: str) -> list[Mutant]:
    """The bugs of this run: `each` from every paper's file, `spine` from each file of the spine; always the same."""
    found = []
    for path in sorted((ROOT / "whet" / "papers").glob("*.py")) + [ROOT / "whet" / f"{name}.py" for name in SPINE]:
        if path.stem.startswith("_") or (only and only != path.stem):
            continue
        every = mutants_of(path)
        random.Random(path.stem).shuffle(every)
        found += every[: spine if path.stem in SPINE else each]
    return found


def tests_for(mutant: Mutant) -> list[str]:
    """The arguments of pytest for a mutant: what concerns its file, quickest first."""
    stem = Path(mutant.file).stem
    if stem in SPINE:
        return [
            mutant.file,
            *(path for path in SPINE_TESTS if (ROOT / path).exists()),
            "-k",
            f"{SPINE_RECIPES} or test_",
        ]
    from whet import shelf

    names = [name for name, row in shelf.index().items() if row["file"] == stem]
    law = " or ".join([f"[{name}]" for name in names] + [f"-{name}]" for name in names])
    return [
        mutant.file,
        "tests/parity",
        "tests/test_step.py",
        "tests/laws",
        "-k",
        f"parity or {stem} or dynamic or {law}",
    ]


def survives(mutant: Mutant) -> bool:
    """True when no test fails. A child process with PyTorch already imported runs them on a spoiled copy."""
    place = Path(tempfile.mkdtemp(prefix="mutant-"))
    try:
        for part in ("whet", "tests", "golden"):
            shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
        for name in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / name, place / name)
        (place / mutant.file).write_text(mutant.source)
        return _green(place, tests_for(mutant))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _green(place: Path, arguments: list[str]) -> bool:
    import subprocess

    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--no-header",
        "-p",
        "no:xdist",
        "-p",
        "no:randomly",
        *arguments,
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(place),
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(place / "cache"),
    }
    try:
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=2, help="bugs in each paper's file")
    parser.add_argument("--spine", type=int, default=12, help="bugs in each file of the spine")
    parser.add_argument("--only", default="", help="one file, by its name without .py")
    given = parser.parse_args()
    excuses = json.loads(EXCUSES.read_text()) if EXCUSES.exists() else {}
    planted, began = chosen(given.each, given.spine, given.only), time.time()
    alive = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, (mutant, lives) in enumerate(zip(planted, pool.map(survives, planted), strict=True), 1):
            if lives:
                alive.append(mutant)
            print(f"{done}/{len(planted)} {'SURVIVES' if lives else 'caught  '} {mutant.name}", flush=True)
    caught = len(planted) - len(alive)
    seconds = time.time() - began
    print(f"\n{caught} of {len(planted)} planted bugs were caught ({caught / len(planted):.1%}) in {seconds:.0f} s.")
    for mutant in alive:
        print(f"survives: {mutant.name}: {excuses.get(mutant.name, 'no reason is known')}")
    return 0 if caught >= 0.95 * len(planted) else 1


if __name__ == "__main__":
    sys.exit(main())
