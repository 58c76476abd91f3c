"""Words that nothing a user reads may use, and where to look for them: sentences, docstrings, pages, scripts.

python -m tests.support.words bnprobe/rules README.md      # what is left in some files or folders
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

BANNED: dict[str, str] = {
    r"memor(?:y|ies)": "running statistics (or RAM, where the memory of a computer is meant)",
    r"remember(?:s|ed|ing)?": "running mean, running variance, stored",
    r"(?<!standard )(?<!absolute )deviations?": "standard deviation, std",
    r"surely|(?<!make )(?<!making )sure": "significant, significantly, certain",
    r"promis(?:e|es|ed)": "target",
    r"switched off": "γ near 0",
    r"wither(?:s|ed)?": "decayed to near zero",
    r"(?:is|are|was|were|fell|falls) silent": "never positive, output always 0",
    r"lets? (?:nothing|anything|something|everything)(?: of (?:it|them))? through": "output always 0",
    r"(?:the|other|\d+) norms? (?:before|behind)|norms? behind": "previous, following norms",
    r"(?:before|behind) (?:it|them) (?:agree|remember|say)s?": "previous, following norms",
    r"behind (?:it|them|a|an|the|this|that|weights)": "after, following",
    r"anew": "again, re-...",
    r"none the less": "yet",
    r"B less A|less chance|less a little": "minus",
    r"told": "reported, said, inferred",
    r"at which": "where",
    r"batch ?mates?": "the rest of the batch",
    r"chance of calling": "FDR-adjusted p-value",
    r"no channel was never": "every channel was ... at least once",
    r"worth a look": "the verdict itself",
    r"norms? (?:is|are) said to": "should",
    r"not once positive": "never positive",
    r"goes? in and out|puts? out": "outputs",
    r"as it comes": "default settings",
    r"batches normalize themselves": "normalize with batch statistics",
    r"do not count": "ignore",
    r"how to say it": "output format",
    r"of one batch give": "Wrap a single batch in a list: [batch].",
    r"there is \{\}": "Known names: a, b.",
    r"without any request": "self-contained",
    r"(?:\{\}|\d[\d.,]*) %": "4.1%: no space before the sign",
    r"colour\w*|neighbour\w*(?!\()|centre[sd]?(?![=:])|greys?|behaviours?|favour\w*": "color, neighbor, center, gray",
    r"(?:un)?labelled|modelled|\w+nalys(?:e[ds]?|ing)|mis?spelt|spelt|licence|judgement|artefacts?": "American spelling",
    r"(?:re|un)?(?:initial|normal|recogn|optim|synchron|quant|standard|summar)is(?:e[ds]?|ing|ation)": "American spelling",
    r"rooms?|walls?|waist|twins?|witness(?:es)?|cages?|menagerie": "package, boundary, public API, reference, sandbox",
}
"""Patterns, as whole words in any case, and what to say instead."""

ALLOWED: tuple[tuple[str, str, str], ...] = ()
"""Files as a glob, a pattern around the word, and why it may stand there: so far there is no reason for any."""

_BANNED = [
    (re.compile(rf"(?<![\w`#-])(?:{pattern})(?![\w`-])", re.IGNORECASE), instead)
    for pattern, instead in BANNED.items()
]
_ALLOWED = [(glob, re.compile(pattern, re.IGNORECASE)) for glob, pattern, _ in ALLOWED]


@dataclass(frozen=True)
class Text:
    """A piece of text that a user may read, and where it begins."""

    path: str
    line: int
    words: str


def violations(text: Text) -> list[str]:
    """Every banned word of it as "file:line: ...word... -> instead"."""
    words = " ".join(text.words.split())
    found = []
    for pattern, instead in _BANNED:
        for match in pattern.finditer(words):
            if not _is_allowed(text.path, words, match):
                around = words[max(match.start() - 40, 0) : match.end() + 30]
                line = text.line + _lines_before(text.words, len(words[: match.start()].replace(" ", "")))
                found.append(f"{text.path}:{line}: “{match[0]}” in “{around}”: say {instead}")
    return found


def _lines_before(content: str, n_letters: int) -> int:
    """Line breaks in front of the letter with this number, spaces not counted."""
    for i, letter in enumerate(content):
        n_letters -= not letter.isspace()
        if n_letters < 0:
            return content[:i].count("\n")
    return content.count("\n")


def _is_allowed(path: str, words: str, match: re.Match[str]) -> bool:
    return any(
        fnmatch(path, glob) and around.start() <= match.start() and match.end() <= around.end()
        for glob, pattern in _ALLOWED
        for around in pattern.finditer(words)
    )


def texts(path: Path, root: Path, docstrings: bool = True) -> Iterator[Text]:
    """What a user may read in a file; public docstrings of Python only where they are asked for."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    content = path.read_text("utf-8")
    reader = _READERS.get(path.suffix)
    if path.suffix == ".py":
        tree = ast.parse(content)
        yield from (Text(name, line, words) for line, words in _sentences(tree))
        if docstrings:
            yield from (Text(name, line, words) for line, words in _docstrings(tree))
    elif reader:
        yield from (Text(name, line, words) for line, words in reader(content))


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Of the module, and of classes and functions whose names have no underscore in front, with all around them."""

    def walk(node: ast.AST) -> Iterator[tuple[int, str]]:
        body = getattr(node, "body", [])
        if (
            body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            yield body[0].lineno, body[0].value.value
        for child in body:
            if isinstance(
                child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and not child.name.startswith("_"):
                yield from walk(child)

    yield from walk(tree)


def _sentences(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """String constants with more than one word, or one that begins with a capital: keys and names are neither."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare | inside:
            words = node.value
            yield from [(node.lineno, words)] * (" " in words or words[:1].isupper())


