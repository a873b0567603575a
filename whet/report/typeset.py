"""Equations as the papers' files write them, in LaTeX for the pages: the same symbols in the same order.

A file writes `A_i = (R_i - mean R) / (std R + ε)   (eq. 3)`. Names of one letter are variables, what follows `_` and
`^` hangs on them, functions are upright, other words are text, and columns are parted by two spaces. A quotient is
stacked only where the file leaves no doubt about what is divided: without spaces (`1/|y_i|`), or of two brackets.
"""

import re
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

FUNCTIONS = {
    "clip", "min", "max", "exp", "log", "ln", "mean", "std", "sg", "sigmoid", "softmax", "sign", "tanh", "rank",
}  # fmt: skip
LETTERS = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "Δ": "Delta", "ε": "varepsilon", "η": "eta", "θ": "theta",
    "κ": "kappa", "λ": "lambda", "μ": "mu", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "varphi",
    "Φ": "Phi", "ψ": "psi", "Ψ": "Psi", "Σ": "sum", "Π": "prod", "∇": "nabla",
}  # fmt: skip
SIGNS = {
    "∂": r"\partial ", "·": r"\cdot ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∈": r"\in ", "∋": r"\ni ",
    "→": r"\to ", "←": r"\leftarrow ", "‖": r"\Vert ", "∞": r"\infty ", "…": r"\ldots ", "±": r"\pm ",
    "⌈": r"\lceil ", "⌉": r"\rceil ", "½": r"\tfrac{1}{2}", "~": r"\sim ", "²": "^{2}", "⁺": "^{+}", "⁻": "^{-}",
    "√": r"\surd ", "{": r"\{", "}": r"\}", "%": r"\%", "\\": r"\setminus ", "<": r"\lt ", ">": r"\gt ",
}  # fmt: skip
NUMBER = re.compile(r"(\d+(?:\.\d+)?)(?:e(-?\d+))?")
SIZE = re.compile(r"\|([A-Za-z](?:\*|_\w+)?)\|")
WORD = re.compile(r"(?:[A-Za-z]{2,}|[A-Z](?=-[A-Z]{2})|[a-z](?=-(?:th\b|[a-z]{4})))(?:[-.'][A-Za-z]+)*(?:'(?= ))?")
HUNG = re.compile(
    r"_(?P<low>\{[^}]*\}|[A-Za-z\d]+(?:,[a-z])?)|\^(?P<high>\{[^}]*\}|\([^)]*\)|-?[A-Za-z\d]+\+?)|(?P<star>[*'⁺⁻~])"
)
INDEX = re.compile(r"-?(?:[bgijkmqtv]{1,2}\d?|\d+|[A-Z])")
REFERENCE = re.compile(r"\((?:eq|section|algorithm)[^_Α-ω]*\)")
CLOSES = {"(": ")", "[": "]"}
PARTS = ("name", "number", "bracket")


class Atom(NamedTuple):
    """A piece of an equation in LaTeX: a name, number, bracket (with its inside), function, word, space or sign."""

    tex: str
    kind: str
    inside: str = ""


def equations(block: list[str]) -> list[str]:
    r"""The lines of an equation as a fence that GitHub and the usual viewers of Markdown draw.

    >>> print(equations(["A_i = R_i - mean R    (eq. 1)"])[2])
    A_{i} &= R_{i} - \operatorname{mean} R && \text{(eq. 1)}
    """
    rows = [_row(line) for line in block]
    return ["```math", r"\begin{aligned}", *(f"{row} \\\\" for row in rows[:-1]), rows[-1], r"\end{aligned}", "```"]


def _row(line: str) -> str:
    """Aligned at the first equals sign where little stands before it; a remark after four spaces is the last column."""
    line = re.sub(r"(?<=[=←·/(])\s+|\s+(?=[=←/·)])|(?<=Σ_\w)\s{2,3}(?=\S)", " ", line.strip())
    line, remark = (*re.split(r"\s{4,}(?!.*\s{4})", line, maxsplit=1), "")[:2]
    if not re.search("[=(]", line):
        line, remark = f"{line}  {remark}".strip(), ""
    cells = re.split(r"\s{2,}", line)
    label = typeset(cells.pop(0)) + r"\quad " if len(cells) > 1 and not re.search("[=←,(]", cells[0]) else ""
    first = re.match(r"([^=←(,:]{1,12}?) (\+?=|←) (.*)", cells[0])
    head, sign, tail = first.groups() if first else ("", "", cells[0])
    made = f"{label}{typeset(head)} &{SIGNS.get(sign, sign)} " if sign else f"& {label}"
    made += r"\quad ".join(map(typeset, [tail, *cells[1:]]))
    return made + (f" && {typeset(remark)}" if remark else "")


def typeset(text: str) -> str:
    r"""One cell in LaTeX.

    >>> print(typeset("1/|o_i| Σ_t π_old(y_t) / std R, where A > 0"))
    \frac{1}{|o_{i}|} \sum_{t} \pi_{\text{old}}(y_{t}) / \operatorname{std} R,\text{ where }A \gt  0
    """
    if REFERENCE.fullmatch(text):
        return rf"\text{{{text}}}"
    return _joined(_stacked(_atoms(text)))


def _atoms(text: str) -> list[Atom]:
    found: list[Atom] = []
    at = 0
    while at < len(text):
        atom, at = _next(text, at)
        found.append(atom)
    return found


