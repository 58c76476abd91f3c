"""Lines of code that several rules recommend. Names in them are explained at `rule.Finding`."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

import pandas as pd

from bnprobe.rules.edits import Recalibrate, RecalibrateOne, Reinitialize, Rescale

RECALIBRATE = "`torch.optim.swa_utils.update_bn(loader, model)`"
"""Running statistics of every batch norm re-estimated as plain averages over the loader; the mode is put back."""

CARRY_BETA = (
    "Such channels can be removed if β's effect is added to the bias of the next layer; at borders padded with zeros that "
    "is not exact, so measure before and after."
)
"""What is left of channels without a varying input can be carried by the next layer."""

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


def recalibration(row: pd.Series) -> Recalibrate | RecalibrateOne:
    """The same as an edit."""
    if row["kind"] == "instance_norm" or "Frozen" in str(row["class_name"]):
        return RecalibrateOne(row["layer"], of_samples=row["kind"] == "instance_norm")
    return Recalibrate()


def _by_hook(layer: str, data: str, mean: str, var: str) -> str:
    """For norms that update_bn skips, since they are none of torch's batch norms."""
    return (
        "update_bn skips norms of this class, so do it by hand in eval mode, starting with the norms nearest to the input: "
        f"`n, s = {module(layer)}, []; look = lambda v: s.append(torch.stack([{mean}, {var}])); "
        "h = n.register_forward_pre_hook(lambda m, a: look(a[0].detach()))`, "
        f"`for b in {data}: model(b[0] if isinstance(b, (list, tuple)) else b)`, "
        "`h.remove(); r = torch.stack(s).mean(0); n.running_mean.copy_(r[0]); n.running_var.copy_(r[1])`"
    )


REINITIALIZE = "To reinitialize them, which changes results until they are trained again: "
"""Before the code that does so."""


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


def unit_scale(row: pd.Series) -> str:
    """Code that sets every γ of a norm to 1."""
    weight = f"{module(row['layer'])}.weight"
    if not row["gamma_offset"]:
        return f"torch.nn.init.ones_({weight})"
    return f"torch.nn.init.constant_({weight}, {1 - row['gamma_offset']:g})"


def reinitialized(
    layer: str,
    channels: Sequence[int],
    n_channels: int,
    first: str = "",
    last: str = "",
    has_bias: bool = True,
    weight: float = 1.0,
) -> str:
    """A weight of gamma, and beta 0, for these of the layer's channels, so that they can learn again.

    Between code that may use `[at]`.
    """
    bias = "; n.bias.data[at] = 0" if has_bias else ""
    code = f"{first}n = {module(layer)}; n.weight.data[at] = {weight:g}{bias}{last}"
    if len(channels) == n_channels:
        return f"`{code.replace('[at]', '[:]')}`"
    return f"`at = {list(channels)}; {code}`"


def made_new(
    row: pd.Series, some_of: pd.DataFrame, channels: pd.DataFrame, first: str = "", last: str = ""
) -> str:
    """The code that reinitializes some of a norm's channels, as it stores them; an RMS norm has no β."""
    numbers, has_bias = [int(c) for c in some_of["channel"]], bool(channels["beta"].notna().any())
    weight = _weight(row, some_of, channels)
    return reinitialized(row["layer"], numbers, len(channels), first, last, has_bias, weight)


def made_new_edit(
    row: pd.Series,
    some_of: pd.DataFrame,
    channels: pd.DataFrame,
    producer: str = "",
    statistics: bool = False,
) -> Reinitialize:
    """The same as an edit."""
    numbers = tuple(int(c) for c in some_of["channel"])
    return Reinitialize(row["layer"], numbers, producer, statistics, _weight(row, some_of, channels))


def _weight(row: pd.Series, some_of: pd.DataFrame, channels: pd.DataFrame) -> float:
    """What the norm's weight is set to so that γ begins again: at 1, less what the layer adds to its weight.

    The last γ of a residual branch begins at 0 in some networks: there it becomes as large as those of the other channels.
    """
    typical = channels["gamma"].drop(some_of.index).abs().median() if row["skip"] else 1.0
    return float(f"{typical if typical > 0 else 1.0:.2g}") - float(row["gamma_offset"])


_OF_PLACE = re.compile(
    r'"(?P<path>[^"]*)"(?=\))|\bat = (?P<at>\[[\d, ]*\]); |(?<=\bn\.weight\.data\[at\] = )(?P<weight>[^;`]+)'
)
"""What is another in the code for another place: paths of modules, channels, and the weight that they begin again with."""

