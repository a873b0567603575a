"""A key-value cache with room to grow: a new token is written in its place instead of copying all earlier ones."""

from typing import Any


def roomy(cache: Any, room: int) -> Any:
    """The cache; as it is for now."""
    return cache
