"""Planted bugs: does a test turn red?

`python -m tests.mutants` plants one bug at a time in a copy of the package (a flipped sign, a wrong axis, a mean
over padding, a forgotten detach, min for max, the wrong side of a clip, a dropped epsilon, …), runs the doctests,
laws and parity tests that concern the file, and prints which bugs no test noticed. Bugs that change nothing that
can be observed stand in `tests/mutants.json`, each with the reason.

Every worker has a copy of its own and imports PyTorch once. For each bug it forks, and the child runs pytest. The
bugs of the spine come first; then the worker imports the package, and a child forgets only what a paper's bug reaches.
"""

import argparse
import ast
import copy
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXCUSES = Path(__file__).with_suffix(".json")
SPINE = ("groups", "plain", "step", "batch", "draw", "metrics", "recipe")
SPINE_TESTS = (
    "tests/test_spine.py",
    "tests/test_metrics.py",
    "tests/test_recipe.py",
    "tests/laws/test_laws.py",
    "tests/test_step.py",
    "tests/test_asked.py",
    "tests/parity/test_surrogates.py",
)
SPINE_RECIPES = {"grpo", "ppo", "dapo", "clip_cov", "k3_reward"}
SLOW = {"test_no_two_parts_compute_the_same_function", "test_every_pair_composes_or_is_refused_by_name"}
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
ALONG = ("sum", "mean", "cumsum", "any", "all", "amax", "softmax", "flip")
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
    if name in ALONG and node.args and ast.unparse(node.args[-1]) == "1":
        yield f".{name} along the other axis", lambda n: _with(n, args=[*n.args[:-1], ast.Constant(0)])
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
        if path.stem.startswith("_") or (only and path.stem not in only.split(",")):
            continue
        every = mutants_of(path)
        random.Random(path.stem).shuffle(every)
        found += every[: spine if path.stem in SPINE else each]
    return found


def sound(file: str) -> Mutant:
    """No bug at all: where a test fails on this one, it is not because of a bug."""
    return Mutant(file, 0, "nothing is changed", (ROOT / file).read_text())


# --- which tests concern a bug ---------------------------------------------------------------------------


def recipes_of(stem: str) -> set[str]:
    """The recipes of a paper's file; for a file of the spine a few that between them use most of it."""
    from whet import shelf

    return SPINE_RECIPES if stem in SPINE else {name for name, row in shelf.index().items() if row["file"] == stem}


def words_of(path: Path) -> set[str]:
    """The names by which a test would mention a paper's file: its own, its recipes, its functions."""
    functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    return functions | recipes_of(path.stem) | {path.stem}


def arguments(file: str) -> list[str]:
    """What pytest collects for a bug in a file, quickest first; `Chosen` then leaves out most of it."""
    path = ROOT / file
    if path.stem in SPINE:
        return [file, *SPINE_TESTS]
    mention = re.compile(rf"\b({'|'.join(words_of(path))})\b")
    tests = [p for p in sorted((ROOT / "tests" / "parity").glob("test_*.py")) if mention.search(p.read_text())]
    more = [p for p in (ROOT / "tests" / "test_step.py",) if mention.search(p.read_text())]
    return [file, "tests/laws", *(str(p.relative_to(ROOT)) for p in tests + more)]


