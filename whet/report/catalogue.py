"""CATALOGUE.md, one page for each paper and the picture of who builds on whom: written from the shelf itself.

`python -m whet.report.catalogue` writes them; with `--check` it only says which are stale.
"""

import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from textwrap import dedent
from typing import Any

from whet import describe, shelf
from whet.recipe import SEVERAL, STAGES, Recipe, contribution, data_of, function_of, name_of, scored
from whet.report.typeset import equations

ROOT = Path(__file__).parents[2]
REPOSITORY_FILES = "../../whet/papers"
UNTESTED = "not tested yet"


def verdicts(folder: Path) -> dict[str, str]:
    """Recipe → what `whet verify` found, from the files in results/: a verdict for each finding."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("finding-*.json")):
        one = json.loads(path.read_text())
        said = (
            f"{one['verdict']}, {one['words'].removeprefix('cannot tell yet: ')}" if "words" in one else one["verdict"]
        )
        what = f"{one['measure']}, {one['task']}: " if "measure" in one else ""
        found.setdefault(one["recipe"], []).append(what + said)
    return {recipe: "; ".join(said) for recipe, said in found.items()}


def catalogue(recipes: dict[str, Recipe], verdict: dict[str, str]) -> str:
    """The table of every recipe, and the matrix of who changes which stage."""
    lines = [
        "# Catalogue",
        "",
        f"Written by `make docs` from the {len(shelf.modules())} files in `whet/papers/`: {len(recipes)} recipes. "
        "Add them up on the command line: `whet train rloo+k1_reward`.",
        "",
        "![Who builds on whom](docs/family.svg)",
        "",
        "| recipe | year | what is new | builds on | changes | needs | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for recipe in _by_date(recipes):
        base = recipe.base.name if recipe.base else ""
        changes = ", ".join(contribution(recipe)) if recipe.base else "all"
        needs = ", ".join(shelf.needed(recipe, scored(recipe)))
        cells = [_link(recipe, "docs/papers"), recipe.paper.date[:4], recipe.new, base, changes, needs]
        lines.append(f"| {' | '.join(_cell(c) for c in cells)} | {verdict.get(recipe.name, UNTESTED)} |")
    lines += ["", "## Who changes which stage", "", *_matrix(recipes), "", "## What is assumed", ""]
    for recipe in _by_date(recipes):
        assumed = [line for line in recipe.departs if line.startswith("Assumed")]
        lines += [f"- **{recipe.name}**: {line}" for line in assumed]
    return "\n".join(lines).rstrip() + "\n"


def _matrix(recipes: dict[str, Recipe]) -> list[str]:
    lines = ["| stage | recipes |", "|---|---|"]
    for stage in STAGES:
        names = [r.name for r in _by_date(recipes) if r.base is not None and stage in contribution(r)]
        if names:
            lines.append(f"| {stage} | {', '.join(names)} |")
    return lines


def page(file: str, recipes: Sequence[Recipe], verdict: dict[str, str]) -> str:
    """The page of one paper: equation, recipes with stages and settings, code, departures."""
    module = shelf.home(recipes[0])
    paper = recipes[-1].paper
    source = inspect.getsource(module)
    facts = " · ".join(x for x in (paper.authors, paper.date, f"<{paper.link}>" if paper.link else "") if x)
    lines = [
        f"# {file}",
        "",
        f"*{paper.title}*",
        "",
        facts,
        *said(inspect.cleandoc(module.__doc__ or "")),
    ]
    for recipe in recipes:
        lines += ["", *_recipe(recipe, verdict.get(recipe.name, UNTESTED))]
    lines += [
        "",
        "## Code",
        "",
        f"[`whet/papers/{file}.py`]({REPOSITORY_FILES}/{file}.py)",
        "",
        "```python",
        source.rstrip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def said(text: str) -> list[str]:
    r"""A file's docstring for the page: sentences as sentences, equations drawn.

    >>> print(*said("What is new.\n\n    A = R - mean R    (eq. 1)\n\nWhat it means.")[3:7], sep="\n")
    ```math
    \begin{aligned}
    A &= R - \operatorname{mean} R && \text{(eq. 1)}
    \end{aligned}
    """
    lines: list[str] = []
    for block, equation in blocks(text):
        lines += ["", *(equations(block) if equation else block)]
    return lines


def blocks(text: str) -> Iterator[tuple[list[str], bool]]:
    """The paragraphs of a file's docstring, and whether each is an equation: the second is, and what has columns."""
    for i, paragraph in enumerate(text.split("\n\n")):
        lines = dedent(paragraph).split("\n")
        yield lines, i == 1 or any("  " in line.strip() for line in lines)


def _recipe(recipe: Recipe, verdict: str) -> list[str]:
    needs = ", ".join(shelf.needed(recipe, scored(recipe))) or "nothing besides the policy"
    children = [name for name, row in shelf.index().items() if row["base"] == recipe.name]
    lines = [
        f"## `{recipe.name}`: {recipe.new}",
        "",
        f"- builds on: {recipe.base.name if recipe.base else 'nothing'}",
        f"- built on it: {', '.join(children) or 'nothing yet'}",
        f"- needs: {needs}",
        f"- claims, each checked by a law: {', '.join(recipe.claims).replace('_', ' ') or 'none'}",
        *_findings(recipe, verdict),
        "",
        "| stage | part | reads | from |",
        "|---|---|---|---|",
    ]
    changed = contribution(recipe)
    for stage in STAGES:
        for part in getattr(recipe, stage) if stage in SEVERAL else (getattr(recipe, stage),):
            if stage == "select" and "select" not in changed:
                continue
            name = f"**{stage}**" if stage in changed and recipe.base else stage
            origin = function_of(part).__module__.removeprefix("whet.").removeprefix("papers.")
            lines.append(f"| {name} | {name_of(part)} | {', '.join(data_of(part))} | {origin} |")
    lines += ["", "| setting | value | source |", "|---|---|---|"]
    for row in describe.settings_table(recipe):
        value = "the model's" if row["value"] is None and row["address"] == "update.lr" else row["value"]
        lines.append(f"| {row['address']} | {value} | {_cell(row['source'])} |")
    if recipe.departs:
        lines += ["", "Departs from the paper:", "", *(f"- {line}" for line in recipe.departs)]
    return lines


def _findings(recipe: Recipe, verdict: str) -> list[str]:
    """What the paper says will happen, with its own figure, and what `whet verify` found."""
    lines = [f"- finding: {one}" for one in recipe.findings]
    return [*lines, f"- found here: {verdict}"]


def family(recipes: dict[str, Recipe]) -> str:
    """A picture: one row for each recipe below the one it builds on, placed from left to right by its date."""
    rows: list[tuple[Recipe, int]] = []

    def place(recipe: Recipe, depth: int) -> None:
        rows.append((recipe, depth))
        for child in _by_date(recipes):
            if child.base is recipe:
                place(child, depth + 1)

    for root in (r for r in _by_date(recipes) if r.base is None):
        place(root, 0)
    at = {recipe.name: (16 + 150 * depth, 22 + 18 * i) for i, (recipe, depth) in enumerate(rows)}
    labels = {recipe.name: _short(f"{recipe.paper.date[:4]} · {recipe.new}") for recipe, _ in rows}
    after = {name: x + 12 + 7.4 * len(name) for name, (x, _) in at.items()}
    width = round(max(after[name] + 6.6 * len(label) for name, label in labels.items())) + 16
    height = 22 + 18 * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for recipe, _ in rows:
        x, y = at[recipe.name]
        if recipe.base is not None:
            bx, by = at[recipe.base.name]
            parts.append(f'<path d="M{bx + 6} {by + 4}V{y - 4}H{x - 4}" fill="none" stroke="#b8c0cc"/>')
        parts.append(f'<text x="{x}" y="{y}" font-weight="600" fill="#1c2733">{escape(recipe.name)}</text>')
        label = escape(labels[recipe.name])
        parts.append(f'<text x="{after[recipe.name]:.0f}" y="{y}" fill="#6b7785">{label}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _short(label: str) -> str:
    return label if len(label) < 76 else label[:73] + "…"


def pages() -> dict[Path, str]:
    """Every generated file and its text."""
    recipes, verdict = shelf.every_recipe(), verdicts(ROOT / "results")
    made = {ROOT / "CATALOGUE.md": catalogue(recipes, verdict), ROOT / "docs" / "family.svg": family(recipes)}
    home = {name: row["file"] for name, row in shelf.index().items()}  # once: it reads every paper
    for file in shelf.modules():
        mine = [recipe for recipe in recipes.values() if home[recipe.name] == file]
        if mine:
            made[ROOT / "docs" / "papers" / f"{file}.md"] = page(file, mine, verdict)
    return made


def _by_date(recipes: dict[str, Recipe]) -> list[Recipe]:
    return sorted(recipes.values(), key=lambda recipe: (recipe.paper.date, recipe.name))


def _link(recipe: Recipe, folder: str) -> str:
    return f"[{recipe.name}]({folder}/{shelf.index()[recipe.name]['file']}.md)"


def _cell(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with `--check` say which are stale."""
    made = pages()
    old = set((ROOT / "docs" / "papers").glob("*.md")) - set(made)
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text() != text] + sorted(old)
    if "--check" in arguments:
        for path in stale:
            print(f"stale: {path.relative_to(ROOT)} (write it again with `make docs`)")
        return 1 if stale else 0
    for path in old:
        path.unlink()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"{len(made)} pages, {len(stale)} of them changed.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
