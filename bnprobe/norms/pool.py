"""Over which values a norm takes one mean and variance: its axes, and all that follows from them."""

from __future__ import annotations

from dataclasses import dataclass

from bnprobe.errors import BnprobeError
from bnprobe.recording import BATCH, CHANNELS, GROUP, INSTANCE


@dataclass(frozen=True)
class Pool:
    """The axes that a norm pools, of inputs laid out as N samples, C channels and P positions.

    Give one as `NormLayer(pools=...)` for a norm that is none of the four in `POOLS`: the probe asks for nothing else.
    Channels are pooled within the groups of the layer; a layer with one group pools all of them.

    Attributes:
        words: What has one mean and variance, in a sentence that begins "it normalizes ...".
        samples: Whether values of different samples are pooled; that takes positions too.
        channels: Whether values of different channels are pooled.
        positions: Whether values at different positions are pooled. Then the norm is one affine map per row of positions,
            from which everything after it follows; else its output is read as well.

    Raises:
        BnprobeError: Nothing is pooled, or samples without positions.

    Example:
        >>> from bnprobe.norms import NormLayer, Pool
        >>> whole = Pool("each sample as a whole", channels=True, positions=True)
        >>> NormLayer(kind="sample_norm", pools=whole, n_channels=6, eps=1e-5).pool.recorded_as
        'group'
    """

    words: str
    samples: bool = False
    channels: bool = False
    positions: bool = False

    def __post_init__(self) -> None:
        if not (self.channels or self.positions):
            raise BnprobeError(
                f"the pool of {self.words} has no axis. Pool channels, positions, or samples and positions."
            )
        if self.samples and not self.positions:
            raise BnprobeError(
                f"the pool of {self.words} has samples without positions, which cannot be recorded. Pool positions too."
            )

    @property
    def recorded_as(self) -> str:
        """The word of the four that a recording has for it: the one whose statistics are of the same sort."""
        if self.samples:
            return BATCH
        if self.positions:
            return GROUP if self.channels else INSTANCE
        return CHANNELS

    @property
    def within_channel(self) -> bool:
        """Whether each channel has statistics of its own."""
        return not self.channels

    def values_per_statistic(self, n_values: float, n_samples: int, n_channels: int) -> float:
        """Values behind one mean and variance, in a call with `n_values` per channel from `n_samples`.

        `n_channels` is how many channels are in a group.
        """
        together = n_channels if self.channels else 1
        if not self.positions:
            return float(together)
        return together * (n_values if self.samples else n_values / max(n_samples, 1))

    def axes(self, n_dims: int, channel_dim: int) -> tuple[int, ...]:
        """The dimensions that are pooled, of an input of `n_dims` whose samples come first."""
        kept = {0: self.samples, channel_dim: self.channels}
        return tuple(dim for dim in range(n_dims) if kept.get(dim, self.positions))


POOLS: dict[str, Pool] = {
    BATCH: Pool("each channel over samples and positions", samples=True, positions=True),
    INSTANCE: Pool("each channel of each sample over positions", positions=True),
    GROUP: Pool("each group of channels of each sample over positions", channels=True, positions=True),
    CHANNELS: Pool("all channels at each position of each sample", channels=True),
}
"""The pools that have a word of their own."""


def pool_of(pools: str | Pool) -> Pool:
    """The pool with this word, or the one that was given.

    Raises BnprobeError for an unknown word.
    """
    if isinstance(pools, Pool):
        return pools
    if pools not in POOLS:
        raise BnprobeError(
            f"pools={pools!r} is not known. Use one of {', '.join(POOLS)}, or a bnprobe.norms.Pool of your own."
        )
    return POOLS[pools]
