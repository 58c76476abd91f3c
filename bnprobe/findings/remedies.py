"""Lines of code that several rules recommend. Names in them are explained at `rule.Finding`."""

from __future__ import annotations

from collections.abc import Iterable

RECALIBRATE = "`torch.optim.swa_utils.update_bn(loader, model)`"
"""Running statistics of every batch norm made anew, as plain averages over the loader; the mode is put back."""


def module(layer: str) -> str:
    """The module with this path."""
    return f'model.get_submodule("{layer}")'


def start_anew(layer: str, channels: Iterable[int]) -> str:
    """gamma 1 and beta 0 for some channels, so that they can learn again."""
    which = list(channels)
    return f"`n = {module(layer)}; n.weight.data[{which}] = 1; n.bias.data[{which}] = 0`"


def rescaled(feeder: str, layer: str, factor: float, with_eps: bool = False) -> str:
    """The weights (and bias) before a norm times a factor, and its memory with them: the output stays, but for eps.

    `with_eps` scales eps alike, so that the output stays in any case.
    """
    return (
        f"`f, n = {module(feeder)}, {module(layer)}; [p.data.mul_({factor:.3g}) for p in f.parameters()]; "
        f"n.running_mean *= {factor:.3g}; n.running_var *= {factor:.3g} ** 2"
        + (f"; n.eps *= {factor:.3g} ** 2`" if with_eps else "`")
    )
