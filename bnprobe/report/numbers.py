"""Numbers as people read them, and names short enough to print."""

from __future__ import annotations

import math

MISSING = "–"
NARROW = "\u00a0"
"""A space at which no line is broken."""


def number(value: float, digits: int = 3) -> str:
    """Three significant digits, a true minus sign, a dash for what is not defined."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 1e6:
        text = f"{value:,.0f}"
    elif 1e-3 <= abs(value) < 1e5:
        text = f"{value:,.{max(digits - 1 - math.floor(math.log10(abs(value))), 0)}f}"
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "−")


def share(value: float) -> str:
    """A share in percent, with the digits that matter; a little is not nothing, and almost all is not all."""
    if math.isnan(value):
        return MISSING
    percent = 100 * value
    if 0 < percent < 0.05:
        text = "under 0.1"
    elif 99.5 <= percent < 100:
        text = "over 99"
    else:
        text = f"{percent:.0f}" if percent >= 10 or percent == 0 else f"{percent:.1f}"
    return f"{text}%".replace(" ", NARROW)


def count(n: int, noun: str) -> str:
    """A number with its noun in the right form: 1 channel, 2 channels."""
    plural = noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")
    return f"{n:,} {noun if n == 1 else plural}"


def visible(text: str) -> str:
    """The text with control and formatting characters made visible, and plain spaces."""
    if text.isprintable():  # as almost every text is
        return text
    return "".join(c if c.isprintable() else " " if c == "\u00a0" else "�" for c in text)


def shorten(text: str, length: int = 34) -> str:
    """The text with its middle left out where it is longer than `length`; control characters made visible."""
    printable = visible(text)
    if len(printable) <= length:
        return printable
    tail = (length - 1) * 2 // 3
    return f"{printable[: length - 1 - tail]}…{printable[-tail:]}"


def listed(names: list[str], most: int = 3) -> str:
    """Names in a row, with the number of those left out."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
