"""How one normalization layer reads its input: the inert description that the probe applies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnprobe.errors import BnprobeError, class_name
from bnprobe.norms.gated import Gate
from bnprobe.norms.pool import Pool, pool_of
from bnprobe.notebook import facts

FIRST, LAST = "first", "last"


@dataclass(frozen=True)
class NormLayer:
    """How a normalization layer computes its output: y = gamma * (x - mean) / sqrt(var + eps) + beta.

    What the `describe` function of `bnprobe.register_norm` returns. C is the number of channels; tensors have C
    entries in any shape and are read, never changed.

    Attributes:
        kind: Name of the kind in tables and on pages, such as "batch_norm", or a name of your own.
        pools: Over what mean and var are computed: "batch" (per channel, over samples and positions), "instance" (per
            sample and channel), "group" (per sample and group of channels) or "channels" (over all channels at each
            position, as in layer and RMS norm); or a `bnprobe.norms.Pool` for other axes.
        n_channels: C, the number of channels.
        eps: Added to var before the square root.
        channels: Where the channels are: "first" (dimension 1) or "last" (the last `n_channel_dims` dimensions).
        n_channel_dims: Number of trailing dimensions that hold the channels, for `channels="last"`.
        n_groups: Number of groups of channels that are pooled apart, for pools over channels; it divides C.
        weight: gamma - `weight_offset`, or None for a gamma of 1.
        weight_offset: 1.0 for layers that multiply by 1 + weight.
        bias: beta, or None for 0.
        running_mean: The stored mean, or None.
        running_var: The stored variance, or None.
        momentum: Weight of a new batch in the running statistics, or None for a cumulative average.
        n_batches_tracked: The counter of batches, a tensor of one entry, or None.
        uses_running: Whether this call normalizes with `running_mean` and `running_var`, as batch norm does in eval
            mode.
        centred: False if no mean is subtracted; var is then the mean square (RMS norm).
        eps_assumed: Whether eps is only the usual one, because the layer does not tell its own.
        unbatched_dims: Number of dimensions of an input without a batch dimension, or None if there is always one.
        sample_dim: Which dimension is the sample, for `channels="last"`: 1 for inputs of shape (positions, N, C). Inputs
            that do not have it, such as one row per sample, have their samples first.
        gate: What the norm multiplies by, a `bnprobe.norms.Gate`, where its forward takes `gate`, `z` or `g` after the
            input; or None.
        pool: The axes that `pools` stands for.

    Raises:
        BnprobeError: `pools` or `channels` is not one of the names above, `uses_running` comes without running
            statistics, or the groups do not divide the channels.

    Example:
        >>> import bnprobe
        >>> bnprobe.NormLayer(kind="my_norm", pools="group", n_channels=6, n_groups=2, eps=1e-5)
        NormLayer(kind='my_norm', pools='group', n_channels=6, eps=1e-05, n_groups=2)
    """

    kind: str
    pools: str | Pool
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
    eps_assumed: bool = False
    sample_dim: int = 0
    gate: Gate | None = None
    pool: Pool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool", pool_of(self.pools))
        if self.channels not in (FIRST, LAST):
            raise BnprobeError(f"channels={self.channels!r} is not a layout. Use {FIRST!r} or {LAST!r}.")
        if self.uses_running and (self.running_mean is None or self.running_var is None):
            raise BnprobeError(
                "uses_running=True needs running_mean and running_var. Pass both, or uses_running=False."
            )
        if self.n_groups < 1 or self.n_channels % self.n_groups:
            raise BnprobeError(
                f"n_groups={self.n_groups} does not divide {self.n_channels} channels. Use a divisor."
            )

    def fits(self, x: Tensor) -> bool:
        """Whether a tensor of this shape can be the input.

        Args:
            x: A tensor with the channels where `channels` says.

        Returns:
            True if the dimensions of the channels multiply to `n_channels`.
        """
        if self.channels == FIRST:
            if x.dim() == self.unbatched_dims:
                return x.shape[0] == self.n_channels
            return x.dim() >= 2 and x.shape[1] == self.n_channels
        return (
            x.dim() >= self.n_channel_dims
            and x.shape[x.dim() - self.n_channel_dims :].numel() == self.n_channels
        )

    def rows(self, x: Tensor) -> Tensor:
        """Reshape an input to samples, channels and positions.

        Args:
            x: A tensor that `fits`; its first dimension is the sample, unless `sample_dim` says otherwise.

        Returns:
            Shape (N, C, P): N samples, C channels, P positions. A view for the common layouts.
        """
        if self.channels == FIRST:
            batch = x.unsqueeze(0) if x.dim() == self.unbatched_dims else x
            return (
                batch.reshape(batch.shape[0], self.n_channels, -1) if batch.numel() else _no_rows(batch, self)
            )
        if not x.numel():
            return _no_rows(x, self)
        n_lead = x.dim() - self.n_channel_dims
        x = x.movedim(self.sample_dim, 0) if 0 < self.sample_dim < n_lead else x
        lead = x.shape[:n_lead]
        return x.reshape(lead[0] if lead else 1, lead[1:].numel(), self.n_channels).transpose(1, 2)

    def places(self, x: Tensor) -> tuple[int, ...]:
        """The dimensions of an input that are not channels.

        Args:
            x: A tensor that `fits`.

        Returns:
            N, and the sizes that multiply to P, in the order of `rows`.
        """
        if self.channels == FIRST:
            return (1, *x.shape[1:]) if x.dim() == self.unbatched_dims else (x.shape[0], *x.shape[2:])
        lead = list(x.shape[: x.dim() - self.n_channel_dims])
        if 0 < self.sample_dim < len(lead):
            lead.insert(0, lead.pop(self.sample_dim))
        return tuple(lead) or (1,)

    def _set(self) -> Iterator[tuple[str, object]]:
        """Every field that is not at its default; of a tensor, dtype and shape."""
        for given in (one for one in fields(self) if one.init):
            value = getattr(self, given.name)
            if isinstance(value, Tensor):
                yield given.name, f"<{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}>"
            elif given.default is MISSING or value != given.default:
                yield given.name, repr(value)

    def __repr__(self) -> str:
        return f"NormLayer({', '.join(f'{name}={value}' for name, value in self._set())})"

    def _repr_html_(self) -> str:
        return facts(f"NormLayer: {self.kind}, {self.n_channels} channels", self._set())


def faults(layer: NormLayer) -> str:
    """What a description says that no layer can be, in words; empty where there is nothing."""
    if not isinstance(layer.kind, str) or type(layer.n_channels) is not int or layer.n_channels < 0:
        return f"gave kind={layer.kind!r:.40} and n_channels={layer.n_channels!r:.40}, not a name and a whole number"
    if isinstance(layer.eps, bool) or not isinstance(layer.eps, float | int):
        return f"gave eps={layer.eps!r:.40}, not a number"
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(layer, name)
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            return f"gave {name} as {class_name(tensor)}, not a tensor"
        if not is_lazy(tensor) and tensor.numel() not in (0, layer.n_channels):  # 0 of a shard's stub
            return f"gave {name} of {tensor.numel():,} numbers for {layer.n_channels:,} channels"
    return ""


def _no_rows(x: Tensor, layer: NormLayer) -> Tensor:
    return x.new_zeros((0, layer.n_channels, 1))


Describe = Callable[[nn.Module], NormLayer]
