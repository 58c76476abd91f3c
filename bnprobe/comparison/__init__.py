"""Two recordings against each other: what is common, how far it differs, how significant that is. Never imports torch."""

from bnprobe.comparison.first_difference import (
    DifferenceSite,
    difference_sites,
    first_beyond_noise,
    first_difference,
)
from bnprobe.comparison.pairs import Pair, Pairs, pairs
from bnprobe.comparison.subject import What, what
from bnprobe.comparison.tables import Differences, differences, glossary

__all__ = [
    "DifferenceSite",
    "Differences",
    "Pair",
    "Pairs",
    "What",
    "difference_sites",
    "differences",
    "first_beyond_noise",
    "first_difference",
    "glossary",
    "pairs",
    "what",
]
