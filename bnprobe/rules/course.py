"""How a discrepancy runs through the network: there from the first norm, entered at one norm, or grown from norm to norm.

Changed images differ where they enter, and the following norms with them. A part from another file, or statistics reset in
one norm, is a break: nothing before it, all of it from there on. Changed weights (an average of networks, pruning,
quantization, noise, statistics of an earlier checkpoint) add a little at every norm; an average of networks moreover
shrinks the variance by about the same factor each time. Branches that were dropped in training, and not divided by the
share that was kept, add to what follows the first sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnprobe.stats.moments import Array

LITTLE = 1 / 3
"""Of the largest discrepancy: what the first norm may have for the others not to have it from there."""

ONE_STEP = 0.5
"""Of the growth of the discrepancy: what a single norm must add for it to be a break."""

FEWEST = 3
"""Norms that a course needs."""

STEADILY = 0.8
"""Share of steps from norm to norm at which the variance must fall for it to shrink."""

TWICE = 2.0
"""How much larger the log of the last ratio must be than that of the first for the ratio to shrink through depth."""

PASSED_ON = 2.0
"""A norm is off by no more than so many times the discrepancy of the inputs it follows from, where these were scaled or
shifted: at most 1.3 times in a mobilenet_v2 whose inputs were scaled by 3.4, and 1.7 times in small networks on images and
signals, smooth or noise. Blur and noise grow up to six times, where the first norm is off by less than 0.3."""

LARGER = 1.1
"""Variance, relative to the running one, of what follows a sum to which more is added than in training."""


@dataclass(frozen=True)
class Course:
    """`kind` is "from the start", "break", "growing", or "" where nothing can be said.

    `shrinks` says that the variance, relative to the running one, falls from norm to norm.
    """

    kind: str
    shrinks: bool = False


def course_of(layers: pd.DataFrame) -> Course:
    """Of norms in order of execution, by `discrepancy` and `var_ratio_median` of the table of layers."""
    known = layers[layers["discrepancy"].notna()]
    away = known["discrepancy"].to_numpy(float)
    if len(away) < FEWEST or not away.max() > 0:
        return Course("")
    shrinks = _shrinks(known["var_ratio_median"].to_numpy(float))
    if away[0] > LITTLE * away.max():
        return Course("from the start", shrinks)
    highest = np.maximum.accumulate(away)
    steps = np.diff(highest)
    at = int(np.argmax(steps)) + 1
    # a break is a step that is most of the way, from little
    if steps[at - 1] >= ONE_STEP * (highest[-1] - away[0]) and highest[at - 1] <= LITTLE * highest[at]:
        return Course("break")
    return Course("growing", shrinks)


def outgrows(layers: pd.DataFrame) -> bool:
    """Whether the typical later norm is off by more than the inputs of the first one could pass on."""
    known = layers["discrepancy"].dropna().to_numpy(float)
    return len(known) >= FEWEST and bool(np.median(known[1:]) > PASSED_ON * known[0])


def grown_by_a_sum(layers: pd.DataFrame) -> str:
    """The last norm that matches, where its output enters a sum and what follows varies more than in training; else empty.

    Two norms at least must match, so that the branch itself is as in training.
    """
    known = layers[layers["discrepancy"].notna()]
    away = known["discrepancy"].to_numpy(float)
    if not len(away) or not away.max() > 0:
        return ""
    at = int((away > LITTLE * away.max()).argmax())
    last, following = known.iloc[max(at - 1, 0)], known.iloc[at]
    enters = "add" in str(last["follows"])
    return str(last["layer"]) if at >= 2 and enters and following["var_ratio_median"] > LARGER else ""


def _shrinks(ratios: Array) -> bool:
    """Whether the variance falls steadily, relative to the running one."""
    ratios = ratios[np.isfinite(ratios) & (ratios > 0)]
    if len(ratios) < FEWEST or not ratios[0] < 1 or not ratios[-1] < ratios[0]:
        return False
    falls = float(np.mean(np.diff(np.log(ratios)) < 0))
    return bool(falls >= STEADILY and np.log(ratios[-1]) <= TWICE * np.log(ratios[0]))
