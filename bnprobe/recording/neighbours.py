"""What stands around a norm, as plain data: who feeds it, what follows it, and what their weights imply.

Found once per site in the executed graph and reduced there (see `neighbours`), so that nothing right of
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
class Crop:
    """The same weights under random crops of images with `padding` black pixels on each side.

    pre = matrix @ image + (Stem.matrix - matrix) @ black on average over positions and crops, for the mean
    of the images without their padding; `share` (0 to 1) of the pixels is black then.
    """

    padding: int
    share: float
    matrix: Array


@dataclass(frozen=True)
class Stem:
    """The weights between the model's input and the first norm: pre = matrix @ x, on average over positions.

    `matrix` has shape (C, F) for F channels of the input, the zero padding of the convolution taken into
    account; `bias` (C,) or None. `crops` holds what augmentations would make of it, for small images.
    `n_sides` is the number of spatial dimensions: 2 for images, 1 for sequences, 0 for a linear layer.
    `border` (C, F, F) is what the zeros around an image make of an input that is constant: its variance over positions is
    border[c] between that constant and itself; None where it was not worked out. `constant` (F,) is the value of each
    channel of the input that held no other in the first pass, NaN for the others; None where the input was not read.
    `adjusted` says that the model subtracts constants from its input, or divides by them, before these weights: x is what
    they make of it.
    """

    matrix: Array
    bias: Array | None
    crops: tuple[Crop, ...] = ()
    n_sides: int = 2
    border: Array | None = None
    constant: Array | None = None
    adjusted: bool = False


@dataclass(frozen=True)
class Neighbours:
    """The neighbors of one site.

    `follows` names the operation that decides what becomes of the output. Views, copies, casts and padding
    are walked through; then it is

        "relu", "relu6", "silu", "leaky_relu(0.2)", ...     an activation acts on the norm's own values, as torch
                                                            names it, numbers that are not its defaults behind;
        "linear", "conv", "attention"                       weights, or attention, take them as they are;
        "add", "mul", "scale"                               they enter a sum, a product, or meet a number;
        "add, relu"                                         a sum, of which nothing but this activation is used;
        "norm", "avg_pool", "upsample", ...                 another norm, or another operation, by its name;
        "cat, relu", "max_pool, relu", "dropout, linear"    they are put among others, or some are chosen, and
                                                            what then takes those;
        "none"                                              they leave the model;
        "unknown"                                           it was not seen.

    Where the output goes several ways the answers stand side by side: "relu | add". What nothing that the
    model returns depends on is not counted.

    `producer` names the layer whose weights made the input ("" where none is known). `source` says what went
    into that layer ("norm", "sum", "concat", "input", "unknown"; see `neighbours.geometry.Source`), `sources` the
    sites it is made of ("input" for the model's own), with `activation` in between ("none" for nothing).

    `skip` names the other side of the sum that follows ("" where there is no sum): a site, a layer, "input",
    or "sum at layer1.0.bn2" for the whole of an earlier sum that this site enters; several separated by commas.
    `skip_activation` is what acts in between, in order: "relu, max_pool" ("none" for nothing). `skip_var` (C,) is
    the variance of that side as the parameters of the norms before it imply (see `neighbours.skip`), and
    `skip_var_initial` the same for gamma 1 and beta 0; None where it is not made of norms alone.

    `guessed` says that nothing was executed: the producer was found by names and shapes alone.

    `feeds_alone` says that the pass showed the feeder and the norm to have only each other: all that the feeder's
    calls make goes into this norm as it is, nothing else enters the norm, and the feeder adds a bias of its own.

    `scale` names the parameter that the branch of this norm is multiplied by before it is added, x + scale * branch(x), ""
    where there is none. `scaled_var` is the variance of what the branch adds, measured in the first pass (divisor n, mean
    over channels), `scaled_skip_var` that of the other side.

    `features_elsewhere` names the neighbors of a batch norm over sequences (N, positions, features) that have their features
    in the last dimension while the norm keeps statistics for dimension 1, such as "recurrent before, linear after", and
    those of a norm over the last dimension that have theirs in another one of the same size; "" where none has, or one has
    them where the norm has its channels. `n_last` is the size of the last dimension, 0 where it was not seen.

    `stream` names the previous norm of the same residual stream: this norm's input is that of the other, plus branches; ""
    where there is none. `reads` (C,) is, for norms over channels, the length of each channel's weights in the linear layers
    that take the output; None where none does. `bare_head` says that the weights which end the model take a sum of the
    stream on which this norm is the last. `repeats` names the norm whose output goes into this one as it is, and nowhere
    else; "" where there is none. `role` is one of
    `names.NORM_ROLES`, "" where none was recognized. `largest_logit` is the largest absolute logit of the attention whose
    queries this norm's output makes, `attention_evenness` the mean entropy of its shares over the log of the number of keys
    (0 to 1), in the first pass; `attention_factor` is what its logits are multiplied by, relative to 1/√d.
    `qk_bound` is what those logits cannot exceed by the weights alone (see `stats.logit_bound`); NaN where they were not
    read. `means_fit` is the correlation over channels of the running means with those that the norms and weights before
    imply, `means_fit_unfolded` the same with this norm taken out of these weights, `means_fit_negated` the same of
    minus the running means, `fits_like` the norm whose running means
    fit where those of this one do not ("" for none), `fits_layout` the layout in which these weights fit where as they are
    stored they do not ("" for none), and `directly_fed` says that nothing stands between the previous norm
    and these weights in the order of the file (see `checkpoints.fits`); NaN where no file was read.
    """

    follows: str
    producer: str = ""
    sources: tuple[str, ...] = ()
    activation: str = "none"
    skip: str = ""
    implied: Implied | None = None
    folded: Folded | None = None
    stem: Stem | None = None
    source: str = "unknown"
    skip_activation: str = "none"
    skip_var: Array | None = None
    skip_var_initial: Array | None = None
    guessed: bool = False
    feeds_alone: bool = False
    scale: str = ""
    scaled_var: float = float("nan")
    scaled_skip_var: float = float("nan")
    features_elsewhere: str = ""
    n_last: int = 0
    stream: str = ""
    reads: Array | None = None
    bare_head: bool = False
    repeats: str = ""
    role: str = ""
    largest_logit: float = float("nan")
    attention_evenness: float = float("nan")
    attention_factor: float = float("nan")
    qk_bound: float = float("nan")
    means_fit: float = float("nan")
    means_fit_unfolded: float = float("nan")
    means_fit_negated: float = float("nan")
    fits_like: str = ""
    fits_layout: str = ""
    directly_fed: bool = False

    def __repr__(self) -> str:
        return f"Neighbours(producer {self.producer or 'unknown'}, followed by {self.follows})"
