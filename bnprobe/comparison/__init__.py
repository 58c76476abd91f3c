"""Two recordings against each other: what is common, how far it lies apart, and how sure that is. Never imports torch."""

from bnprobe.comparison.opening import Place, opening, places, surely
from bnprobe.comparison.pairs import Pair, Pairs, pairs
from bnprobe.comparison.tables import Differences, differences, glossary
from bnprobe.comparison.what import What, what

__all__ = [
    "Differences",
    "Pair",
    "Pairs",
    "Place",
    "What",
    "differences",
    "glossary",
    "opening",
    "pairs",
    "places",
    "surely",
    "what",
]
