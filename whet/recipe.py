"""A recipe is a value: one function for each stage of the flow, and where the idea was published.

A *part* is a module-level function. Parameters without a default are data, looked up by name in `FIELDS`;
parameters with a default are settings, bound with `functools.partial`. So the signature is the contract,
and what a recipe needs (a critic, a reference model, the old log-probabilities) is read off it.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache, partial
from typing import Any

from whet import plain
from whet.fields import FIELDS, made_by
from whet.refusal import Refused

Part = Callable[..., Any]

ONE = ("choose", "sample", "advantage", "normalise", "select", "loss", "update")
SEVERAL = ("reward", "credit", "keep", "weights", "penalties", "control")
STAGES = (
    "choose", "sample", "reward", "advantage", "credit", "keep",
    "normalise", "weights", "select", "loss", "penalties", "update", "control",
)  # fmt: skip
IN_LEARNER = ("select", "loss", "penalties")


@dataclass(frozen=True)
class Paper:
    """Where an idea was published. `date` is the day of the first public version, as year-month-day."""

    title: str
    arxiv: str = ""
    date: str = ""
    authors: str = ""
    url: str = ""

    @property
    def link(self) -> str:
        """The address to read it at."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else self.url


@dataclass(frozen=True)
class Remembers:
    """A part with a memory: it takes `memory`, and returns its result and the memory for the next step."""

    part: Part
    start: Any


@dataclass(frozen=True)
class Finding:
    """What a paper says will happen, so that `whet verify` can run it.

    `measure` (a name of whet/compare/measure.py) goes `direction` (up, down or same) in this recipe, compared with
    the recipe `versus` at equal budget, or with `start`, its own beginning; on the task `on`. `figure` is the paper's
    own number, and `where` the place it stands: "place not read" where the claim reached us without the paper's page.
    """

    measure: str
    versus: str
    direction: str
    figure: str
    where: str
    on: str = "compose"

    def __str__(self) -> str:
        said = {"up": "higher than", "down": "lower than", "same": "the same as"}[self.direction]
        than = "at its start" if self.versus == "start" else f"with {self.versus}"
        return f"{self.measure} {said} {than}, on {self.on}; the paper: {self.figure} ({self.where})"


@dataclass(frozen=True, eq=False)
class Recipe:
    """A method: what happens at each stage, what is new in it, and what it claims about itself.

    `base` is the recipe it was made from with `with_`; the stages in which the two differ are its contribution.
    """

    name: str
    paper: Paper
    new: str
    advantage: Part | Remembers
    loss: Part
    choose: Part | Remembers = plain.in_order
    sample: Part | Remembers = plain.same_number
    reward: tuple[Part | Remembers, ...] = (plain.task_score,)
    credit: tuple[Part | Remembers, ...] = ()
    keep: tuple[Part | Remembers, ...] = ()
    normalise: Part = plain.over_tokens
    weights: tuple[Part | Remembers, ...] = ()
    select: Part = plain.nothing
    penalties: tuple[Part, ...] = ()
    update: Part = plain.one_pass
    control: tuple[Remembers, ...] = ()
    claims: tuple[str, ...] = ()
    departs: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    shelf: str = "objective"
    base: "Recipe | None" = field(default=None, repr=False)
    added: "Recipe | None" = field(default=None, repr=False)

    def with_(self, **changes: Any) -> "Recipe":
        """The same recipe with some stages changed; claims, departures and findings do not carry over."""
        unknown = set(changes) - set(self.__dataclass_fields__)
        if unknown:
            raise Refused(no_such("stage", sorted(unknown)[0], STAGES))
        return replace(self, **{"base": self, "added": None, "claims": (), "departs": (), "findings": (), **changes})

    def parts(self, *stages: str) -> list[tuple[str, Part | Remembers]]:
        """Every part with its stage, in the order of the flow; only those stages when some are named."""
        return [(stage, part) for stage in stages or STAGES for part in as_tuple(getattr(self, stage))]

    def __add__(self, other: "Recipe") -> "Recipe":
        """What `other` changes with respect to its base, applied to this recipe."""
        return compose(self, other)


