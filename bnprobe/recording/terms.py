"""What words mean in numbers where columns and rules both use them: near 0, dead, outlier, visible, far from eps."""

from __future__ import annotations

NEAR_ZERO = 1e-2
"""|γ| below which a channel's output hardly varies: Frankle, Schwab & Morcos 2020 use the same."""

DEAD_SIGMAS = 6.0
"""Standard deviations above β that a dead channel would have to reach: a Gaussian does so once in a billion values."""

DEAD_REACH = 1e-4
"""Output at `DEAD_SIGMAS` below which a channel is dead: nothing that a next layer would notice."""

OUTLIER = 6.0
"""Root mean square, in units of the layer's median one, above which a channel is an outlier. A choice of
ours: the 6 of Dettmers et al. 2022 is an absolute magnitude, in models whose features lie near 1."""

VISIBLE_SHIFT = 0.2
"""Shift of a mean in running σ from which it has a size: the CIFAR ResNet-20 moves by up to 0.16 (root mean
square, first norm) merely because its training images were cropped with black borders."""

FORMULA_MISMATCH = 0.01
"""Difference of output and formula, in units of the largest output, from which a layer does more than its kind."""

HALF_MAX = 65504.0
"""Largest number of half precision (float16)."""

IMPLIED_CORRELATION = 0.965
"""Of running and implied means over channels, from which the implied ones are taken for those of this norm. In the files of
four real networks the right source has .969 and more at 70 of 71 norms; where the norm before is one term of a sum, which
nobody sees in a file, .959 at most."""

MISFIT = 0.4
"""Of running and implied means over channels, below which running means are not those of these weights. Of some 330 norms
in ten healthy networks none has less than .58, with squeeze and excitation before the weights; of norms that were exchanged,
or whose channels were put into another order, none of 64 channels and more has as much as .22."""

REACH_SIGMAS = 6.0
"""Running standard deviations beyond the running mean up to which inputs are expected where none were measured."""

TORCH_EPS = 1e-5
"""What torch's batch, group, instance and layer norms add to the variance by default."""

MANY_EPS = 100.0
"""Times eps that a variance must be for eps to make less than 1% of what the root is taken of."""

EPSILONS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Distance from 1 to the next larger number of each type."""
LITTLE_OF_EPS = 0.01
"""Of eps: a variance below it leaves less than a tenth of γ in the output's standard deviation."""

NO_VARIANCE = 1e-30
"""Running variance below which the inputs never varied: float32 that is multiplied by 0.9 at every batch stops at 5.6e-45,
and no data vary by so little."""

ACCURACY, AGREEMENT, OUTPUT = "accuracy", "agreement with the model as it is", "relative change of the output"
"""What experiments measure without a metric of the user's."""

LOSS = "loss in nats"
"""The cross entropy to classes or next tokens."""
