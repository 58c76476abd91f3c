"""The other side of the sum that a norm's output enters: its variance, as the norms before it imply.

Nothing is read again for it: each norm hands on N(beta, gamma^2), an activation makes of that what its
closed form says, and a sum of independent terms is taken for a Gaussian again. With gamma 1 and beta 0
throughout, the same walk gives the value at initialisation: for sums followed by ReLU the reflected
random walk of a post-activation network, without an activation the growth by 1 per block of De & Smith 2020,
arXiv:2002.10444.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from bnprobe.stats.moments import Array
from bnprobe.wiring.feed import Known, source_of
from bnprobe.wiring.geometry import Geometry, Source
from bnprobe.wiring.graph import Node, Site
from bnprobe.wiring.implied import implied


def skip_variance(
    terms: Iterable[Node], site: Node, norms: Mapping[Site, Known]
) -> tuple[Array | None, Array | None]:
    """Variance (C,) of the sum of `terms`, and at initialisation; None where the terms are not made of norms."""
    known = norms[site.facts["site"]]
    dim = known.channel_dim(len(site.shape))
    parts = tuple(source_of(term, dim, norms) for term in terms)
    if not parts:
        return None, None
    whole = Source("sum", n_channels=known.plan.n_channels, parts=parts)
    return _variance(whole), _variance(_initial(whole))


def _variance(source: Source) -> Array | None:
    """What a layer that does nothing would be given."""
    n = source.n_channels
    found = implied(np.ones((n, 1)), None, Geometry(groups=n), source)
    return None if found is None else found.var


def _initial(source: Source) -> Source:
    """The same with every norm at gamma 1, beta 0; channels of zeros belong to no norm."""
    parts = tuple(_initial(part) for part in source.parts)
    if not source.site:
        return replace(source, parts=parts)
    return replace(source, gamma=np.ones(source.n_channels), beta=np.zeros(source.n_channels))
