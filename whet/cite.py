"""BibTeX for exactly what a recipe uses: its own papers, and the paper of every part that runs."""

import importlib
import re

from whet import shelf
from whet.recipe import Paper, Recipe, function_of, lineage


def papers(recipe: Recipe) -> dict[str, Paper]:
    """Key → paper, oldest first: those named in the recipe's sum, and those whose functions it runs."""
    own = [recipe] if recipe.added is None else [r for r in lineage(recipe) if "+" not in r.name and _named(r, recipe)]
    found = {key(r.paper): r.paper for r in own}
    for _, part in recipe.parts():
        module = function_of(part).__module__
        if module.startswith("whet.papers."):
            paper = shelf.recipes_in(importlib.import_module(module))[-1].paper
            found[key(paper)] = paper
    return dict(sorted(found.items(), key=lambda item: item[1].date))


def _named(one: Recipe, whole: Recipe) -> bool:
    return one.name in whole.name.split("+")


def key(paper: Paper) -> str:
    """The first author's name, the year and the first long word of the title.

    >>> key(Paper("Back to Basics", date="2024-02-22", authors="Ahmadian, Arash and others"))
    'ahmadian2024back'
    """
    author = paper.authors.split(",")[0].split(" and ")[0] or "anonymous"
    word = next((w for w in re.findall(r"[A-Za-z0-9]+", paper.title) if len(w) > 3), "untitled")
    return re.sub(r"[^a-z0-9]", "", f"{author}{paper.date[:4]}{word}".lower())


def bibtex(recipe: Recipe) -> str:
    """One entry for each paper."""
    return "\n\n".join(_entry(name, paper) for name, paper in papers(recipe).items())


def _entry(name: str, paper: Paper) -> str:
    rows = {"title": f"{{{paper.title}}}", "author": paper.authors, "year": paper.date[:4]}
    if paper.arxiv:
        rows |= {"eprint": paper.arxiv, "archivePrefix": "arXiv"}
    if paper.link:
        rows["url"] = paper.link
    body = ",\n".join(f"  {field} = {{{value}}}" for field, value in rows.items() if value)
    return f"@misc{{{name},\n{body}\n}}"
