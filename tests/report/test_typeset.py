"""Equations on the pages: LaTeX that opens, with every symbol of the file in its order."""

import importlib
import inspect
import re
import unicodedata
from xml.etree import ElementTree

import pytest
from latex2mathml.converter import convert

from whet import shelf
from whet.report import catalogue
from whet.report.catalogue import blocks
from whet.report.typeset import equations, typeset

DRAWN = str.maketrans(
    {"⋅": "·", "−": "-", "∑": "Σ", "∏": "Π", "ϵ": "ε", "ϕ": "φ", "∥": "‖", "⁎": "*", "′": "'", "⟶": "→"}
)
# strokes, brackets and places: a quotient has no stroke, and a star may come after an index
WITHOUT = re.compile(r"[\s/()_^*{}\u2061\u0303\u00af\u0304~|\\⧵∖∣']")


def symbols(text):
    text = re.sub(r"(\d)e(-\d)", r"\1·10\2", text).replace("1·10-6", "10-6").replace("½", "12")
    return WITHOUT.sub("", unicodedata.normalize("NFKD", text.translate(DRAWN)).translate(DRAWN))


def drawn(latex):
    return "".join(ElementTree.fromstring(convert(latex)).itertext())


@pytest.mark.parametrize("file", sorted({row["file"] for row in shelf.index().values()}))
def test_every_symbol_of_an_equation_is_drawn_in_its_order(file):
    text = inspect.cleandoc(importlib.import_module(f"whet.papers.{file}").__doc__)
    for block in [lines for lines, equation in blocks(text) if equation]:
        rows = equations(block)[2:-2]
        assert len(rows) == len(block)
        for line, row in zip(block, rows, strict=True):
            assert symbols(drawn(row.removesuffix(r"\\").replace("&", ""))) == symbols(line), row


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("1/C(n,k) Σ_j R_j", r"\frac{1}{C(n,k)} \sum_{j} R_{j}"),
        ("Σ_j |y_j| R_j / Σ_j |y_j|", r"\sum_{j} |y_{j}| R_{j} / \sum_{j} |y_{j}|"),
        ("π(y_t) / μ(y_t)", r"\pi(y_{t}) / \mu(y_{t})"),
        ("f(x) / (a + b)", r"f(x) / (a + b)"),
        ("(R - mean R) / (std R + ε)", r"\frac{R - \operatorname{mean} R}{\operatorname{std} R + \varepsilon}"),
        ("γ^{k-t} π_v² e^-H A*_i", r"\gamma^{k-t} \pi_{v}^{2} e^{-H} A^{*}_{i}"),
        ("1 - ε_low, 5e-4", r"1 - \varepsilon_{\text{low}}, 5 \cdot 10^{-4}"),
    ],
)
def test_what_hangs_on_what_and_what_is_divided(text, latex):
    assert typeset(text) == latex


def test_the_catalogue_and_the_pages_of_the_papers_are_fresh():
    assert catalogue.main(["--check"]) == 0
