"""A rule about running statistics that hold a function of what they should: a power of the variance, or minus the mean.

The norms and weights before a norm imply its variance as that of independent inputs, which is off by a factor that differs
little between norms. So the logarithms of implied and stored variances lie on a line over all channels of a network, whose
slope is 1 where variances are stored, and 2 where their roots are. In four real networks it is .88 to 1.02.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from bnprobe.rules.by_hand import ANOTHER_FILE
from bnprobe.rules.common_factor import of_layer, young
from bnprobe.rules.misfits import FITS, known_fits
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.wording import count
from bnprobe.stats.moments import Array

FEWEST_NORMS = 6
"""Norms with known implied statistics, without which a network shows no line, and no common sign."""

LINE = 0.9
"""Correlation of the logarithms over all channels that makes a line: .96 and more in four real networks."""

NEAR = 0.4
"""How far, as a logarithm to base 2, a slope may be from the power that it is taken for."""

OWN_SOURCE = np.log(1.4)
"""How far the means' factor of a norm may be from the typical one: where a sum feeds a norm, and a file shows one of its
terms, means and variances are others."""

FAR = np.log(1e4)
"""From the typical variance of its norm, stored or implied, beyond which a channel is left out: its input was constant."""

MOST = 0.8
"""Share of the norms that must follow the opposite of their running means better: a converter does the same to all."""

BETTER = 0.05
"""By how much in correlation, typically: healthy networks have it the other way, by .1 and more."""


class Power(NamedTuple):
    """What is stored in place of σ², and how to make the variance of it."""

    says: str
    symbol: str
    mend: str


POWERS = {
    2.0: Power("the standard deviation σ", "σ", "n.running_var.pow_(2)"),
    -1.0: Power("the inverse 1/σ²", "1/σ²", "n.running_var.reciprocal_()"),
    -2.0: Power("the inverse of the standard deviation, 1/σ", "1/σ", "n.running_var.pow_(-2)"),
    0.5: Power("the square of the variance, σ⁴", "σ⁴", "n.running_var.sqrt_()"),
}
"""By the power of what is stored that is the variance."""


@dataclass(frozen=True)
class Line:
    """Over all channels of several norms: the logarithms of stored and implied variances, a pair of vectors per norm."""

    norms: Sequence[tuple[Array, Array]]

    @property
    def n_channels(self) -> int:
        """Of all norms."""
        return sum(len(stored) for stored, _ in self.norms)

    def fit(self) -> tuple[float, float]:
        """Slope and correlation, every norm with the same weight."""
        return _slope(self._moments.mean(axis=0))

    def power(self) -> float | None:
        """The power that the slope is near, also without any one of the norms; None where there is no line."""
        sums, n = self._moments.sum(axis=0), len(self.norms)
        found = {_nearest(*_slope((sums - one) / (n - 1))) for one in self._moments}
        found.add(_nearest(*self.fit()))
        return found.pop() if len(found) == 1 else None

    def off(self, power: float) -> float:
        """Factor by which stored values to this power are typically off, beside one that all have in common."""
        gap = np.concatenate([implied - power * stored for stored, implied in self.norms])
        return float(np.exp(np.median(np.abs(gap - np.median(gap)))))

    @cached_property
    def _moments(self) -> Array:
        """Means of x, y, x², xy and y² over each norm's channels."""
        return np.array(
            [[x.mean(), y.mean(), (x * x).mean(), (x * y).mean(), (y * y).mean()] for x, y in self.norms]
        )


def _slope(moments: Array) -> tuple[float, float]:
    """The ratio of spreads, with the sign of the correlation, and that: neither side is free of error."""
    x, y, xx, xy, yy = moments
    with np.errstate(invalid="ignore", divide="ignore"):
        along, across, both = xx - x * x, yy - y * y, xy - x * y
        return float(np.sign(both) * np.sqrt(across / along)), float(both / np.sqrt(along * across))


