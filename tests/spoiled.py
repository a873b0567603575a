"""One bug at a time, planted in a file: every way to spoil a function, as a sentence and the spoiled text."""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

OTHER_OPERATOR = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.GtE, ast.GtE: ast.Lt,
    ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.FloorDiv: ast.Div,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult,
}  # fmt: skip
OTHER_NAME = {
    "minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min", "amax": "amin", "amin": "amax",
    "low": "high", "high": "low", "any": "all", "all": "any", "cumsum": "cumprod", "exp": "expm1", "log": "log1p",
    "token_mean": "token_sum", "token_sum": "token_mean", "old_logp": "logp", "argmax": "argmin", "argmin": "argmax",
}  # fmt: skip
PADDED = {"token_mean": "mean(1)", "batch_mean": "mean()", "token_sum": "sum(1)"}
ALONG = ("sum", "mean", "cumsum", "any", "all", "amax", "softmax", "flip")
WITHOUT_GROUPS = {"mean": "mean()", "std": "std()", "total": "sum()"}


@dataclass(frozen=True)
class Mutant:
    """One planted bug."""

    file: str
    line: int
    what: str
    source: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def edits(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], ast.AST]]]:
    """Every way to spoil one node, as a sentence and a function of a copy of it."""
    if isinstance(node, ast.BinOp) and type(node.op) in OTHER_OPERATOR:
        other = OTHER_OPERATOR[type(node.op)]
        yield f"{type(node.op).__name__} → {other.__name__}", lambda n: _with(n, op=other())
        if isinstance(node.op, ast.Add | ast.Mult | ast.Sub):
            yield f"{ast.unparse(node)} → its left side", lambda n: n.left
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER_OPERATOR:
        other = OTHER_OPERATOR[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} → {other.__name__}", lambda n: _with(n, ops=[other()])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert | ast.Not):
        yield f"{type(node.op).__name__} dropped from {ast.unparse(node)}", lambda n: n.operand
    if isinstance(node, ast.Attribute) and node.attr in OTHER_NAME:
        yield f"{node.attr} → {OTHER_NAME[node.attr]}", lambda n: _with(n, attr=OTHER_NAME[n.attr])
    if isinstance(node, ast.Name) and node.id in OTHER_NAME and isinstance(node.ctx, ast.Load):
        yield f"{node.id} → {OTHER_NAME[node.id]}", lambda n: _with(n, id=OTHER_NAME[n.id])
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value in (0, 1, 2):
        yield f"{node.value} → {node.value + 1}", lambda n: _with(n, value=n.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is float and node.value:
        yield f"{node.value} → {-node.value}", lambda n: _with(n, value=-n.value)
    if isinstance(node, ast.Call):
        yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[tuple[str, Callable[[ast.AST], ast.AST]]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    on_groups = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "groups"
    if name in ("detach", "clamp", "sqrt", "abs"):
        yield f".{name}() dropped", lambda n: n.func.value
    if name in ALONG and node.args and ast.unparse(node.args[-1]) == "1":
        yield f".{name} along the other axis", lambda n: _with(n, args=[*n.args[:-1], ast.Constant(0)])
    if name == "where" and len(node.args) == 3:
        yield "the branches of where swapped", lambda n: _with(n, args=[n.args[0], n.args[2], n.args[1]])
    if on_groups and name == "spread":
        yield "spread without the mask", lambda n: n.args[0]
    if on_groups and name in PADDED:
        yield f"groups.{name} over padding", lambda n: _expression(f"({ast.unparse(n.args[0])}).{PADDED[name]}")
    if on_groups and name in WITHOUT_GROUPS and len(node.args) == 2:
        yield (
            f"groups.{name} over the whole batch",
            lambda n: _expression(f"({ast.unparse(n.args[0])}).{WITHOUT_GROUPS[name]}"),
        )


def _with(node: ast.AST, **changes: object) -> ast.AST:
    for name, value in changes.items():
        setattr(node, name, value)
    return node


def _expression(text: str) -> ast.AST:
    return ast.parse(text, mode="eval").body


class _Spoil(ast.NodeTransformer):
    """Applies edit number `which` in the order of a walk."""

    def __init__(self, which: int) -> None:
        self.which, self.count, self.what, self.line = which, 0, "", 0

    def visit(self, node: ast.AST) -> ast.AST:
        for what, edit in edits(node):
            if self.count == self.which:
                self.what, self.line = what, getattr(node, "lineno", 0)
                self.count += 1
                return ast.copy_location(edit(copy.deepcopy(node)), node)
            self.count += 1
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = [self.visit(child) for child in node.body]
        return node


def mutants_of(path: Path) -> list[Mutant]:
    """Every bug that can be planted in the functions of a file; settings and recipes are left alone."""
    text = path.read_text()
    found = []
    tree = ast.parse(text)
    for i, top in enumerate(tree.body):
        functions = [top] if isinstance(top, ast.FunctionDef) else []
        if isinstance(top, ast.ClassDef):
            functions = [node for node in top.body if isinstance(node, ast.FunctionDef)]
        for function in functions:
            found += _mutants_in(path, tree, i, function)
    return found


def _mutants_in(path: Path, tree: ast.Module, top: int, function: ast.FunctionDef) -> list[Mutant]:
    found, which = [], 0
    while True:
        spoiled = copy.deepcopy(tree)
        target = next(
            node for node in ast.walk(spoiled.body[top])
            if isinstance(node, ast.FunctionDef) and node.name == function.name
        )  # fmt: skip
        spoil = _Spoil(which)
        spoil.visit(target)
        if not spoil.what:
            return found
        source = ast.unparse(ast.fix_missing_locations(spoiled))
        found.append(Mutant(str(path.relative_to(ROOT)), spoil.line, f"in {function.name}, {spoil.what}", source))
        which += 1
