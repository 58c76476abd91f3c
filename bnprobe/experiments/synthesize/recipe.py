"""What is minimized, and by which steps: the numbers of the recipe in one place, and the four ways to make images."""

from __future__ import annotations

from dataclasses import dataclass

from bnprobe.report.made_table import CLASSES, PERMUTED, STATISTICS, WHOLE


@dataclass(frozen=True)
class Recipe:
    """How images are made. Pixels are in units of `UNIT`, a standard deviation of photographs."""

    rate: float = 0.1
    """Step size of Adam at the start, in units, of all pictures of a pyramid together; falls to 0 along a cosine."""
    betas: tuple[float, float] = (0.5, 0.99)
    statistics: float = 1.0
    """Weight of the sum over norms of the distance, beside the cross entropy."""
    roughness: float = 0.1
    """Weight of the mean difference between neighboring pixels."""
    shift: float = 1 / 16
    """Images are moved by up to this share of their side at each step, and mirrored."""
    stages: tuple[tuple[float, float], ...] = ((0.5, 0.5),)
    """Until which share of the steps images have which share of their side; thereafter they are whole."""
    first: float = 10.0
    """Weight of the first norm; it falls to 1 of the last one in equal ratios. Early norms hold contrast and color."""
    levels: int = 5
    """Images are sums of so many pictures, each of half the side of the one before: photographs have large shapes."""
    noise: float = 0.15
    """Added at each step, in units: what is drawn must be seen through it, so it cannot be fine patterns."""


NOISE_FOR_LARGE = 0.0
"""The same for large images. On mobilenet_v2 at 128 pixels the median rank of the class was 1 of 1,000 without noise and
36 with 0.3 units of it."""

UNIT = 0.25
"""The spread of pixels in 0 to 1, about that of photographs."""


@dataclass(frozen=True)
class Way:
    """One way to make images; `permuted` statistics stand at other channels' places."""

    name: str
    statistics: bool
    classes: bool
    permuted: bool = False


WAYS = (
    Way(WHOLE, statistics=True, classes=True),
    Way(CLASSES, statistics=False, classes=True),
    Way(STATISTICS, statistics=True, classes=False),
    Way(PERMUTED, statistics=True, classes=True, permuted=True),
)
"""The way that is of use, and its controls."""

WITHOUT_CLASSES = (
    Way(STATISTICS, statistics=True, classes=False),
    Way(PERMUTED, statistics=True, classes=False, permuted=True),
)
"""The same for a network that scores no classes."""