def _nearest(slope: float, correlation: float) -> float | None:
    """The power that a slope is taken for; None where there is no line, and where none is near."""
    if not abs(correlation) >= LINE:
        return None
    same_sign = [power for power in (1.0, *POWERS) if power * slope > 0]
    away = {power: abs(np.log2(slope / power)) for power in same_sign}
    return next((power for power, apart in away.items() if apart <= NEAR), None)


def transformed(evidence: Evidence) -> Iterator[Finding]:
    """Running statistics that hold a power of the variance, or the mean with the opposite sign.

    Not where data were measured that they match: branches that training drops or scales are not as weights imply.
    """
    if evidence.layers["discrepancy"].median() <= evidence.limits.slight:
        return
    yield from _powers(_line(evidence))
    yield from _signs(evidence)


def _powers(line: Line) -> Iterator[Finding]:
    power = line.power() if len(line.norms) >= FEWEST_NORMS else None
    if power is None or power not in POWERS:
        return
    slope, correlation = line.fit()
    what = POWERS[power]
    yield Finding(
        "critical",
        "",
        f"The running variances hold {what.says}, not σ².",
        f"over {line.n_channels:,} channels of {count(len(line.norms), 'norm')} the variances that the norms and weights "
        f"before imply go with what is stored to the power {slope:.2f} (1 for variances; correlation of the logarithms "
        f"{abs(correlation):.2f}): taken for a variance it is typically off by a factor of {line.off(1.0):.2g}, as "
        f"{what.symbol} by {line.off(power):.2g}.",
        "Store variances in the converter, or make them here, in every norm, which changes results: "
        f'`[{what.mend} for n in model.modules() if getattr(n, "running_var", None) is not None]`. Where the original file '
        "adds its eps before the root or the inverse, subtract that afterwards.",
    )


def _line(evidence: Evidence) -> Line:
    """Norms whose running means follow the implied ones by the factor that is usual here."""
    found = []
    for row, channels in evidence.sites:
        factors = None if row["call"] or young(row, channels) else of_layer(channels)
        if factors is None:
            continue
        stored, ratio = (channels[name].to_numpy(float) for name in ("running_var", "implied_var_ratio"))
        known = np.isfinite(ratio) & (ratio > 0) & (stored > 0)
        x = np.log(stored[known])
        y = x - np.log(ratio[known])
        usual = (np.abs(x - np.median(x)) < FAR) & (np.abs(y - np.median(y)) < FAR)
        found.append((factors[0], (x[usual], y[usual])))
    if not found:
        return Line(())
    typical = np.median([factor for factor, _ in found])
    return Line([pair for factor, pair in found if abs(factor - typical) < OWN_SOURCE])


def _signs(evidence: Evidence) -> Iterator[Finding]:
    known = known_fits(evidence)
    better = known["means_fit_negated"] - known["means_fit"]
    known, better = known[better.notna()], better.dropna()
    opposite = (better > 0) & (known["means_fit_negated"] >= FITS)
    if len(known) < FEWEST_NORMS or opposite.mean() < MOST or better.median() < BETTER:
        return
    yield Finding(
        "critical",
        "",
        "The running means have the opposite sign.",
        f"at {int(opposite.sum())} of {count(len(known), 'norm')} what the norms and weights before imply fits them better "
        f"negated (typical correlation over channels {known['means_fit_negated'].median():.2f}, as they are "
        f"{known['means_fit'].median():.2f}).",
        "Some frameworks store what is added to the input, not what is subtracted. Negate them in the converter, or "
        "here, in every norm, which changes results: `[n.running_mean.neg_() for n in model.modules() "
        'if getattr(n, "running_mean", None) is not None]`.',
    )


RULES = (
    Rule(
        "statistics-transformed",
        "Do running statistics hold mean and variance, or a function of them?",
        "Nagel et al. 2019, arXiv:1906.04721, section 4.2",
        "implied variances that do not follow the stored ones along a line over the network, or along one of slope 1; means "
        "that fit as they are",
        transformed,
        by_hand=ANOTHER_FILE,
    ),
)
