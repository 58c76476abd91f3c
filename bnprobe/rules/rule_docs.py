"""The page of documentation of each rule: what it means, how it is found, how to fix it, when to ignore it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from bnprobe.files import read_shipped

HEADS = ("What it means", "How it is found", "How to fix it", "When to ignore it")
_FOLDER = resources.files("bnprobe.rules").joinpath("docs")


def rule_markdown(rule: str) -> str:
    """The page as it was written. Raises FileNotFoundError for a rule without one."""
    return read_shipped("bnprobe.rules", "docs", f"{rule}.md")


def rule_page(rule: str) -> dict[str, str]:
    """The four paragraphs of the page by their heads, each on one line."""
    parts = rule_markdown(rule).split("\n## ")[1:]
    return {head: " ".join(text.split()) for head, _, text in (part.partition("\n") for part in parts)}


def rule_address(rule: str) -> str:
    """Where the page lies, as an absolute address: it ships with the package."""
    return Path(str(_FOLDER.joinpath(f"{rule}.md"))).absolute().as_uri()
