"""Channels that are always 0 after their ReLU, taken out of the layers around them; the outputs stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from bnprobe.errors import BnprobeError, class_name
from bnprobe.experiments.outputs import Metric
from bnprobe.experiments.run import Batches, Call
from bnprobe.experiments.surgery.converted import Converted, Row, converted, rows_of
from bnprobe.experiments.surgery.fold import Weighted
from bnprobe.experiments.surgery.look import Look, copied, has_hooks, looked
from bnprobe.experiments.surgery.passes import run_all
from bnprobe.graph.foldable import feeder_of
from bnprobe.graph.removable import InTheWay, Reader, readers_of
from bnprobe.norms import ModuleTree
from bnprobe.probe.survey.unwrap import shown, unwrap
from bnprobe.stats.moments import Array

WEIGHTS, DATA = "weights", "data"
"""What shows that a channel is always 0: its weights, for any finite input; or the batches, for these."""


def prune(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    proof: str = WEIGHTS,
    layers: str | Sequence[str] | None = None,
    metric: Metric | None = None,
    call: Call | None = None,
) -> Converted:
    """Remove channels that never work, in a copy of the model, and measure that the outputs stay.

    A channel never works where what its batch norm gives is never positive and a ReLU follows: 0 is all that later layers
    get of it. It is removed from the layer before the norm, from the norm, and from every layer that reads it, where the
    executed pass proves that nothing else does: not where it enters a sum, a concatenation or a grouped convolution. Its
    products were zeros, so the outputs are the same but for the order of additions.

    Args:
        model: Any `torch.nn.Module` in eval mode. It is left as it was.
        batches: A list or loader of batches, as for `bnprobe.record`, with targets where the metric needs them. It is read
            three times.
        proof: "weights" removes channels whose γ or filter is exactly 0 and whose constant output is not positive: the
            outputs stay for any input. "data" also removes those that were never positive on these batches: the outputs
            stay on these, and other inputs may need the channel.
        layers: Shell-style pattern or patterns of the paths of norms to prune. None prunes all.
        metric: Function of (output, target) that returns one number per sample, shape (N,); see `Plan.preview`.
        call: Function of (model, batch) that runs one batch and returns the output, where `model(x)` does not.

    Returns:
        The new model, a row per norm (how many channels were removed, or why none), and the effect on the outputs.

    Raises:
        NoNormLayers: No norm can be pruned, or none matches `layers`; names the reason.
        NothingRecorded: There were no samples.
        BnprobeError: `proof` is something else, the model is in train mode, cannot be copied, or cannot run with fewer
            channels.

    Example:
        >>> import torch, bnprobe
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3)).eval()
        >>> with torch.no_grad():
        ...     model[1].weight[:2], model[1].bias[:2] = 0, -1
        >>> bnprobe.prune(model, [torch.randn(4, 3, 9, 9)]).layers["done"].tolist()
        ['2 of 8 channels removed']
    """
    if proof not in (WEIGHTS, DATA):
        raise BnprobeError(f"proof={proof!r} is neither 'weights' nor 'data'. Pass one of these.")
    new = copied(model, "prune")
    seen = Batches(new, batches, "pruning", 3)
    with looked(new, seen, call) as look:
        rows = rows_of(look, layers, "pruned")
        found = [cut for row in rows.values() if not row.why and (cut := _cut(look, row)) is not None]
    highest = _highest(new, found, seen, call) if proof == DATA else {}
    for cut in found:
        cut.remove(_never(cut, highest.get(cut.row.norm.path)))
    try:
        return converted(unwrap(model)[0], new, rows.values(), batches, metric, call)
    except RuntimeError as error:
        raise BnprobeError(
            f"the model does not run with fewer channels ({' '.join(str(error).split())[:160]}): its code may name their "
            "number. Leave norms out with layers=."
        ) from error


class Cut:
    """One norm, the layer before it, and the layers that read it."""

    def __init__(self, row: Row, before: Weighted, readers: list[tuple[Weighted, Reader]]) -> None:
        self.row, self.before, self.readers = row, before, readers

    def remove(self, never: NDArray[np.bool_]) -> None:
        """Take these channels, shape (C,) bool, out of all of them; one is kept where all never work."""
        if never.all():
            never[0] = False
        n = int(never.sum())
        if not n:
            self.row.why = "every channel works, or may work"
            return
        keep = torch.from_numpy(np.flatnonzero(~never)).to(self.before.weight.device)
        _select(self.before, "weight", keep, 0)
        _select(self.before, "bias", keep, 0)
        _resize(self.before, ("out_channels", "out_features"), len(keep))
        norm = self.row.norm.module
        for name in ("weight", "bias", "running_mean", "running_var"):
            _select(norm, name, keep, 0)
        _resize(norm, ("num_features",), len(keep))
        for layer, reader in self.readers:
            columns = (
                keep[:, None] * reader.columns + torch.arange(reader.columns, device=keep.device)
            ).flatten()
            _select(layer, "weight", columns, 1)
            _resize(layer, ("in_channels", "in_features"), len(columns))
        self.row.done = f"{n:,} of {len(never):,} channels removed"


def _cut(look: Look, row: Row) -> Cut | None:
    """The layers around a norm, if channels can be taken out of all of them; else None, and the row gets the reason."""
    if look.graph is None:
        row.why = (
            "the pass could not be followed: parts are compiled or scripted, or call= does not call the model"
        )
        return None
    feeder = feeder_of(row.norm.path, look.graph, look.known)
    try:
        readers = () if feeder.why else readers_of(row.norm.path, look.graph)
    except InTheWay as reason:
        row.why = str(reason)
        return None
    modules = {shown(path): module for path, module in ModuleTree.of(look.model).modules.items()}
    before = modules.get(shown(feeder.layer))
    behind = [(modules.get(shown(reader.layer)), reader) for reader in readers]
    unfit = [m for m in (before, *(m for m, _ in behind)) if not isinstance(m, Weighted) or has_hooks(m)]
    if feeder.why or unfit:
        row.why = (
            feeder.why or f"a {class_name(unfit[0])} beside it is no layer of torch, or has hooks of yours"
        )
        return None
    assert isinstance(before, Weighted)
    if isinstance(before, _ConvTransposeNd) or (isinstance(before, _ConvNd) and before.groups != 1):
        row.why = f"{feeder.layer} before it is grouped or transposed"
        return None
    return Cut(row, before, [(m, reader) for m, reader in behind if isinstance(m, Weighted)])


def _never(cut: Cut, highest: Array | None) -> NDArray[np.bool_]:
    """Which channels are never positive: by γ and the filter, for any input; by the largest output, where it is given."""
    scale, shift = cut.row.norm.affine()
    weight = cut.before.weight.detach()
    empty = (weight.flatten(1) == 0).all(1).cpu().numpy()
    bias = cut.before.bias
    given = np.zeros(len(scale)) if bias is None else bias.detach().double().cpu().numpy()
    constant = np.where(scale == 0, shift, scale * given + shift)
    # a constant within the rounding of the model's type could come out on the other side of 0
    by_weights = ((scale == 0) | empty) & (constant <= -1e-5 * (np.abs(scale * given) + np.abs(shift)))
    by_weights |= (scale == 0) & (shift == 0)
    return np.asarray(by_weights if highest is None else by_weights | (highest <= 0))


def _highest(model: nn.Module, cuts: list[Cut], batches: Batches, call: Call | None) -> dict[str, Array]:
    """The largest value of each channel of these norms' outputs, over all batches."""
    found: dict[str, Array] = {}

    def watch(path: str) -> Any:
        def after(module: nn.Module, args: Any, output: Tensor) -> None:
            rows = output.detach().transpose(0, 1).flatten(1)
            # NaN counts as positive: nothing is known of such a channel
            most = rows.nan_to_num(nan=float("inf")).amax(1).double().cpu().numpy()
            found[path] = most if path not in found else np.maximum(found[path], most)

        return after

    run_all(
        model,
        batches,
        call,
        (cut.row.norm.module.register_forward_hook(watch(cut.row.norm.path)) for cut in cuts),
    )
    return found


def _select(module: nn.Module, name: str, keep: Tensor, dim: int) -> None:
    """Keep some entries of a parameter or buffer along a dimension."""
    tensor = getattr(module, name, None)
    if not isinstance(tensor, Tensor):
        return
    values = tensor.detach().index_select(dim, keep.to(tensor.device))
    setattr(
        module,
        name,
        nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values,
    )


def _resize(module: nn.Module, names: tuple[str, ...], n: int) -> None:
    for name in names:
        if hasattr(module, name):
            setattr(module, name, n)