def as_tuple(value: Any) -> tuple[Any, ...]:
    """What a stage holds, as several parts."""
    return value if isinstance(value, tuple) else (value,)


def function_of(part: Part | Remembers) -> Part:
    """The plain function inside a part."""
    if isinstance(part, Remembers):
        return function_of(part.part)
    return part.func if isinstance(part, partial) else part


def name_of(part: Part | Remembers) -> str:
    """The name of the function inside a part."""
    return function_of(part).__name__


@cache
def _signature(part: Part) -> tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]:
    parameters = inspect.signature(part).parameters.values()
    data = tuple(p.name for p in parameters if p.default is p.empty)
    return data, tuple((p.name, p.default) for p in parameters if p.default is not p.empty)


def data_of(part: Part | Remembers) -> tuple[str, ...]:
    """The fields a part asks for: its parameters without a default."""
    return _signature(part.part if isinstance(part, Remembers) else part)[0]


def settings_of(part: Part | Remembers) -> dict[str, Any]:
    """The settings of a part and their values: its parameters with a default."""
    return dict(_signature(part.part if isinstance(part, Remembers) else part)[1])


def call(part: Part | Remembers, fields: Mapping[str, Any], memories: dict[str, Any] | None = None) -> Any:
    """Run a part on the fields it asks for; a part with a memory finds and leaves it in `memories`."""
    names = data_of(part)
    missing = [name for name in names if name not in fields and name != "memory"]
    if missing:
        raise Refused(f"{name_of(part)} asks for {missing[0]!r}: " + no_such("field", missing[0], [*fields]))
    data = {name: fields[name] for name in names if name != "memory"}
    if not isinstance(part, Remembers):
        return part(**data)
    memories = {} if memories is None else memories
    key = name_of(part)
    result, memories[key] = part.part(**data, memory=memories.get(key, part.start))
    return result


def needs(recipe: Recipe, *stages: str) -> dict[str, list[str]]:
    """The fields that somebody must make for this recipe, each with the parts that ask for it."""
    asked: dict[str, list[str]] = {}
    for _, part in recipe.parts(*stages):
        for name in data_of(part):
            asked.setdefault(name, []).append(name_of(part))
    return asked


def off_policy(recipe: Recipe) -> bool:
    """True when the policy moves within one batch, so that the old log-probabilities must be kept."""
    settings = settings_of(recipe.update)
    return settings.get("epochs", 1) * settings.get("minibatches", 1) > 1 or settings.get("moves", False)


def scored(recipe: Recipe) -> list[str]:
    """The fields for which the batch must be scored before the update: none for most on-policy recipes."""
    early = needs(recipe, *(stage for stage in STAGES if stage not in IN_LEARNER))
    late = needs(recipe, *IN_LEARNER)
    frozen = made_by("scorer")
    names = [name for name in {**early, **late} if name in frozen]
    if "old_logp" in names and "old_logp" not in early and not off_policy(recipe):
        names.remove("old_logp")  # on policy it is the detached logp: no extra forward pass
    if "old_entropy" in names and "old_entropy" not in early and not off_policy(recipe):
        names.remove("old_entropy")
    return names


# --- composition -----------------------------------------------------------------------------------------


def _bound(part: Part | Remembers) -> tuple[Part, dict[str, Any]]:
    return function_of(part), settings_of(part)


def same(one: Part | Remembers, other: Part | Remembers) -> bool:
    """True when two parts are the same function with the same settings."""
    return _bound(one) == _bound(other)


def _differs(stage: str, one: Recipe, other: Recipe) -> bool:
    mine, theirs = as_tuple(getattr(one, stage)), as_tuple(getattr(other, stage))
    return len(mine) != len(theirs) or not all(map(same, mine, theirs))


def contribution(recipe: Recipe) -> tuple[str, ...]:
    """The stages in which a recipe differs from its base; all that it has, without one."""
    if recipe.base is None:
        return tuple(stage for stage in STAGES if getattr(recipe, stage))
    return tuple(stage for stage in STAGES if _differs(stage, recipe, recipe.base))


