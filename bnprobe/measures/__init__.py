"""Pure functions from a layer's record to columns: one family of measures, one file. Never imports torch."""

from bnprobe.measures.columns import Column
from bnprobe.measures.exemplars import exemplars
from bnprobe.measures.gradient import imbalance
from bnprobe.measures.implied import Fit, pooled
from bnprobe.measures.stem import StemReading, stem
from bnprobe.measures.tables import Tables, glossary, tables
from bnprobe.measures.timesteps import timesteps

__all__ = [
    "Column",
    "Fit",
    "StemReading",
    "Tables",
    "exemplars",
    "glossary",
    "imbalance",
    "pooled",
    "stem",
    "tables",
    "timesteps",
]
