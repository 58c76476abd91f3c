"""Lines of code that several rules recommend. Names in them are explained at `rule.Finding`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

RECALIBRATE = "`torch.optim.swa_utils.update_bn(loader, model)`"
"""Running statistics of every batch norm re-estimated as plain averages over the loader; the mode is put back."""


OF_BATCH = "v.transpose(0, 1).flatten(1).mean(1)", "v.transpose(0, 1).flatten(1).var(1)"
OF_SAMPLES = "v.flatten(2).mean(2).mean(0)", "v.flatten(2).var(2).mean(0)"
"""Mean and variance of an input v (N, C, ...) as norms store them: of the batch, or averaged over its samples."""


def recalibrate(row: pd.Series, data: str = "loader") -> str:
    """Running statistics of this norm re-estimated as plain averages over the batches of `data`."""
    if row["kind"] == "instance_norm":
        return _by_hook(row["layer"], data, *OF_SAMPLES)
    if "Frozen" in str(row["class_name"]):
        return _by_hook(row["layer"], data, *OF_BATCH)
    return RECALIBRATE.replace("loader", data)


def _by_hook(layer: str, data: str, mean: str, var: str) -> str:
    """For norms that update_bn skips, since they are none of torch's batch norms."""
    return (
        "update_bn skips norms of this class, so do it by hand in eval mode, starting with the norms nearest to the input: "
        f"`n, s = {module(layer)}, []; look = lambda v: s.append(torch.stack([{mean}, {var}])); "
        "h = n.register_forward_pre_hook(lambda m, a: look(a[0].detach()))`, "
        f"`for b in {data}: model(b[0] if isinstance(b, (list, tuple)) else b)`, "
        "`h.remove(); r = torch.stack(s).mean(0); n.running_mean.copy_(r[0]); n.running_var.copy_(r[1])`"
    )


def module(layer: str) -> str:
    """The module with this path."""
    return f'model.get_submodule("{path(layer)}")'


_FUNCTION = r"(?:batch|layer|group|instance|rms)_norm:\d+(?:\[\d+\])?"
"""A functional norm as sites are named after it: the function and the line, with its channels where they differ."""

_OF_FUNCTION = rf'model\.[gs]et_submodule\("(?:[^"]*\.)?{_FUNCTION}"'
_BY_CODE = re.compile(rf"`[^`]*{_OF_FUNCTION}[^`]*`(?:, (?:then )?`[^`]*`)*|{_OF_FUNCTION}\)\S*")


def is_function(layer: str) -> bool:
    """Whether a site is a function's call: no module of the model has its name."""
    return re.fullmatch(rf"(?:.*\.)?{_FUNCTION}", layer) is not None


def in_words(advice: str) -> str:
    """Advice on a functional norm without the code that would ask the model for a module of its name."""
    return _BY_CODE.sub("do so by hand in the code that calls the function", advice)


def path(layer: str) -> str:
    """The path of a producer without the word on how it was found, which `check` adds."""
    return layer.removesuffix(" (by name)")


def which(channels: Sequence[int], n_channels: int) -> str:
    """These of a layer's channels, as an index: all of them need no list."""
    return "[:]" if len(channels) == n_channels else f"[{list(channels)}]"


def reinitialized(layer: str, channels: Sequence[int], n_channels: int) -> str:
    """gamma 1 and beta 0 for these of the layer's channels, so that they can learn again."""
    at = which(channels, n_channels)
    return f"`n = {module(layer)}; n.weight.data{at} = 1; n.bias.data{at} = 0`"


def rescaled(producer: str, layer: str, factor: float, with_eps: bool = False) -> str:
    """The weights (and bias) before a norm times a factor, and its running statistics alike: the output stays, but for eps.

    `with_eps` scales eps alike, so that the output stays in any case.
    """
    return (
        f"`f, n = {module(producer)}, {module(layer)}; [p.data.mul_({factor:.3g}) for p in f.parameters()]; "
        f"n.running_mean *= {factor:.3g}; n.running_var *= {factor:.3g} ** 2"
        + (f"; n.eps *= {factor:.3g} ** 2`" if with_eps else "`")
    )
