"""The settings of a recipe's parts, by the address that is typed: `loss.high`, `penalties.k3.beta`."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from whet.recipe import SEVERAL, Part, Recipe, Refused, Remembers, as_tuple, name_of, nearest, said, settings_of


def settings(recipe: Recipe) -> dict[str, Any]:
    """Every setting by its address: `loss.high` for a single part, `penalties.k3.beta` where there are several."""
    found = {}
    for stage, part in recipe.parts():
        prefix = f"{stage}.{name_of(part)}" if stage in SEVERAL else stage
        found.update({f"{prefix}.{name}": value for name, value in settings_of(part).items()})
    return found


def with_settings(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with some settings changed, by address; an unknown address is answered with the nearest."""
    known = settings(recipe)
    for address, value in values.items():
        full = _full_address(address, known)
        if full is None:
            raise Refused(f"{recipe.name} has no setting {address!r}" + nearest(address, [*known]) + said(known))
        stage, *middle, name = full.split(".")
        current = getattr(recipe, stage)
        before = settings_of_stage(current, middle)[name]
        value = _sound(like(value, before, full), before, full)
        bound = tuple(
            _bind(part, name, value) if not middle or name_of(part) == middle[0] else part for part in as_tuple(current)
        )
        departs, claims = recipe.departs, recipe.claims
        recipe = recipe.with_(**{stage: bound if isinstance(current, tuple) else bound[0]})
        recipe = replace(recipe, departs=departs, claims=claims)
    return recipe


def settings_of_stage(value: Any, middle: list[str]) -> dict[str, Any]:
    """The settings of the part that an address names."""
    return next(settings_of(part) for part in as_tuple(value) if not middle or name_of(part) == middle[0])


def _full_address(address: str, known: Mapping[str, Any]) -> str | None:
    if address in known:
        return address
    ends = [full for full in known if full.split(".", 1)[1] == address or full.endswith("." + address)]
    return ends[0] if len(ends) == 1 else None


def _bind(part: Part | Remembers, name: str, value: Any) -> Part | Remembers:
    if isinstance(part, Remembers):
        return replace(part, part=partial(part.part, **{name: value}))
    return partial(part, **{name: value})


def like(value: Any, example: Any, address: str) -> Any:
    """What was typed, as the kind of thing that `example` is."""
    if not isinstance(value, str) or isinstance(example, str):
        return value
    if value.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[value.lower()]
    try:
        return int(value) if isinstance(example, int) and not isinstance(example, bool) else float(value)
    except ValueError:
        kind = type(example).__name__ if example is not None else "number"
        raise Refused(f"{address} is a {kind} (now {example}), so it cannot be {value!r}.") from None


COUNTS = ("prompts", "responses", "epochs", "minibatches")


def _sound(value: Any, before: Any, address: str) -> Any:
    """A setting that its part can compute with; what is no number, or below what its kind allows, is refused."""
    if isinstance(value, bool) and not isinstance(before, bool | None):
        raise Refused(f"{address} is now {before}, so it cannot be {str(value).lower()}.")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not math.isfinite(value) and value != before:
        raise Refused(f"{address} is now {before}, so it cannot be {value}: it must be a finite number.")
    if value is None and before is not None:
        raise Refused(f"{address} is now {before}, so it cannot be none: it must be a {type(before).__name__}.")
    name = address.rpartition(".")[2]
    least = 1 if name in COUNTS else 0
    if number and isinstance(before, int) and not isinstance(before, bool) and before >= least > value:
        raise Refused(f"{address} is a number of at least {least} (now {before}), so it cannot be {value}.")
    if number and name in ("lr", "clip_norm", "temperature") and value < 0:
        raise Refused(f"{address} cannot be below 0, and {value} is.")
    if number and address == "sample.temperature" and value == 0:
        raise Refused("sample.temperature must be above 0: a policy that always says the same learns nothing.")
    return value
