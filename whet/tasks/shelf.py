"""A task by its name, or a user's file by its path."""

import inspect
from difflib import get_close_matches
from typing import Any

from whet.refusal import Refused

NAMES = ("compose", "countdown", "digits")


def make(name: str, **options: Any) -> Any:
    """The task; options that it does not have are refused by name."""
    if name.endswith((".jsonl", ".json")):
        from whet.tasks.jsonl import Jsonl

        return Jsonl(name, **options)
    return _kind(name)(**_accepted(name, _kind(name), options))


def _kind(name: str) -> Any:
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
    known = [word for word in inspect.signature(kind).parameters if word not in ("args", "kwargs")]
    for option in options:
        if option not in known:
            what = f"it has {', '.join(known)}" if known else "it has no options"
            raise Refused(f"The task {name} has no option {option!r}: {what}.")
    return options
