"""Nobody loses a row: every method of the reading list is a recipe, or a part by its own name, of its own paper.

`reading_list.json` holds, for each method by the list's name: the paper's arXiv number, where it has one, the shelf,
and what it is here. A name with a dot is a function of a paper's file.
"""

import importlib
import json
from pathlib import Path

import pytest

from whet import shelf

ROWS = json.loads(Path(__file__).with_name("reading_list.json").read_text(encoding="utf-8"))
RECIPES = shelf.every_recipe()
OTHER_PAPER = {"dual_clip", "adaptive_kl", "token_mean"}  # in a row with an older or a younger idea


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_method_of_the_reading_list_is_here(name):
    row = ROWS[name]
    assert row["is"]
    for one in row["is"]:
        file, _, function = one.rpartition(".")
        if file:
            assert callable(getattr(importlib.import_module(f"whet.papers.{file}"), function))
            continue
        assert one in RECIPES
        if one not in OTHER_PAPER:
            assert RECIPES[one].paper.arxiv == row["arxiv"]
        assert RECIPES[one].shelf == row["shelf"]


def test_the_reading_list_is_whole():
    """81 rows of the objective shelf, and 27 of its neighbours that act on the same tensors."""
    shelves = [row["shelf"] for row in ROWS.values()]
    assert (len(ROWS), shelves.count("objective")) == (108, 81)
