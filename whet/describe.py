"""What a recipe says of itself: its equation, its settings with their sources, its needs and departures."""

import inspect
import io
import itertools
import tokenize
from functools import cache, partial
from types import ModuleType
from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from whet import shelf
from whet.recipe import (
    SEVERAL,
    STAGES,
    Part,
    Recipe,
    Remembers,
    contribution,
    data_of,
    function_of,
    lineage,
    name_of,
    scored,
    setter,
    settings_of,
)


@cache
def _comments(source: str) -> dict[str, list[tuple[int, str]]]:
    """Every `name = value` or `name: type = value` on a line of a source text that ends in a comment, by name."""
    found: dict[str, list[tuple[int, str]]] = {}
    names: dict[int, list[str]] = {}
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for before, token in itertools.pairwise(tokens):
        if before.type == tokenize.NAME and token.string in (":", "=") and token.type == tokenize.OP:
            names.setdefault(before.start[0], []).append(before.string)
    for token in tokens:
        line = token.start[0]
        if token.type == tokenize.COMMENT:
            for name in names.get(line, ()):
                found.setdefault(name, []).append((line, token.string.lstrip("# ")))
    return found


def _default_source(function: Part, name: str) -> str:
    beside = _comments(inspect.getsource(function)).get(name)
    return beside[0][1] if beside else ""


def _bound_source(module: ModuleType, name: str) -> str:
    beside = _comments(inspect.getsource(module)).get(name, [])
    bound = [text for line, text in beside if not _in_signature(module, line)]
    return bound[0] if bound else ""


def _in_signature(module: ModuleType, line: int) -> bool:
    for value in vars(module).values():
        if inspect.isfunction(value) and value.__module__ == module.__name__:
            lines, first = inspect.getsourcelines(value)
            if first <= line < first + len(lines):
                return True
    return False


def source_of(recipe: Recipe, stage: str, part: Part | Remembers, name: str) -> str:
    """Where the value of a setting comes from: the comment beside it."""
    bound = part.part if isinstance(part, Remembers) else part
    if isinstance(bound, partial) and name in bound.keywords:
        owner = setter(recipe, stage)
        if owner.name in shelf.index():
            found = _bound_source(shelf.home(owner), name)
            if found:
                return found
        return "set for this run"
    return _default_source(function_of(part), name)


def settings_table(recipe: Recipe) -> list[dict[str, Any]]:
    """Every setting: address, value, the part's own default, and source."""
    rows = []
    for stage, part in recipe.parts():
        prefix = f"{stage}.{name_of(part)}" if stage in SEVERAL else stage
        defaults = settings_of(function_of(part))
        for name, value in settings_of(part).items():
            source = source_of(recipe, stage, part, name)
            rows.append({"address": f"{prefix}.{name}", "value": value, "default": defaults[name], "source": source})
    return rows


def equation(recipe: Recipe) -> str:
    """The docstring of every paper that the recipe is made of, the newest last."""
    known = shelf.index()
    papers = [r for r in (recipe, recipe.added, recipe.base) if r is not None and r.name in known]
    named = [recipe] if recipe.name in known else papers[::-1]
    return "\n\n".join(inspect.cleandoc(shelf.home(r).__doc__ or "") for r in dict.fromkeys(named))


def shown(expression: str) -> Group:
    """What `whet show` prints."""
    recipe = shelf.load(expression)
    blocks: list[Any] = [Text(recipe.name, style="bold"), Text(f"{recipe.paper.title}", style="italic")]
    blocks.append(Text(" · ".join(x for x in (recipe.paper.authors, recipe.paper.date, recipe.paper.link) if x), "dim"))
    blocks.append(Padding(Text(equation(recipe)), (1, 0, 1, 2)))
    builds = " ← ".join(r.name for r in lineage(recipe)) if recipe.base else "nothing: it is where the rest begins"
    needs = ", ".join(shelf.needed(recipe, scored(recipe))) or "nothing besides the policy"
    facts = {
        "new": recipe.new,
        "builds on": builds,
        "changes": ", ".join(contribution(recipe)),
        "needs": needs,
    }
    blocks.append(_pairs({**facts, "claims": ", ".join(recipe.claims).replace("_", " ") or "none"}))
    blocks += [
        Text("\nstages", style="bold"),
        _stages(recipe),
        Text("\nsettings", style="bold"),
        _settings(recipe),
    ]
    if recipe.findings:
        blocks.append(Text("\nwhat the paper says will happen; `whet verify` runs it", "bold"))
        blocks += [Text(f"  - {finding}") for finding in recipe.findings]
    blocks.append(Text("\ndeparts from the paper" if recipe.departs else "\nno known departure from the paper", "bold"))
    blocks += [Text(f"  - {line}") for line in recipe.departs]
    return Group(*blocks)


def _pairs(rows: dict[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _stages(recipe: Recipe) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("  stage", "part", "reads", "from"):
        table.add_column(head)
    changed = contribution(recipe)
    for stage in STAGES:
        for part in getattr(recipe, stage) if stage in SEVERAL else (getattr(recipe, stage),):
            style = "bold" if stage in changed and recipe.base else None
            origin = function_of(part).__module__.removeprefix("whet.").removeprefix("papers.")
            table.add_row(f"  {stage}", name_of(part), ", ".join(data_of(part)), origin, style=style)
    return table


def _settings(recipe: Recipe) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("  address", "value", "source"):
        table.add_column(head)
    for row in settings_table(recipe):
        table.add_row(f"  {row['address']}", f"{row['value']}", row["source"])
    return table
