"""Values that add up: `empty`, `of`, `merge`. Streaming is `total.merge(of(batch))`.

This package knows numpy and nothing of models. Every class here is a frozen record of many
variables at once (one per channel, say), all in float64, and owns the only formula by which
it is merged, whether the parts are batches, workers, machines or days.
"""

from bnprobe.stats.classes import ClassMoments
from bnprobe.stats.exemplars import Exemplars
from bnprobe.stats.folds import N_FOLDS, Folds
from bnprobe.stats.histogram import N_BINS, Histogram
from bnprobe.stats.images import ImageMoments
from bnprobe.stats.moments import Moments

__all__ = ["N_BINS", "N_FOLDS", "ClassMoments", "Exemplars", "Folds", "Histogram", "ImageMoments", "Moments"]
