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
import itertools
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from tests.spoiled import ROOT, Mutant, mutants_of

EXCUSES = Path(__file__).with_suffix(".json")
ENGINE = ("engines/head", "engines/learner")
SPINE = ("groups", "plain", "step", "batch", "draw", "metrics", "recipe", "tournaments", *ENGINE)
SPINE_TESTS = (
    "tests/test_spine.py",
    "tests/test_metrics.py",
    "tests/test_recipe.py",
    "tests/laws/test_laws.py",
    "tests/test_step.py",
    "tests/test_asked.py",
    "tests/parity/test_surrogates.py",
)
TESTS_OF = {
    "draw": (*SPINE_TESTS, "tests/tasks/test_beside.py"),
    "tournaments": ("tests/parity/test_sampling.py", "whet/papers/arena_single.py"),
    **dict.fromkeys(ENGINE, ("tests/engines/test_learner.py", "tests/engines/test_fast_learner.py")),
}
KINDS = {"llama", "qwen2", "gemma2"}  # of models, which are enough to see a bug of the engine
SPINE_RECIPES = {"grpo", "ppo", "dapo", "clip_cov", "k3_reward"}
SLOW = {"test_no_two_parts_compute_the_same_function", "test_every_pair_composes_or_is_refused_by_name"}
DEATHS = 3  # of workers over one bug, before the run ends in a sentence
LIMIT = 120  # seconds of the processor for one bug; one that hangs is noticed, one that waits its turn is not
PATIENCE = 20 * LIMIT  # seconds by the clock, for a bug that sleeps


def chosen(each: int, spine: int, only: str) -> list[Mutant]:
    """The bugs of this run: `each` from every paper's file, `spine` from each file of the spine; always the same."""
    found = []
    for path in sorted((ROOT / "whet" / "papers").glob("*.py")) + [ROOT / "whet" / f"{name}.py" for name in SPINE]:
        if path.stem.startswith("_") or (only and path.stem not in only.split(",")):
            continue
        every = mutants_of(path)
        random.Random(path.stem).shuffle(every)
        found += every[: spine if of_spine(path) else each]
    return found


def of_spine(path: Path | str) -> str:
    """The name in `SPINE` of a file of the package; empty for a paper's."""
    name = str(Path(path).with_suffix("")).rpartition("whet/")[2]
    return name if name in SPINE else ""


def sound(file: str) -> Mutant:
    """No bug at all: where a test fails on this one, it is not because of a bug."""
    return Mutant(file, 0, "nothing is changed", (ROOT / file).read_text())


# --- which tests concern a bug ---------------------------------------------------------------------------


def recipes_of(path: Path) -> set[str]:
    """The recipes of a paper's file; for a file of the spine a few that between them use most of it."""
    from whet import shelf

    if of_spine(path):
        return SPINE_RECIPES
    return {name for name, row in shelf.index().items() if row["file"] == path.stem}


def words_of(path: Path) -> set[str]:
    """The names by which a test would mention a paper's file: its own, its recipes, its functions."""
    functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    return functions | recipes_of(path) | {path.stem}


def arguments(file: str) -> list[str]:
    """What pytest collects for a bug in a file, quickest first; `Chosen` then leaves out most of it."""
    path = ROOT / file
    if spine := of_spine(file):
        return [file, *TESTS_OF.get(spine, SPINE_TESTS)]
    mention = re.compile(rf"\b({'|'.join(words_of(path))})\b")
    tests = [p for p in sorted((ROOT / "tests" / "parity").glob("test_*.py")) if mention.search(p.read_text())]
    more = [p for p in (ROOT / "tests" / "test_step.py",) if mention.search(p.read_text())]
    return [file, "tests/laws", *(str(p.relative_to(ROOT)) for p in tests + more)]


