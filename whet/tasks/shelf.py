"""A task by its name, or a user's file by its path."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from whet.refusal import Refused

TASK = ("name", "max_tokens", "optimum", "focus", "elsewhere", "train", "evaluation", "judge")
NAMES = ("code", "compose", "countdown", "digits")
COLLECTIONS = ("gsm8k", "math", "aime")  # from a local copy


def make(name: str, judge: str = "", **options: Any) -> Any:
    """The task; options that it does not have are refused by name. `judge` names a judge for data of your own."""
    from whet.tasks import tables

    if ".py" in name and not tables.is_data(name):
        return _from_file(name, options)
    if name in COLLECTIONS:
        from whet.tasks import maths

        judged = {"judge_by": judge} if judge else {}
        return maths.make(name, **judged, **_accepted(name, maths.Maths, options))
    if tables.is_data(name):
        from whet.tasks.data import Data

        return Data(name, judge_by=judge or None, **_accepted(name, Data, options))
    kind = _kind(name)
    if judge:
        raise Refused(f"--judge is for data of your own; the task {name} has an exact judge.")
    return kind(**_accepted(name, kind, options))


def others_taught(card: Mapping[str, Any], task: Any) -> list[Any]:
    """The other tasks that a model's card says it was taught, where their splits have names of their own."""
    others = [make(name) for name in card.get("taught", ()) if name != task.name]
    return [other for other in others if not {*other.evaluation()} & {*task.evaluation()}]


def _kind(name: str) -> Any:
    if name == "code":
        from whet.tasks.code import Code

        return Code
    if name == "compose":
        from whet.tasks.compose import Compose

        return Compose
    if name == "countdown":
        from whet.tasks.countdown import Countdown

        return Countdown
    if name == "digits":
        from whet.tasks.digits import Digits

        return Digits
    close = get_close_matches(name, NAMES, n=1, cutoff=0.4)
    nearest = f"; the nearest is {close[0]!r}" if close else ""
    raise Refused(
        f"There is no task {name!r}{nearest}: it is {', '.join((*NAMES, *COLLECTIONS))}, a path to data "
        "(.jsonl, .csv, .parquet, a directory), or a file of your own with a task, as my_task.py:Task."
    )


def _from_file(name: str, options: dict[str, Any]) -> Any:
    """The task that a user's file makes: a class or function that is called with the options, or a task itself."""
    import importlib.util
    import sys
    from pathlib import Path

    path, _, wanted = name.partition(":")
    if not Path(path).is_file():
        raise Refused(f"There is no file {path!r} to take a task from.")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(module.__name__, module)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    found = getattr(module, wanted or "task", None)
    if found is None:
        raise Refused(f"{path} has no {wanted or 'task'}: name the class or function that makes it, as {path}:MyTask.")
    if is_dataclass(found):
        options = _accepted(name, found, options)
    try:
        task = found(**options) if callable(found) else found
    except TypeError as error:
        raise Refused(f"{name} cannot be made with {', '.join(options) or 'no options'}: {error}.") from error
    absent = [part for part in TASK if not hasattr(task, part)]
    if absent:
        raise Refused(f"the task {name} has no {absent[0]}: a task has {', '.join(TASK)} (whet/tasks/__init__.py).")
    return task


def _accepted(name: str, kind: Any, options: dict[str, Any]) -> dict[str, Any]:
    known = {f.name: "" if f.default is MISSING else f.default for f in fields(kind)} if is_dataclass(kind) else {}
    for option in options:
        if option not in known:
            what = f"it has {', '.join(known)}" if known else "it has no options"
            raise Refused(f"The task {name} has no option {option!r}: {what}.")
    return {option: _like(option, value, known[option]) for option, value in options.items()}


def _like(option: str, value: Any, example: Any) -> Any:
    """What was typed, as the kind of thing that the option's default is: `1,2` for a tuple of numbers."""
    if not isinstance(value, str) or isinstance(example, str):
        return value
    try:
        if isinstance(example, tuple):
            return tuple(int(part) for part in value.split(","))
        return int(value) if isinstance(example, int) else float(value)
    except ValueError:
        raise Refused(f"--task.{option} is like {example}, so it cannot be {value!r}.") from None
