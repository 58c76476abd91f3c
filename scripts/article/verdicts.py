"""From measured numbers to a verdict: pure functions, and every one can say each of the three things.

Each takes the numbers that its claim stands on, and nothing else; thresholds are named here, once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from bnprobe.stats.shares import least_difference

HOLDS, LIMIT, FAILS = "holds", "holds with a limit", "does not hold as stated"

SAME_64 = 1e-6
"""Relative difference up to which two float64 results are the same but for rounding."""

SAME_32 = 1e-3
"""The same for float32, after tens of layers."""

NOT_AFFINE = 0.02
"""Change of skewness or kurtosis, relative to 1 + its size, from which a shape is another one."""

CHANCE = math.log(10)
"""Loss of a network that gives each of ten classes the same probability."""

LEARNED = 0.5 * CHANCE
"""A loss below this is a network that has learned something."""

WORSE = 1.5
"""A loss this many times larger counts as worse; smaller differences may be chance."""

NEAR = 0.1
"""Median distance, in |γ|, up to which outputs have the mean and standard deviation that γ and β name."""

GAUSSIAN = 0.05
"""Median distance to a Gaussian, in standard deviations, up to which a shape passes for Gaussian."""


@dataclass(frozen=True)
class Verdict:
    """One of the three words, and the sentences it rests on."""

    word: str
    because: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.word}: {' '.join(self.because)}"


def _number(value: float) -> str:
    from bnprobe.report.numbers import number

    return number(value, 2)


def shape(fixed: float, by_batch: float, others: Mapping[str, float]) -> Verdict:
    """Claim 1. Changes of shape (skewness and kurtosis, relative to 1 + size, largest channel or typical layer).

    `fixed`: largest change by a norm with one map per channel. `by_batch`: typical change over many batches,
    each with its own map. `others`: typical change by norms that pool over other values, by name.
    """
    if fixed > SAME_64:
        return Verdict(
            FAILS,
            (f"One map per channel changed a channel's shape by {_number(fixed)}, which is no rounding.",),
        )
    kept = f"Batch norm with fixed statistics changed no channel's shape by more than {_number(fixed)}: rounding."
    changing = {name: value for name, value in others.items() if value > NOT_AFFINE}
    if not changing and by_batch <= SAME_64:
        return Verdict(HOLDS, (kept,))
    words = [kept]
    if by_batch > SAME_64:
        words.append(
            "Over batches that are each normalized by themselves it typically changes by "
            f"{_number(by_batch)}."
        )
    words += [
        f"{name.capitalize()} changes it by {_number(value)} in a typical layer."
        for name, value in changing.items()
    ]
    return Verdict(LIMIT, tuple(words))


def fold(formula: float, folded: float, network: float, midpoint_train: float) -> Verdict:
    """Claim 2. Largest differences, relative to the largest output.

    `formula`: Z-scores against x·w + b, float64. `folded`: a norm folded into the layer before it, float32, the
    worst of all norms. `network`: outputs of the network with all norms folded. `midpoint_train`: how far a norm
    in train mode is from taking the midpoint of two batches to the midpoint of its outputs.
    """
    if formula > SAME_64 or folded > SAME_32 or network > SAME_32:
        worst = max(formula, folded, network)
        return Verdict(
            FAILS,
            (
                f"The line and the norm differ by {_number(worst)} of the largest output, which is no "
                "rounding.",
            ),
        )
    same = (
        f"x·w + b and the Z-score differ by {_number(formula)}, a folded norm by {_number(folded)} and a "
        "network with all "
        f"norms folded by {_number(network)} of the largest output: rounding."
    )
    if midpoint_train <= SAME_64:
        return Verdict(HOLDS, (same,))
    limit = (
        "The statistics must be fixed: while they are taken from the batch itself, the midpoint of two "
        "batches misses "
        f"the midpoint of their outputs by {_number(midpoint_train)}."
    )
    return Verdict(LIMIT, (same, limit))


@dataclass(frozen=True)
class Travel:
    """What became of data and gradients in one network.

    `drift`: largest over smallest typical standard deviation through depth, at the start. `imbalance`: standard
    deviation through depth of log10 of the gradient's length, at the start. `loss`: after training (infinite where it
    diverged).
    """

    drift: float
    imbalance: float
    loss: float


def drift(
    without: Travel, with_norm: Travel, careful: Travel, places: Mapping[str, float], no_slopes: float
) -> Verdict:
    """Claim 3. `careful` is a network without norm whose weights were drawn for its depth.

    `places`: loss after training with the norm at other places. `no_slopes`: relative error of the product of errors,
    outputs and weights when the slopes of the activation are left out.
    """
    steadier = with_norm.drift < without.drift / 2 and with_norm.imbalance < without.imbalance
    learns = with_norm.loss < LEARNED and with_norm.loss * WORSE < without.loss
    misplaced = [name for name, loss in places.items() if not loss < LEARNED]
    if not steadier or not learns:
        return Verdict(
            FAILS,
            (
                f"With norm the standard deviation drifts by a factor of {_number(with_norm.drift)} and the loss "
                "ends at "
                f"{_number(with_norm.loss)}; without, by {_number(without.drift)} and at "
                f"{_number(without.loss)}.",
            ),
        )
    better = (
        f"Through depth the standard deviation changes by a factor of {_number(without.drift)} without norm and "
        f"{_number(with_norm.drift)} "
        f"with it; the loss ends at {_number(without.loss)} without and {_number(with_norm.loss)} with."
    )
    limits = []
    if careful.loss < LEARNED:
        limits.append(
            f"Norm is not the only remedy: weights drawn for the depth drift by {_number(careful.drift)} "
            "and learn without it "
            f"(loss {_number(careful.loss)})."
        )
    limits += [f"With the norm {name} the network did not learn." for name in misplaced]
    if no_slopes > SAME_64:
        limits.append(
            "The product needs a third factor, the slope of the activation: without it it is off by "
            f"{_number(no_slopes)} "
            "of the gradient."
        )
    return Verdict(LIMIT if limits else HOLDS, (better, *limits))


def balance(
    trained: float,
    reset: float,
    plain: Mapping[float, float],
    normed: Mapping[float, float],
    free: tuple[float, float],
) -> Verdict:
    """Claim 4. Losses.

    `trained`: with the learned γ and β; `reset`: with mean 0 and variance 1 in their place. `plain`, `normed`: after
    training from starts that compute the same but whose gradients are unbalanced by the factor in the key (1 is
    balanced), without norm and with it. `free`: relative change of the loss, and factor in one layer's gradient,
    when γ and β of that layer grow together.
    """
    runs = {"without norm": plain, "with batch norm": normed}
    # a comparison of two networks that both learned nothing says nothing
    hurt = {
        name: losses[1] < LEARNED and losses[max(losses)] > WORSE * losses[1] for name, losses in runs.items()
    }
    sentences = [_start(name, losses, hurt[name]) for name, losses in runs.items()]
    moved = f"a loss of {_number(reset)} instead of {_number(trained)}"
    if reset <= 1.1 * trained:
        return Verdict(
            FAILS,
            (f"Mean 0 and variance 1 in place of the learned values give {moved}: no worse.", *sentences),
        )
    first = f"Mean 0 and variance 1 are not the optimum: in place of the learned values they give {moved}."
    if not any(hurt.values()):
        return Verdict(FAILS, (first, *sentences))
    change, factor = free
    unbound = change < 0.01 and factor > 2
    if unbound:
        sentences.append(
            "Balance alone does not decide: γ and β of one layer, both larger, make its gradient "
            f"{_number(factor)} "
            f"times shorter and change the loss by {_number(100 * change)}%."
        )
    return Verdict(HOLDS if all(hurt.values()) and not unbound else LIMIT, (first, *sentences))


def _start(name: str, losses: Mapping[float, float], hurt: bool) -> str:
    """What an unbalanced start did, in a sentence."""
    worst = losses[max(losses)]
    ends = (
        f"{name.capitalize()}, the start unbalanced by a factor of {_number(max(losses))} "
        f"{'diverges' if math.isinf(worst) else f'ends at a loss of {_number(worst)}'}, the balanced one "
        "ends at "
        f"{_number(losses[1])}"
    )
    return f"{ends}: balance {'matters' if hurt else 'is not what matters'} there."


def target(
    mean_error: float, as_deviation: float, as_variance: float, shape: float, at_start: float
) -> Verdict:
    """Claim 5. Medians over channels.

    `mean_error`: |mean − β| / |γ|. `as_deviation`, `as_variance`: |ln(standard deviation / |γ|)| and
    |ln(variance / |γ|)|. `shape`: distance to a Gaussian of the same mean and standard deviation, in standard
    deviations. `at_start`: the larger of mean error and as_deviation on the training batches before the first step.
    """
    missed = f"by {_number(100 * as_variance)}%"
    if as_variance <= min(as_deviation, NEAR):
        words = [f"The values of |γ| are the variances of the outputs: they miss them {missed}."]
    elif as_deviation <= NEAR:
        words = [
            f"The values of |γ| are standard deviations, not variances: as variances they miss {missed}, as "
            "standard deviations by "
            f"{_number(100 * as_deviation)}% in a typical channel."
        ]
    else:
        words = [
            f"The values of |γ| are neither: as variances they miss {missed}, as standard deviations by "
            f"{_number(100 * as_deviation)}%."
        ]
    far = mean_error > NEAR
    words.append(f"The mean is {'far from β' if far else 'β'}: it misses it by {_number(mean_error)} |γ|.")
    if shape > GAUSSIAN:
        words.append(f"The shape is not Gaussian: values lie {_number(shape)} standard deviations from one.")
    if at_start <= NEAR:
        words.append(
            f"What holds does so from the first step (error {_number(at_start)}), not only at the end."
        )
    if far or as_variance > NEAR:
        return Verdict(FAILS, tuple(words))
    return Verdict(HOLDS if len(words) == 2 and as_variance <= as_deviation else LIMIT, tuple(words))


def pooling(relation: float, mates: Mapping[str, float], accuracy: Mapping[str, float]) -> Verdict:
    """Claim 6. `relation`: largest gap between a norm's real output and the one that follows from other pooling.

    `mates`: by norm, how much the output for one image changes with the others in its batch (0: not at all).
    `accuracy`: by norm, share of held-out digits read correctly (0..1).
    """
    if relation > SAME_64:
        return Verdict(
            FAILS,
            (
                f"The outputs differ from pooling over other values by {_number(relation)}, which is no "
                "rounding.",
            ),
        )
    same = f"Pooling over other values is all the difference in the formula: gap {_number(relation)}."
    felt = {name: value for name, value in mates.items() if value > SAME_32}
    spread = max(accuracy.values()) - min(accuracy.values())
    if not felt and spread < 0.05:
        return Verdict(HOLDS, (same,))
    words = [same]
    if felt:
        some = ", ".join(f"{name} ({_number(value)} of the output)" for name, value in felt.items())
        words.append(f"Other images of the batch change an image's output only with {some}.")
    if spread >= 0.05:
        best, worst = max(accuracy, key=accuracy.__getitem__), min(accuracy, key=accuracy.__getitem__)
        words.append(
            f"What is learned differs: {best} reads {100 * accuracy[best]:.0f}% of the digits, {worst} "
            f"{100 * accuracy[worst]:.0f}%."
        )
    return Verdict(LIMIT, tuple(words))


@dataclass(frozen=True)
class Recognized:
    """Share (0..1) of images in which another network sees what was asked for, with its 95% interval."""

    share: float
    low: float
    high: float

    def better_than(self, other: Recognized) -> bool:
        """Whether the 95% interval of the difference lies above 0."""
        return least_difference(self.share, self.low, other.share, other.high) > 0

    def __str__(self) -> str:
        from bnprobe.report.numbers import share

        return share(self.share)


@dataclass(frozen=True)
class Drawn:
    """Of how many images the class is recognized, by what they were made from.

    `both`: statistics and classes; the classes are asked of the weights. `classes`, `statistics`: one of the two.
    `permuted`: both, with each channel's statistics at another one's place.
    """

    both: Recognized
    classes: Recognized
    statistics: Recognized
    permuted: Recognized

    @property
    def word(self) -> str:
        """What these images alone say of the claim."""
        if not self.both.better_than(self.permuted):
            return FAILS
        return HOLDS if self.both.better_than(self.classes) else LIMIT


FOLLOWS = {
    HOLDS: "it takes the weights, and what each channel stored",
    LIMIT: "what each channel stored matters, but the weights alone may do as well",
    FAILS: "what each channel stored makes no difference",
}
"""What follows from images of each word."""


def knowledge(drawn: Mapping[str, Drawn]) -> Verdict:
    """Claim 7. `drawn`: what another network recognizes, by what the images were to show."""
    words = {of.word for of in drawn.values()}
    because = [
        f"Of {kind} drawn from statistics and weights, another network recognizes {of.both}; of those from the weights "
        f"alone {of.classes}, of those from the statistics alone {of.statistics}, and where channels have exchanged their "
        f"statistics {of.permuted}: {FOLLOWS[of.word]}."
        for kind, of in drawn.items()
    ]
    return Verdict(words.pop() if len(words) == 1 else LIMIT, tuple(because))
