"""whet: the RL reading list you can run."""

from typing import Any

from whet.refusal import Refused

__version__ = "0.1.0"
__all__ = ["Refused", "Report", "Setup", "__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: `import whet` alone is cheap."""
    from importlib import import_module

    if name == "train":
        return import_module("whet.train")  # a module that can be called
    homes = {"Report": "whet.api", "Setup": "whet.models.setup", "load": "whet.shelf"}
    if name in homes:
        return getattr(import_module(homes[name]), name)
    raise AttributeError(f"module 'whet' has no attribute {name!r}")
