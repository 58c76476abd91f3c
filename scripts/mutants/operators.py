"""All small changes of a file: a comparison, sign, constant or connective made another, one at a time.

Why not mutmut or cosmic-ray: both are alive, but half of mutmut's operators change strings and arguments,
of which sentences make hundreds here; neither moves a threshold by a tenth, flips a sign or knows numpy's
pairs; and both bring their own runner, where we need the copies and forks of `workers`.

Left alone is what no test should have to catch: strings and f-strings, annotations, decorators, messages of
errors, and the arguments in `GUARDS`, which change nothing unless a caller is wrong.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from scripts.mutants.source import Change, Source

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
CONNECTIVES: dict[type[ast.boolop], tuple[str, str]] = {ast.And: ("and", "or"), ast.Or: ("or", "and")}
SIGNS: dict[type[ast.unaryop], tuple[str, str]] = {
    ast.USub: ("-", "+"),
    ast.Not: ("not", ""),
    ast.Invert: ("~", ""),
}
CALLS = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "abs": "",
    "minimum": "maximum",
    "maximum": "minimum",
    "fmin": "fmax",
    "fmax": "fmin",
    "nanmin": "nanmax",
    "nanmax": "nanmin",
    "argmin": "argmax",
    "argmax": "argmin",
    "nanmean": "nanmedian",
    "nanmedian": "nanmean",
    "median": "mean",
    "floor": "ceil",
    "ceil": "floor",
}
"""What is called instead; nothing where the call is left out and its one argument remains."""
GUARDS = {"strict", "stacklevel", "frozen", "encoding"}
LEFT_ALONE = {"annotation", "returns", "decorator_list", "bases", "type_params", "exc", "cause", "msg"}
"""Fields of nodes that are not looked into."""


def changes(source: Source) -> list[Change]:
    """Every change of the file, by place; none is equal to another."""
    return sorted({change for node in _nodes(source.tree) for change in _changes_of(node, source)})


def is_mutant(change: Change, source: Source) -> bool:
    """Whether the changed text is a program, and another one."""
    try:
        return ast.dump(ast.parse(change.apply(source.text))) != ast.dump(source.tree)
    except SyntaxError:
        return False


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The node and those inside it that may be changed."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in LEFT_ALONE:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_left_alone(child):
                yield from _nodes(child)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return True
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.keyword) and node.arg in GUARDS)


def _changes_of(node: ast.AST, source: Source) -> Iterator[Change]:
    operator = OPERATORS.get(type(node))
    return operator(node, source) if operator else iter(())


def _comparison(node: ast.Compare, source: Source) -> Iterator[Change]:
    sides = [node.left, *node.comparators]
    for left, operator, right in zip(sides, node.ops, node.comparators, strict=False):
        old, new = COMPARISONS[type(operator)]
        yield from source.replace_between(source.end(left), source.start(right), old, new)


def _arithmetic(node: ast.BinOp, source: Source) -> Iterator[Change]:
    if type(node.op) in ARITHMETIC and not (_is_sequence(node.left) or _is_sequence(node.right)):
        old, new = ARITHMETIC[type(node.op)]
        yield from source.replace_between(source.end(node.left), source.start(node.right), old, new)


def _is_sequence(node: ast.expr) -> bool:
    """Whether a `+` at it joins sequences; a `-` there would never run."""
    literal = isinstance(node, ast.List | ast.Tuple | ast.JoinedStr | ast.ListComp)
    return literal or (isinstance(node, ast.Constant) and not isinstance(node.value, int | float))


def _in_place(node: ast.AugAssign, source: Source) -> Iterator[Change]:
    if type(node.op) in ARITHMETIC and not _is_sequence(node.value):
        old, new = ARITHMETIC[type(node.op)]
        yield from source.replace_between(
            source.end(node.target), source.start(node.value), f"{old}=", f"{new}="
        )


def _connective(node: ast.BoolOp, source: Source) -> Iterator[Change]:
    old, new = CONNECTIVES[type(node.op)]
    for left, right in zip(node.values, node.values[1:], strict=False):
        yield from source.replace_between(source.end(left), source.start(right), old, new)


def _sign(node: ast.UnaryOp, source: Source) -> Iterator[Change]:
    if type(node.op) in SIGNS:
        old, new = SIGNS[type(node.op)]
        yield from source.replace_between(source.start(node), source.start(node.operand), old, new)


def _constant(node: ast.Constant, source: Source) -> Iterator[Change]:
    for new in _other_values(node.value):
        yield from source.replace(node, new)


def _other_values(value: object) -> list[str]:
    if isinstance(value, bool):
        return [str(not value)]
    if isinstance(value, int):
        return {0: ["1"], 1: ["0", "2"]}.get(value, [str(value + 1)])
    if isinstance(value, float):
        return [f"{value * 1.1:.6g}", f"-{value!r}"] if value else ["1.0"]
    return []


def _call(node: ast.Call, source: Source) -> Iterator[Change]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name not in CALLS:
        return
    if CALLS[name]:
        yield from source.replace_between(source.start(node.func), source.end(node.func), name, CALLS[name])
    elif len(node.args) == 1 and not node.keywords:
        yield from source.replace(node.func, "")


OPERATORS: dict[type[ast.AST], Callable[..., Iterator[Change]]] = {
    ast.Compare: _comparison,
    ast.BinOp: _arithmetic,
    ast.AugAssign: _in_place,
    ast.BoolOp: _connective,
    ast.UnaryOp: _sign,
    ast.Constant: _constant,
    ast.Call: _call,
}
