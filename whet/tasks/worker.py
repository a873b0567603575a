"""What runs in a judge's worker process. Imports nothing heavy: a worker starts in a fraction of a second."""

import importlib
import importlib.util
import inspect
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

Outcome = tuple[float | None, str]  # a score, or None and the reason in one short phrase


class Unusable(ValueError):
    """The judge cannot be used; the message is one sentence."""


def _module(where: str) -> ModuleType:
    path = Path(where)
    if path.suffix != ".py":
        sys.path.insert(0, "")
        return importlib.import_module(where)
    if not path.is_file():
        raise Unusable(f"there is no judge file {where}: check the path before the colon.")
    sys.path.insert(0, str(path.parent.resolve()))  # so that it can import its neighbours
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=8)
def judge_named(named: str) -> Callable[..., Any]:
    """The function that `path/to/my.py:score` or `module:score` names."""
    where, colon, name = named.rpartition(":")
    if not colon or not where or not name:
        raise Unusable(f"the judge {named!r} must be written path/to/my.py:function or module:function.")
    try:
        module = _module(where)
    except Unusable:
        raise
    except (Exception, SystemExit) as error:
        raise Unusable(f"the judge {where} does not import: {type(error).__name__}: {error}.") from error
    judge = getattr(module, name, None)
    if not callable(judge):
        functions = [word for word, thing in vars(module).items() if inspect.isfunction(thing)]
        close = get_close_matches(name, functions, n=1, cutoff=0.0)
        hint = f"; the nearest is {close[0]!r}" if close else "; it defines none"
        raise Unusable(f"{where} has no function {name!r}{hint}.")
    return judge


def parameters(named: str) -> tuple[list[str], list[str] | None]:
    """The parameters that a judge must be given, and those it may be given: None means any."""
    try:
        found = list(inspect.signature(judge_named(named)).parameters.values())
    except Unusable:
        raise
    except (TypeError, ValueError) as error:
        raise Unusable(f"the judge {named} does not tell its parameters: wrap it in a Python function.") from error
    if any(p.kind is p.POSITIONAL_ONLY for p in found):
        raise Unusable(f"the judge {named} has parameters without a name: remove the / from its signature.")
    by_name = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in by_name if p.default is p.empty]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in found)
    return required, None if takes_any else [p.name for p in by_name if p.default is not p.empty]


def chunk(named: str, rows: Sequence[Mapping[str, Any]], seconds: float) -> list[Outcome]:
    """Judge rows in order until `seconds` have passed, one at least; the caller sends the rest again."""
    judge = judge_named(named)
    started = time.monotonic()
    outcomes: list[Outcome] = []
    for row in rows:
        outcomes.append(_judged(judge, row))
        if time.monotonic() - started > seconds:
            break
    return outcomes


def _judged(judge: Callable[..., Any], row: Mapping[str, Any]) -> Outcome:
    try:
        return _score(judge(**row))
    except (Exception, SystemExit) as error:  # whatever the user's code raises is one unknown, not a crash
        return None, f"judge raised {type(error).__name__}"


def _score(said: Any) -> Outcome:
    if said is None:
        return None, "judge returned None"
    if type(said).__module__ == "numpy" and hasattr(said, "item"):
        said = said.item()
    if not isinstance(said, Real):
        return None, f"judge returned {type(said).__name__}, not a number"
    score = float(said)
    return (score, "") if math.isfinite(score) else (None, f"judge returned {score}")
