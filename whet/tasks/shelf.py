"""A task by its name, or a user's file by its path."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from whet.refusal import Refused

NAMES = ("code", "compose", "countdown", "digits")


def make(name: str, judge: str = "", **options: Any) -> Any:
    """The task; options that it does not have are refused by name. `judge` names a function for a .jsonl file."""
    if name.endswith((".jsonl", ".json")):
        from whet.tasks.jsonl import JsonLines

        return JsonLines(name, judge_by=judge or None, **_accepted(name, JsonLines, options))
    kind = _kind(name)
    if judge:
        raise Refused(f"--judge is for a .jsonl file of your own; the task {name} has an exact judge.")
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
    raise Refused(f"There is no task {name!r}{nearest}: it is {', '.join(NAMES)}, or a path that ends in .jsonl.")


def _accepted(name: str, kind: Any, options: dict[str, Any]) -> dict[str, Any]:
    known = {field.name: field.default for field in fields(kind)} if is_dataclass(kind) else {}
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
