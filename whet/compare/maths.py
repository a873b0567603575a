"""What makes two runs the same run: the code that computes, and not its comments, its docstrings or its layout.

A recipe is its parts with their settings; the code of a part is the file it stands in and the papers that file
imports. Beside it stand the step, the engine, the judge and the base model. All of that goes into one key.
"""

import ast
import hashlib
import inspect
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from whet import shelf
from whet.recipe import Recipe, Remembers, function_of, settings_of
from whet.refusal import Refused
from whet.settings import with_settings

HERE = Path(__file__).parents[1]
SPINE = ("recipe", "step", "plain", "groups", "batch", "draw", "metrics", "evaluate", "train", "checkpoints")


def key(recipe: Recipe, base: str, rest: dict[str, Any]) -> str:
    """Ten letters that change when anything does that could change the numbers of a run."""
    import torch
    import transformers

    parts = [
        (stage, function_of(part).__qualname__, {name: repr(value) for name, value in settings_of(part).items()},
         repr(part.start) if isinstance(part, Remembers) else "")
        for stage, part in recipe.parts()
    ]  # fmt: skip
    whole = {
        "parts": parts, "code": code(recipe), "base": base, **rest,
        "versions": [torch.__version__, transformers.__version__],
    }  # fmt: skip
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:10]


def code(recipe: Recipe) -> str:
    """A hash of everything that computes in a run of this recipe, whatever the task."""
    files = {HERE / f"{name}.py" for name in SPINE} | set((HERE / "engines").glob("*.py"))
    files |= {HERE / "models" / "tiny.py", HERE / "models" / "load.py"} | set((HERE / "tasks").glob("*.py"))
    for _, part in recipe.parts():
        files |= _files(inspect.unwrap(function_of(part)).__globals__)
    return _joined(f"{path.name} {of_file(path)}" for path in sorted(files))


def _files(names: dict[str, Any]) -> set[Path]:
    """The file that has these globals, and the papers that it imports, all the way down."""
    found, waiting = set[Path](), [names]
    while waiting:
        names = waiting.pop()
        path = Path(names["__file__"])
        if path in found:
            continue
        found.add(path)
        modules = [value if isinstance(value, ModuleType) else inspect.getmodule(value) for value in names.values()
                   if isinstance(value, ModuleType) or inspect.isfunction(value)]  # fmt: skip
        waiting += [vars(module) for module in modules if module and module.__name__.startswith("whet.papers.")]
    return found


@cache
def of_file(path: Path) -> str:
    """A hash of what a file computes: no docstrings, and no recipes, since those are in the key part by part."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not _is_recipe(node)]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_recipe(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom) and node.module == "whet.recipe":
        return True  # Paper, Finding: words about a recipe
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
        return False
    called = node.value.func
    return (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in ("with_", "Recipe")


@cache
def of_base(folder: str) -> str:
    """A hash of a model's directory: weights, configuration, tokenizer and card; the micro model without one."""
    if not folder:
        return "micro"
    files = [path for path in sorted(Path(folder).iterdir()) if path.suffix in (".safetensors", ".json")]
    return _joined(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files)


def _joined(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def loaded(expression: str) -> Recipe:
    """The recipe of an arm such as `grpo+k2_loss@update.lr=3e-4`, with its settings."""
    recipe, settings = parted(expression)
    return with_settings(shelf.load(recipe), settings)


def parted(expression: str) -> tuple[str, dict[str, str]]:
    """An arm's recipe and its own settings, behind an @ and between commas.

    >>> parted("grpo@update.lr=3e-4,loss.high=0.3")
    ('grpo', {'update.lr': '3e-4', 'loss.high': '0.3'})
    """
    recipe, _, rest = expression.partition("@")
    pairs = [word.partition("=") for word in rest.split(",") if word]
    if any(not (address and value) for address, _, value in pairs):
        raise Refused(f"{expression!r}: settings of one recipe are written recipe@address=value,address=value.")
    return recipe.strip(), {address.strip(): value.strip() for address, _, value in pairs}
