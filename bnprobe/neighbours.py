"""What stands around a norm, as plain data: who feeds it, what follows it, and what their weights imply.

Found once per site in the executed graph and reduced there (see `wiring`), so that nothing right of
the recording needs weights or torch. Shapes: C channels of the norm. Arrays are float64.
"""

from __future__ import annotations

from dataclasses import dataclass

from bnprobe.stats.moments import Array


@dataclass(frozen=True)
class Implied:
    """Mean and variance of the norm's input as the layer before implies them; shapes (C,).

    `mean` and `var` take the values that reach the weights as functions of Gaussians N(beta, gamma^2),
    and, for `var`, as independent. The others are controls that must predict worse: the source's
    channels permuted (`mean_permuted`), all of them at their common mean (`mean_constant`), gamma in
    place of |gamma| (`mean_signed`), and borders taken for interior (`mean_unpadded`).
    """

    mean: Array
    var: Array
    mean_permuted: Array
    mean_constant: Array
    mean_signed: Array
    mean_unpadded: Array


@dataclass(frozen=True)
class Folded:
    """The weights before the norm, alone and with the norm folded into them; shapes (C,).

    `norm` is the length of a channel's weights; `low` and `high` are the extremes of its folded weights
    w gamma / sqrt(running_var + eps). `bias` is what the layer before adds, or None.
    """

    norm: Array
    low: Array
    high: Array
    bias: Array | None


@dataclass(frozen=True)
class Stem:
    """The weights between the model's input and the first norm: pre = matrix @ x, on average over positions.

    `matrix` has shape (C, F) for F channels of the input, the zero padding of the convolution taken into
    account; `bias` (C,) or None.
    """

    matrix: Array
    bias: Array | None


@dataclass(frozen=True)
class Wiring:
    """The neighbours of one site.

    `follows` names the operation that decides what becomes of the output: "relu", "relu6", "silu",
    "gelu", "hardswish", ...; "add, relu" where a sum comes first; "linear" or "conv" where weights take
    it as it is; "none" where it leaves the model; "unknown". `feeder` names the layer whose weights made
    the input ("" where none is known), `sources` the sites whose outputs went into that layer, with
    `activation` in between ("none" for nothing). `skip` names the sites or modules at the other side of
    the sum that follows ("" where there is no sum). `guessed` says that nothing was executed: the
    feeder was told from names and shapes alone.
    """

    follows: str
    feeder: str = ""
    sources: tuple[str, ...] = ()
    activation: str = "none"
    skip: str = ""
    implied: Implied | None = None
    folded: Folded | None = None
    stem: Stem | None = None
    guessed: bool = False