class Chosen:
    """A pytest plugin that keeps the tests which concern a file: its doctests, its recipes, what mentions it."""

    def __init__(self, file: str) -> None:
        path = ROOT / file
        self.spine, self.recipes = path.stem in SPINE, recipes_of(path.stem)
        self.words = re.compile(rf"\b({'|'.join(words_of(path))})\b")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Narrows the list in place."""
        items[:] = [item for item in items if self.concerns(item)]

    def concerns(self, item: Any) -> bool:
        """True for a test that could notice."""
        if not hasattr(item, "originalname"):
            return True  # a doctest
        if item.originalname in SLOW:
            return False
        given = getattr(item, "callspec", None)
        values = set(map(str, given.params.values())) if given else set()
        if "tests/laws" in item.nodeid and "name" in (given.params if given else {}):
            return bool(values & self.recipes)
        return self.spine or bool(self.words.search(_source(item.function)) or values & self.recipes)


@cache
def _source(function: Any) -> str:
    import inspect

    return inspect.getsource(function)


# --- a worker --------------------------------------------------------------------------------------------


def copied() -> Path:
    """A copy of the project to spoil; without the weights of the base model, which no test here loads."""
    place = Path(tempfile.mkdtemp(prefix="mutant-"))
    for part in ("whet", "tests", "golden"):
        shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, place / name)
    return place


def serve(tasks: Any, answers: Any) -> None:
    """Takes numbered bugs until there are no more, and answers with the number and whether no test failed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    place = copied()
    try:
        _move_to(place)
        for number, mutant in iter(tasks.get, None):
            if Path(mutant.file).stem not in SPINE:
                _import_package()
            path = place / mutant.file
            sound = path.read_text()
            for text, stamp in ((mutant.source, 2 * number + 1), (sound, 2 * number + 2)):
                path.write_text(text)
                os.utime(path, (stamp, stamp))  # so that no bytecode of another version passes for this one's
                if text is mutant.source:
                    answers.put((number, _green(mutant)))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _move_to(place: Path) -> None:
    """Into the copy, with what is slow to import and not ours."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("whet", "tests")]:
        del sys.modules[name]
    os.chdir(place)
    os.environ |= {"PYTHONPATH": str(place), "XDG_CACHE_HOME": str(place / "cache")}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.path[:] = [str(place), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
    sys.dont_write_bytecode = False
    import pytest  # noqa: F401
    import torch
    from jaxtyping import install_import_hook
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401

    torch.set_num_threads(1)
    install_import_hook(["whet.papers", "whet.groups", "whet.plain"], "tests.checked")


def _import_package() -> None:
    from whet import describe, shelf, step  # noqa: F401
    from whet.engines import local  # noqa: F401
    from whet.models import tiny  # noqa: F401

    shelf.every_recipe()


def _green(mutant: Mutant) -> bool:
    """True when no test fails on the copy as it is now; a child process forgets what the bug reaches and runs them."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(_tested(mutant))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _tested(mutant: Mutant) -> int:
    import pytest

    silence = os.open(os.environ.get("MUTANT_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(silence, 1), os.dup2(silence, 2)
    stem = Path(mutant.file).stem
    for name in reached(f"whet.{stem}" if stem in SPINE else f"whet.papers.{stem}"):
        sys.modules.pop(name, None)
        parent, _, short = name.rpartition(".")
        if hasattr(sys.modules.get(parent), short):
            delattr(sys.modules[parent], short)
    options = ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-o", "addopts=", "--doctest-modules"]
    code = int(pytest.main([*options, *arguments(mutant.file)], plugins=[Chosen(mutant.file)]))
    if code == 5:
        print(f"no test concerns {mutant.name}")
    return 0 if code == 5 else code


@cache
def imports() -> dict[str, set[str]]:
    """Which modules of the package each of them imports, anywhere in its text; `whet.shelf` imports every paper."""
    files = [path for path in (ROOT / "whet").rglob("*.py") if path.stem != "__init__"]  # those import nothing
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    found: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found[name] |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)} & set(names)
    found["whet.shelf"] |= {name for name in names if name.startswith("whet.papers.")}
    return found


def reached(module: str) -> set[str]:
    """The module and all that import it, directly or not."""
    found, fresh = {module}, {module}
    while fresh:
        fresh = {name for name, cited in imports().items() if cited & fresh} - found
        found |= fresh
    return found


# --- the run ---------------------------------------------------------------------------------------------


def judged(planted: list[Mutant], workers: int) -> Iterator[tuple[Mutant, bool]]:
    """Every bug, and whether it survives, as they come."""
    context = multiprocessing.get_context("fork")
    tasks, answers = context.Queue(), context.Queue()
    tasks.cancel_join_thread()  # what is left in the queue when a run ends early is for nobody
    planted = sorted(planted, key=lambda mutant: Path(mutant.file).stem not in SPINE)
    for task in [*enumerate(planted), *[None] * workers]:
        tasks.put(task)
    crew = [context.Process(target=serve, args=(tasks, answers)) for _ in range(workers)]
    for process in crew:
        process.start()
    try:
        for _ in planted:
            number, lives = answers.get()
            yield planted[number], lives
    finally:
        for process in crew:
            process.terminate()
            process.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=2, help="bugs in each paper's file")
    parser.add_argument("--spine", type=int, default=8, help="bugs in each file of the spine")
    parser.add_argument("--only", default="", help="some files, by their names without .py, joined by commas")
    parser.add_argument("--part", default="1/1", help="which part of the list: 2/8 is the second eighth")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    part, parts = map(int, given.part.split("/"))
    excuses = json.loads(EXCUSES.read_text()) if EXCUSES.exists() else {}
    planted, began, alive = chosen(given.each, given.spine, given.only)[part - 1 :: parts], time.time(), []
    controls = [sound(file) for file in {Path(m.file).stem in SPINE: m.file for m in planted}.values()]
    for done, (mutant, lives) in enumerate(judged(controls + planted, given.workers), 1 - len(controls)):
        if mutant in controls:
            if not lives:
                sys.exit(f"The tests fail on {mutant.file} as it is: make them pass first (MUTANT_LOG=file says why).")
            continue
        alive += [mutant] if lives else []
        print(f"{done}/{len(planted)} {'SURVIVES' if lives else 'caught  '} {mutant.name}", flush=True)
    caught, seconds = len(planted) - len(alive), time.time() - began
    print(f"\n{caught} of {len(planted)} planted bugs were caught ({caught / len(planted):.1%}) in {seconds:.0f} s.")
    for mutant in alive:
        print(f"survives: {mutant.name}: {excuses.get(mutant.name, 'no reason is known')}")
    return 0 if caught >= 0.95 * len(planted) else 1


if __name__ == "__main__":
    sys.exit(main())
