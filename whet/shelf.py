"""Finding recipes: by name, by expression (`grpo+k2_loss`), or in a user's own file.

The folder `papers/` is the registry. Names and one-line facts are kept in a small index in the user's cache,
keyed by the contents of that folder, so that listing recipes does not import PyTorch.
"""

import hashlib
import importlib
import importlib.util
import json
import os
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from whet.refusal import Refused

if TYPE_CHECKING:
    from whet.recipe import Recipe

PAPERS = Path(__file__).parent / "papers"


def modules() -> list[str]:
    """The names of the paper files."""
    return sorted(path.stem for path in PAPERS.glob("*.py") if not path.stem.startswith("_"))


def recipes_in(module: ModuleType) -> list["Recipe"]:
    """The recipes that a paper's file, or a user's, makes."""
    from whet.recipe import Recipe

    return [value for name, value in vars(module).items() if isinstance(value, Recipe) and not name.startswith("_")]


def every_recipe() -> dict[str, "Recipe"]:
    """All recipes by name. Imports every paper."""
    found: dict[str, Recipe] = {}
    for name in modules():
        for recipe in recipes_in(importlib.import_module(f"whet.papers.{name}")):
            found[recipe.name] = recipe
    return found


def home(recipe: "Recipe") -> ModuleType:
    """The paper's file that makes a recipe of the shelf."""
    return importlib.import_module(f"whet.papers.{index()[recipe.name]['file']}")


def load(expression: str) -> "Recipe":
    """The recipe that an expression names: names or files joined by `+`, applied from left to right."""
    terms = [term.strip() for term in expression.split("+")]
    if not all(terms):
        raise Refused(f"{expression!r} has an empty term: write recipes joined by a plus sign, as in grpo+k2_loss.")
    recipe = _one(terms[0])
    for term in terms[1:]:
        recipe = recipe + _one(term)
    return recipe


def _one(term: str) -> "Recipe":
    if term.endswith(".py") or ".py:" in term:
        return _from_file(term)
    name, known = term.lower().replace("-", "_"), index()
    if name not in known:
        close = get_close_matches(name, known, n=5, cutoff=0.4)
        nearest = f"; the nearest: {', '.join(close)}" if close else ""
        raise Refused(f"There is no recipe {term!r}{nearest}. `whet list` shows all {len(known)}.")
    module = importlib.import_module(f"whet.papers.{known[name]['file']}")
    return next(recipe for recipe in recipes_in(module) if recipe.name == name)


def _from_file(term: str) -> "Recipe":
    path, _, name = term.partition(":")
    if not Path(path).is_file():
        raise Refused(f"There is no file {path!r} to take a recipe from.")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {recipe.name: recipe for recipe in recipes_in(module)}
    if not found:
        raise Refused(f"{path} makes no recipe: it should hold `recipe = base.with_(name=…, …)`.")
    if name and name not in found:
        raise Refused(f"{path} makes no recipe {name!r}; it has {', '.join(found)}.")
    return found[name] if name else found.get(Path(path).stem, next(iter(found.values())))


# --- the index -------------------------------------------------------------------------------------------


def index() -> dict[str, dict[str, Any]]:
    """Recipe name → file, title, date, what is new, base, stages, needs, shelf, claims, departs, findings. Cheap."""
    cache = _cache()
    try:
        return json.loads(cache.read_text())
    except (OSError, ValueError):
        made = _index()
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        aside = cache.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(made))
        aside.replace(cache)
    except OSError:
        pass  # a read-only home only costs the next call the imports again
    return made


def _cache() -> Path:
    digest = hashlib.sha256()
    for path in sorted([*PAPERS.glob("*.py"), *PAPERS.parent.glob("*.py")]):
        digest.update(path.name.encode() + path.read_bytes())
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return folder / "whet" / f"index-{digest.hexdigest()[:16]}.json"


def _index() -> dict[str, dict[str, Any]]:
    from dataclasses import asdict

    from whet.recipe import contribution, scored

    rows = {}
    for file in modules():
        for recipe in recipes_in(importlib.import_module(f"whet.papers.{file}")):
            rows[recipe.name] = {
                "file": file,
                "title": recipe.paper.title,
                "date": recipe.paper.date,
                "link": recipe.paper.link,
                "new": recipe.new,
                "base": recipe.base.name if recipe.base else "",
                "stages": list(contribution(recipe)),
                "needs": needed(recipe, scored(recipe)),
                "shelf": recipe.shelf,
                "claims": list(recipe.claims),
                "departs": list(recipe.departs),
                "findings": [asdict(finding) for finding in recipe.findings],
            }
    return rows


NEEDS = {
    "value": "critic",
    "ref_logp": "reference model",
    "old_logp": "old forward pass",
    "old_entropy": "old forward pass",
    "old_certainty": "old forward pass",
    "prompt_state": "hidden states",
    "response_state": "hidden states",
    "blind_logp": "second forward pass",
    "demonstration": "worked solutions",
    "entropy": "entropy",
    "greedy_score": "a greedy response",
    "ref_score": "a reference response",
    "label": "labels from the task",
    "old_collision": "old forward pass",
    "group_divergence": "whole next-token distributions",
    "group_log_divergence": "whole next-token distributions",
}


ASKED = ("entropy", "greedy_score", "ref_score", "label", "blind_logp", "demonstration")


def needed(recipe: "Recipe", scored: list[str]) -> list[str]:
    """What somebody must provide for a recipe, in words."""
    from whet.recipe import needs

    asked = [name for name in needs(recipe) if name in ASKED]
    return list(dict.fromkeys(NEEDS[name] for name in [*scored, *asked]))
