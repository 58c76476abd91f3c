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


def rescaled(feeder: str, layer: str, factor: float) -> str:
    """The weights before a norm times a factor, and its memory with them: the output stays, but for eps."""
    return (
        f"`f, n = {module(feeder)}, {module(layer)}; f.weight.data *= {factor:.3g}; "
        f"n.running_mean *= {factor:.3g}; n.running_var *= {factor:.3g} ** 2`"
    )