def lineage(recipe: Recipe) -> list[Recipe]:
    """The recipe and everything it was made from, nearest first."""
    found = [recipe]
    for parent in (recipe.added, recipe.base):
        if parent is not None:
            found += [r for r in lineage(parent) if r not in found]
    return found


def setter(recipe: Recipe, stage: str) -> Recipe:
    """The recipe in the lineage that gave this one its part at a stage."""
    if recipe.base is None:
        return recipe
    if not _differs(stage, recipe, recipe.base):
        return setter(recipe.base, stage)
    return recipe if recipe.added is None else setter(recipe.added, stage)


def compose(one: Recipe, other: Recipe) -> Recipe:
    """`one` with what `other` changes; refused when both set the same single-valued stage.

    A stage may be set again by a recipe that descends from the one that set it: `grpo+dapo` is dapo.
    """
    if other.base is None:
        raise Refused(
            f"{other.name} is built on nothing, so it cannot be added; put it first: {other.name}+{one.name}."
        )
    changes: dict[str, Any] = {}
    for stage in contribution(other):
        if stage in SEVERAL:
            changes[stage] = _merge(stage, one, other)
        elif not same(getattr(one, stage), getattr(other, stage)):
            first = setter(one, stage)
            if first not in lineage(other) and first not in lineage(other.base):
                raise Refused(_both_set(stage, one, other, getattr(one, stage), getattr(other, stage)))
            changes[stage] = getattr(other, stage)
    claims = tuple(claim for claim in one.claims if claim in other.claims)
    departs = tuple(dict.fromkeys(one.departs + other.departs))
    return one.with_(
        name=f"{one.name}+{other.name}", new=f"{one.new}; and {other.new}",
        added=other, claims=claims, departs=departs, **changes,
    )  # fmt: skip


def _merge(stage: str, one: Recipe, other: Recipe) -> tuple[Any, ...]:
    """A three-way merge of parts by their function: what `other` added, changed or dropped since its base."""
    mine, theirs, before = (
        {function_of(part): part for part in getattr(recipe, stage)} for recipe in (one, other, other.base)
    )
    merged = []
    for function in {**mine, **theirs}:
        m, t, b = mine.get(function), theirs.get(function), before.get(function)
        if _alike(t, b):
            merged.append(m)
        elif m is not None and t is not None and not _alike(m, b) and not same(m, t):
            raise Refused(_both_set(f"{stage} part {function.__name__}", one, other, m, t))
        else:
            merged.append(t)
    return tuple(part for part in merged if part is not None)


def _alike(one: Part | Remembers | None, other: Part | Remembers | None) -> bool:
    return one is other or (one is not None and other is not None and same(one, other))


def _both_set(stage: str, one: Recipe, other: Recipe, mine: Any, theirs: Any) -> str:
    return (
        f"{one.name} and {other.name} both set {stage} ({_told(mine)} and {_told(theirs)}), "
        f"and it can have only one value: leave one of the two out."
    )


def _told(part: Part | Remembers) -> str:
    bound = part.part if isinstance(part, Remembers) else part
    keywords = bound.keywords if isinstance(bound, partial) else {}
    return name_of(part) + (f"({', '.join(f'{k}={v}' for k, v in keywords.items())})" if keywords else "")


# --- sentences -------------------------------------------------------------------------------------------


def nearest(word: str, known: list[str]) -> str:
    """The end of a sentence: which known word was meant, if one is near."""
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; the nearest is {close[0]!r}" if close else ""


def said(known: Mapping[str, Any]) -> str:
    """The end of a sentence: what there is."""
    return f". It has: {', '.join(known)}."


def no_such(kind: str, word: str, known: Any) -> str:
    """A sentence for a word that nobody knows."""
    return f"there is no {kind} {word!r}{nearest(word, [*known])}."


def unknown_fields(part: Part | Remembers) -> list[str]:
    """The names a part asks for that are not in the glossary: a typo, found by a test."""
    return [name for name in data_of(part) if name not in FIELDS]
