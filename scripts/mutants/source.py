"""One Python file as text, tree and tokens at once: what an operator needs to change a single place of it."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

Position = tuple[int, int]
"""Line from 1 and column from 0, in characters (ast itself counts columns in bytes)."""


@dataclass(frozen=True, order=True)
class Change:
    """A piece of one line made another."""

    line: int
    column: int
    old: str
    new: str

    def apply(self, text: str) -> str:
        """The text of the file with the change in it."""
        lines = text.splitlines(keepends=True)
        line = lines[self.line - 1]
        end = self.column + len(self.old)
        assert line[self.column : end] == self.old, f"line {self.line} does not hold {self.old!r} there"
        lines[self.line - 1] = line[: self.column] + self.new + line[end:]
        return "".join(lines)


@dataclass(frozen=True)
class Source:
    """A file's text, and where in it the nodes and tokens are."""

    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def tokens(self) -> list[tokenize.TokenInfo]:
        return list(tokenize.generate_tokens(io.StringIO(self.text).readline))

    def start(self, node: ast.expr | ast.stmt) -> Position:
        """Where a node begins."""
        return self._position(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> Position:
        """Where a node ends; its last character lies before."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._position(node.end_lineno, node.end_col_offset)

    def _position(self, line: int, n_bytes: int) -> Position:
        return line, len(self.lines[line - 1].encode()[:n_bytes].decode())

    def replace(self, node: ast.expr, new: str) -> Iterator[Change]:
        """A node's text made another, if it stands on one line."""
        (line, column), (last, end) = self.start(node), self.end(node)
        if line == last:
            yield Change(line, column, self.lines[line - 1][column:end], new)

    def replace_between(self, begin: Position, end: Position, old: str, new: str) -> Iterator[Change]:
        """The words `old` ("<", "is not") that stand there alone, made `new`, if they stand on one line."""
        words = old.split()
        tokens = [token for token in self.tokens if begin <= token.start and token.end <= end]
        for i in range(len(tokens) - len(words) + 1):
            found = tokens[i : i + len(words)]
            if [token.string for token in found] == words and found[0].start[0] == found[-1].end[0]:
                line, column = found[0].start
                yield Change(line, column, self.lines[line - 1][column : found[-1].end[1]], new)
                return

    @cached_property
    def _statements(self) -> list[tuple[int, int, bool]]:
        """First and last line of every statement without those inside it, and whether a function holds it."""
        return list(_statements(self.tree, in_function=False))

    def statement_at(self, line: int) -> tuple[range, bool]:
        """The lines of the innermost statement at a line, and whether it runs only when a function is called."""
        spans = [span for span in self._statements if span[0] <= line <= span[1]]
        first, last, in_function = max(spans, key=lambda span: span[0])
        return range(first, last + 1), in_function

    def line_text(self, line: int) -> str:
        """A line without the blanks around it."""
        return self.lines[line - 1].strip()


def _statements(node: ast.AST, in_function: bool) -> Iterator[tuple[int, int, bool]]:
    inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            body = getattr(child, "body", None)
            last = body[0].lineno - 1 if body else child.end_lineno
            yield child.lineno, max(child.lineno, last or 0), inside
        yield from _statements(child, inside)