_VARIABLES = {1: ("name",), 2: ("producer", "name")}
"""For the paths in a loop, by their number; code that needs a producer fetches it first."""


def for_all(advice: Sequence[str]) -> list[tuple[tuple[int, ...], str]]:
    """As few pieces of advice as serve all places, each with the positions of the places that it is for.

    Where only the last line of code differs, and that by module and channels, a loop over the places stands for it.
    """
    kinds: dict[tuple[str, ...], list[int]] = {}
    for i, one in enumerate(advice):
        kinds.setdefault(_form(one), []).append(i)
    return [(tuple(places), _together([advice[i] for i in places])) for places in kinds.values()]


def _form(advice: str) -> tuple[str, ...]:
    """What advice for several places must share to be given as one: all but modules and channels in its last code."""
    pieces = advice.split("`")
    last = len(pieces) - 2  # odd pieces are code
    if last < 1 or not _can_loop(pieces[last]):
        return (advice,)
    return (*pieces[:last], _with_variables(pieces[last]), *pieces[last + 1 :])


def _together(alike: Sequence[str]) -> str:
    """Advice of one form as one piece."""
    if len(set(alike)) == 1:
        return alike[0]
    pieces = [one.split("`") for one in alike]
    last = len(pieces[0]) - 2
    return "`".join([*pieces[0][:last], _loop([one[last] for one in pieces]), *pieces[0][last + 1 :]])


def _can_loop(code: str) -> bool:
    """Whether it is plain lines about one module, or one and its producer."""
    if len(_paths(code)) not in _VARIABLES:
        return False
    try:
        lines = ast.parse(code).body
    except (SyntaxError, ValueError):  # a name from elsewhere
        return False
    return all(isinstance(line, ast.Assign | ast.AugAssign | ast.Expr) for line in lines)


def _loop(codes: Sequence[str]) -> str:
    """The same code for every place."""
    paths = zip(*([f'"{path}"' for path in _paths(code)] for code in codes), strict=True)
    columns = dict(zip(_VARIABLES[len(_paths(codes[0]))], paths, strict=True))
    columns |= {name: found for name in ("at", "weight") if (found := _all(codes, name))}
    one_weight = len(set(columns.get("weight", ()))) < 2
    if one_weight:
        columns.pop("weight", None)
    items = [", ".join(place) for place in zip(*columns.values(), strict=True)]
    each = f"({'), ('.join(items)})" if len(columns) > 1 else ", ".join(items)
    return f"for {', '.join(columns)} in [{each}]: {_with_variables(codes[0], keep_weight=one_weight)}"


def _all(codes: Sequence[str], name: str) -> tuple[str, ...]:
    """What stands in these codes for the channels (`at`) or the weight; empty if nothing does."""
    return tuple(match[name] for code in codes for match in _OF_PLACE.finditer(code) if match[name])


def _paths(code: str) -> list[str]:
    """The modules that it names, each once."""
    return list(
        dict.fromkeys(match["path"] for match in _OF_PLACE.finditer(code) if match["path"] is not None)
    )


def _with_variables(code: str, keep_weight: bool = False) -> str:
    """The code with variables for its paths and its weight, and without the channels in the line that sets `at`."""
    paths = _paths(code)
    names = dict(zip(paths, _VARIABLES[len(paths)], strict=True))

    def variable(match: re.Match[str]) -> str:
        if match["weight"]:
            return match["weight"] if keep_weight else "weight"
        return names.get(match["path"], "")

    return _OF_PLACE.sub(variable, code)


def rescaled(edit: Rescale) -> str:
    """The weights (and bias) before a norm times a factor, and its running statistics alike: the output stays, but for eps.

    Scaling eps alike (`with_eps`), or correcting γ for it (`with_gamma`), leaves the output in any case:
    γ² k² v / (k² v + eps) is γ² v / (v + eps) for γ times √((k² v + eps) / (k² (v + eps))).
    """
    k = f"{edit.factor:.3g}"
    corrected = f"n.weight.data *= (({k} ** 2 * n.running_var + n.eps) / ({k} ** 2 * (n.running_var + n.eps))).sqrt(); "
    return (
        f"`f, n = {module(edit.producer)}, {module(edit.layer)}; [p.data.mul_({k}) for p in f.parameters()]; "
        f"{corrected if edit.with_gamma else ''}n.running_mean *= {k}; n.running_var *= {k} ** 2"
        + (f"; n.eps *= {k} ** 2`" if edit.with_eps else "`")
    )