def _whole(content: str) -> Iterator[tuple[int, str]]:
    yield 1, re.sub(r"```.*?```", lambda code: "\n" * code[0].count("\n"), content, flags=re.DOTALL)


def _newest(content: str) -> Iterator[tuple[int, str]]:
    """The newest section of a changelog: from the first "## " to the second."""
    parts = re.split(r"(?m)^(?=## )", content)
    yield parts[0].count("\n") + 1, parts[1] if len(parts) > 1 else content


def _template(content: str) -> Iterator[tuple[int, str]]:
    """What is between tags, and what attributes say."""
    blank = re.compile(r"\{#.*?#\}|\{%.*?%\}|<!--.*?-->|</?[a-zA-Z][\w-]*", re.DOTALL)
    yield 1, blank.sub(lambda tag: "\n" * tag[0].count("\n") + " ", content)


_JS = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`""", re.DOTALL
)


def _script(content: str) -> Iterator[tuple[int, str]]:
    """Strings of a script; comments are not read by users."""
    for match in _JS.finditer(content):
        if not match[0].startswith(("//", "/*")) and (" " in match[0] or match[0][1:2].isupper()):
            yield content[: match.start()].count("\n") + 1, re.sub(r"\$\{[^}]*\}", "{}", match[0][1:-1])


_READERS: dict[str, Callable[[str], Iterator[tuple[int, str]]]] = {
    ".md": _whole,
    ".j2": _template,
    ".html": _template,
    ".js": _script,
}


def changelog(path: Path, root: Path) -> Iterator[Text]:
    """The newest section of the changelog."""
    for line, words in _newest(path.read_text("utf-8")):
        yield Text(path.relative_to(root).as_posix(), line, words)


def files(place: Path) -> list[Path]:
    """The file, or every readable one below a folder; libraries of others are not ours to word."""
    below = [place] if place.is_file() else sorted(place.rglob("*"))
    return [path for path in below if path.suffix in (".py", *_READERS) and ".min." not in path.name]


def main() -> int:
    root = Path.cwd()
    found = [
        said
        for place in map(Path, sys.argv[1:] or ["bnprobe"])
        for path in files(place.resolve())
        for text in texts(path, root)
        for said in violations(text)
    ]
    print("\n".join(found))
    print(f"{len(found)} places")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