class Chosen:
    """A pytest plugin that keeps the tests which concern a file: its doctests, its recipes, what mentions it."""

    def __init__(self, file: str) -> None:
        path = ROOT / file
        self.spine, self.recipes = of_spine(file), recipes_of(path)
        self.words = re.compile(rf"\b({'|'.join(words_of(path))})\b")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Narrows the list in place."""
        items[:] = [item for item in items if self.concerns(item)]

    def concerns(self, item: Any) -> bool:
        """True for a test that could notice."""
        if not hasattr(item, "originalname"):
            return True  # a doctest
        if item.originalname in SLOW or item.get_closest_marker("long"):
            return False
        given = getattr(item, "callspec", None)
        values = set(map(str, given.params.values())) if given else set()
        if "tests/laws" in item.nodeid and "name" in (given.params if given else {}):
            return bool(values & self.recipes)
        if given and given.params.get("family", "llama") not in KINDS:
            return False
        return bool(self.spine) or bool(self.words.search(_source(item.function)) or values & self.recipes)


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


def serve(link: Any) -> None:
    """Takes bugs until there are no more, and answers each with whether no test failed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    place = copied()
    try:
        _move_to(place)
        imports()  # here, where it is kept: a child would read the whole package again for each bug
        stamps = itertools.count(1)
        for mutant in iter(link.recv, None):
            if not of_spine(mutant.file):
                _import_package()
            path = place / mutant.file
            sound = path.read_text()
            for text, stamp in ((mutant.source, next(stamps)), (sound, next(stamps))):
                path.write_text(text)
                os.utime(path, (stamp, stamp))  # so that no bytecode of another version passes for this one's
                if text is mutant.source:
                    lives = _green(mutant)
            link.send(lives)
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
    until = time.monotonic() + PATIENCE
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

    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    silence = os.open(os.environ.get("MUTANT_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(silence, 1), os.dup2(silence, 2)
    for name in reached(".".join(Path(mutant.file).with_suffix("").parts)):
        sys.modules.pop(name, None)
        parent, _, short = name.rpartition(".")
        if hasattr(sys.modules.get(parent), short):
            delattr(sys.modules[parent], short)
    options = ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-o", "addopts=", "--doctest-modules"]
    options += ["-p", "no:unraisableexception"]  # which searches all memory at the end, twice
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


def judged(planted: list[Mutant], workers: int, work: Callable[[Any], None] = serve) -> Iterator[tuple[Mutant, bool]]:
    """Every bug, and whether it survives, as they come. Where a worker dies, another one tries the bug again."""
    context = multiprocessing.get_context("fork")
    waiting = deque(sorted(planted, key=lambda mutant: not of_spine(mutant.file)))
    crew: dict[Any, tuple[Any, Mutant]] = {}
    deaths: Counter[str] = Counter()
    try:
        while waiting or crew:
            while waiting and len(crew) < workers:
                mine, theirs = context.Pipe()
                process = context.Process(target=work, args=(theirs,))
                process.start()
                theirs.close()
                crew[mine] = (process, waiting.popleft())
                mine.send(crew[mine][1])
            ready = wait([*crew], timeout=1)
            for mine in [link for link, (process, _) in crew.items() if link in ready or not process.is_alive()]:
                process, mutant = crew[mine]
                try:
                    lives = mine.recv() if mine.poll() else None
                except EOFError:
                    lives = None
                if lives is not None and waiting:
                    crew[mine] = (process, waiting.popleft())
                    mine.send(crew[mine][1])
                else:
                    del crew[mine]
                    _dismissed(mine, process, lives is not None)
                if lives is None:
                    deaths[mutant.name] += 1
                    waiting.appendleft(mutant)
                    if deaths[mutant.name] == DEATHS:
                        sys.exit(
                            f"{DEATHS} workers died over {mutant.name}: leave that bug out, or find what kills them."
                        )
                else:
                    yield mutant, lives
    finally:
        for process, _ in crew.values():
            process.terminate()
            process.join()


def _dismissed(link: Any, process: Any, well: bool) -> None:
    if well:
        link.send(None)
    else:
        process.kill()
    process.join()
    link.close()


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
    kinds = {TESTS_OF.get(of_spine(m.file), bool(of_spine(m.file))): m.file for m in planted}
    controls = [sound(file) for file in kinds.values()]
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
