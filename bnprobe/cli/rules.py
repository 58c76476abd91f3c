"""`bnprobe rules`: the rule book, or the page of one rule."""

from __future__ import annotations

import argparse
import difflib
from typing import Any

from bnprobe.errors import BnprobeError
from bnprobe.printing import say, say_lines


def add(commands: Any) -> None:
    """Add the command to the parser."""
    rules = commands.add_parser(
        "rules",
        help="list the rules, or print the page of one",
        description="List what the rules ask, or print what one means, how it is found and fixed, and when to ignore it.",
    )
    rules.add_argument("rule", nargs="?", metavar="RULE", help="the rule whose page is printed")
    rules.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the list, or one page."""
    from bnprobe.rules import COMPARED, RULES
    from bnprobe.rules.rule_docs import rule_markdown

    book = (*RULES, *COMPARED)
    names = [rule.id for rule in book]
    if options.rule is None:
        width = max(map(len, names))
        say_lines("\n".join(f"{rule.id:<{width}}  {rule.asks}" for rule in book))
        return 0
    if options.rule not in names:
        close = difflib.get_close_matches(options.rule, names, n=1, cutoff=0.6)
        advice = f"Did you mean {close[0]}?" if close else "`bnprobe rules` lists them."
        raise BnprobeError(f'no rule is called "{options.rule}". {advice}')
    rule = next(rule for rule in book if rule.id == options.rule)
    say_lines(f"{rule_markdown(rule.id).rstrip()}\n\n## Source\n\n{rule.source}\n\n")
    say(
        f'To ignore it: ignore = ["{rule.id}"] or ["{rule.id}:LAYER"] under [tool.bnprobe] in pyproject.toml.'
    )
    return 0