def _next(text: str, at: int) -> tuple[Atom, int]:
    char = text[at]
    if char == " ":
        return Atom(" ", "space"), at + 1
    if number := NUMBER.match(text, at):
        power = f"10^{{{number[2]}}}" if number[2] else ""
        times = number[1] if not power else "" if number[1] == "1" else rf"{number[1]} \cdot "
        return _hung(text, number.end(), times + power, "number")
    if char in CLOSES and (end := _end(text, at)):
        inside = typeset(text[at + 1 : end])
        return _hung(text, end + 1, f"{char}{inside}{text[end]}", "bracket", inside)
    if size := SIZE.match(text, at):
        return Atom(f"|{typeset(size[1])}|", "name"), size.end()
    if word := WORD.match(text, at):
        return _word(text, word)
    if text.startswith("a ", at) and (noun := WORD.match(text, at + 2)) and noun[0] not in FUNCTIONS:
        return Atom("a", "word"), at + 1
    if char.isalpha() or char == "∇":
        name = f"\\{LETTERS[char]}" if char in LETTERS else char
        if text[at + 1 : at + 2] == "\u0304":
            return _hung(text, at + 2, rf"\bar{{{name}}}", "name")
        return _hung(text, at + 1, name, "function" if char in "ΣΠ" else "name")
    return Atom(SIGNS.get(char, char), "sign"), at + 1


def _word(text: str, word: re.Match[str]) -> tuple[Atom, int]:
    if word[0] in FUNCTIONS:
        return _hung(text, word.end(), rf"\operatorname{{{word[0]}}}", "function")
    long = re.compile(r"(?:_[a-z]{3,})+").match(text, word.end())
    if long and word[0].islower():  # the name of a function of this project
        return Atom((word[0] + long[0]).replace("_", r"\_"), "word"), long.end()
    if text[word.end() : word.end() + 1] in ("_", "^"):
        return _hung(text, word.end(), rf"\mathrm{{{word[0]}}}", "name")
    return Atom(word[0], "word"), word.end()


def _hung(text: str, at: int, tex: str, kind: str, inside: str = "") -> tuple[Atom, int]:
    """A base with all that hangs on it."""
    start = at
    while found := HUNG.match(text, at):
        if found["star"] == "*" and text[at + 1 : at + 2].isalnum():
            break
        if found["star"] == "~":
            tex = rf"\tilde{{{tex}}}"
        elif found["star"]:
            tex += {"'": "'", "*": "^{*}"}.get(found["star"]) or SIGNS[found["star"]]
        else:
            tex += f"_{{{_index(found['low'])}}}" if found["low"] else f"^{{{_index(found['high'])}}}"
        at = found.end()
    if re.search(r"\\[A-Za-z]+$", tex) and text[at : at + 1].isalnum():
        tex += " "
    return Atom(tex, kind, inside if at == start else ""), at


def _index(what: str) -> str:
    bare = what[1:-1] if what[0] in "{(" else what
    if INDEX.fullmatch(bare):
        return bare
    if what[0] in "{(-" or not bare.isascii() or len(bare) == 1:
        return typeset(bare)
    head, comma, tail = bare.partition(",")
    return (head if INDEX.fullmatch(head) else rf"\text{{{head}}}") + comma + tail


def _end(text: str, at: int) -> int:
    """Where the bracket that opens here closes; 0 where it does not."""
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] in CLOSES) - (text[i] in CLOSES.values())
        if not depth:
            return i if text[i] == CLOSES[text[at]] else 0
    return 0


def _stacked(atoms: list[Atom]) -> list[Atom]:
    """Quotients whose two sides are beyond doubt, one above the other."""
    found: list[Atom] = []
    at = 0
    while at < len(atoms):
        after = [*atoms[at + 1 : at + 5], *[Atom("", "end")] * 4][:4]
        called = bool(found) and found[-1].kind in ("name", "function")
        tight = atoms[at].tex == "/" and found and found[-1].kind in PARTS and after[0].kind in PARTS
        wide = [one.kind for one in after] == ["space", "sign", "space", "bracket"] and after[1].tex == "/"
        if tight and not (found[-1].kind == "bracket" and len(found) > 1 and found[-2].kind in ("name", "function")):
            calls = after[0].kind == "name" and after[1].kind == "bracket"
            below = after[0].tex + after[1].tex if calls else _bare(after[0])
            found[-1] = Atom(rf"\frac{{{_bare(found[-1])}}}{{{below}}}", "name")
            at += 3 if calls else 2
        elif wide and atoms[at].kind == "bracket" and atoms[at].inside and after[3].inside and not called:
            found.append(Atom(rf"\frac{{{atoms[at].inside}}}{{{after[3].inside}}}", "name"))
            at += 5
        else:
            found.append(atoms[at])
            at += 1
    return found


def _bare(atom: Atom) -> str:
    return atom.inside or atom.tex


def _joined(atoms: list[Atom]) -> str:
    """Words and the spaces beside them are text; everywhere else LaTeX spaces by its own rules."""
    words = {i for i, atom in enumerate(atoms) if atom.kind == "word"}
    told = [i in words or (atom.kind == "space" and {i - 1, i + 1} & words) for i, atom in enumerate(atoms)]
    made = ""
    for text, run in groupby(zip(map(bool, told), atoms, strict=True), key=itemgetter(0)):
        whole = "".join(atom.tex for _, atom in run)
        made += rf"\text{{{whole}}}" if text else whole
    return made
