"""How one normalization layer reads its input: the inert description that the probe applies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from bnprobe.errors import BnprobeError
from bnprobe.recording import POOLS

FIRST, LAST = "first", "last"


@dataclass(frozen=True)
class NormLayer:
    """How one normalization layer reads its input: y = gamma * (x - mean) / sqrt(var + eps) + beta.

    `pools` says over what mean and var are taken: "batch" (per channel, over samples and positions),
    "instance" (per sample and channel), "group" (per sample and group of channels) or "channels" (over
    all channels at each position: layer and RMS norm). With `uses_running` the stored `running_mean`
    and `running_var` take their place. Channels are dimension 1 (`channels="first"`) or the last
    `n_channel_dims` dimensions (`channels="last"`). `centred=False` leaves out the mean, and then
    var is the mean square (RMSNorm). gamma is `weight + weight_offset`, each tensor of n_channels
    entries in any shape, or None.
    """

    kind: str
    pools: str
    n_channels: int
    eps: float
    channels: str = FIRST
    n_channel_dims: int = 1
    n_groups: int = 1
    weight: Tensor | None = None
    weight_offset: float = 0.0
    bias: Tensor | None = None
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    momentum: float | None = None
    n_batches_tracked: Tensor | None = None
    uses_running: bool = False
    centred: bool = True
    unbatched_dims: int | None = None

    def __post_init__(self) -> None:
        if self.pools not in POOLS:
            raise BnprobeError(f"pools={self.pools!r} is not known. Use one of {', '.join(POOLS)}.")
        if self.channels not in (FIRST, LAST):
            raise BnprobeError(f"channels={self.channels!r} is not known. Use {FIRST!r} or {LAST!r}.")
        if self.uses_running and (self.running_mean is None or self.running_var is None):
            raise BnprobeError(
                "uses_running needs running_mean and running_var. Give both, or uses_running=False."
            )
        if self.n_groups < 1 or self.n_channels % self.n_groups:
            raise BnprobeError(f"{self.n_channels} channels do not fall into {self.n_groups} groups.")

    def fits(self, x: Tensor) -> bool:
        """Whether a tensor of this shape can be the input."""
        if self.channels == FIRST:
            if x.dim() == self.unbatched_dims:
                return x.shape[0] == self.n_channels
            return x.dim() >= 2 and x.shape[1] == self.n_channels
        return (
            x.dim() >= self.n_channel_dims
            and x.shape[x.dim() - self.n_channel_dims :].numel() == self.n_channels
        )

    def rows(self, x: Tensor) -> Tensor:
        """The input as (N samples, C channels, P positions); a view for the common layouts.

        The first dimension is taken for the sample, where there is one before the channels.
        """
        if self.channels == FIRST:
            batch = x.unsqueeze(0) if x.dim() == self.unbatched_dims else x
            return (
                batch.reshape(batch.shape[0], self.n_channels, -1) if batch.numel() else _no_rows(batch, self)
            )
        lead = x.shape[: x.dim() - self.n_channel_dims]
        n = lead[0] if lead else 1
        if not x.numel():
            return _no_rows(x, self)
        return x.reshape(n, lead[1:].numel(), self.n_channels).transpose(1, 2)


def _no_rows(x: Tensor, layer: NormLayer) -> Tensor:
    return x.new_zeros((0, layer.n_channels, 1))


Describe = Callable[[nn.Module], NormLayer]
