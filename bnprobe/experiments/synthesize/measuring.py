"""What was made, measured: distances in the network's norms, its own verdicts, the judge's, and real samples beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from bnprobe.experiments.synthesize.drawing import Drawing, noise
from bnprobe.experiments.synthesize.inputs import Inputs
from bnprobe.experiments.synthesize.judging import Judge, Verdicts, scored, verdicts
from bnprobe.experiments.synthesize.matching import Distances
from bnprobe.experiments.synthesize.pyramid import Pyramid
from bnprobe.experiments.synthesize.real import Nearest, Real
from bnprobe.experiments.synthesize.stored import Stored
from bnprobe.report.made_table import NEAREST, NOISE, REAL, Sheet

MOST_SHOWN, MOST_BESIDE = 64, 16
"""Images of the first row on the page, and of each other one."""


@dataclass(frozen=True)
class Measured:
    """One row: its images, pixels (n, *shape) on the CPU, and what was measured of them."""

    name: str
    pixels: Tensor
    targets: Tensor | None
    distance: float
    own: Verdicts | None = None
    judged: Verdicts | None = None
    step: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Measuring:
    """By what images are measured."""

    model: nn.Module
    pyramid: Pyramid
    norms: Sequence[Stored]
    judge: Judge | None
    seed: int

    @property
    def inputs(self) -> Inputs:
        """What the model takes."""
        return self.pyramid.inputs

    def rows(
        self, drawings: Mapping[str, Drawing], targets: Tensor | None, n: int, real: Real | None
    ) -> list[Measured]:
        """Every way as far as it came, then a real batch where there is one, then noise."""
        found = [
            self._row(
                name, self.pyramid.pixels(drawing.values.detach()), targets, drawing.step, drawing.seconds
            )
            for name, drawing in drawings.items()
        ]
        if real is not None:
            found.append(self._row(REAL, real.pixels, real.labels))
        found.append(self._row(NOISE, noise(self.inputs, n, self.seed), targets))
        return found

    def _row(
        self, name: str, pixels: Tensor, targets: Tensor | None, step: int = 0, seconds: float = 0.0
    ) -> Measured:
        own = None if targets is None else verdicts(scored(self.model, self.inputs, pixels), targets)
        judged = None if targets is None or self.judge is None else self.judge.verdicts(pixels, targets)
        return Measured(name, pixels.cpu(), targets, self._distance(pixels), own, judged, step, seconds)

    def _distance(self, pixels: Tensor) -> float:
        """Root mean square over norms, in running standard deviations; all images are one batch, as when they were made."""
        distances = Distances(self.norms)
        with distances.watching(), torch.no_grad():
            self.model(self.inputs.of(pixels.to(self.inputs.device)))
            return float(torch.stack(list(distances.by_norm.values())).mean().sqrt())


def table_of(rows: Sequence[Measured]) -> pd.DataFrame:
    """A row per way, as `Made.table` says."""
    return pd.DataFrame(
        [
            {
                "images": row.name,
                "n": len(row.pixels),
                "steps": row.step,
                "own": nan if row.own is None else row.own.right,
                "own_rank": nan if row.own is None else row.own.median_rank,
                **_judged(row.judged),
                "judge_worse": _worse(row, rows[0]),
                "distance": row.distance,
                "seconds": row.seconds if row.step else nan,
            }
            for row in rows
        ]
    )


def _worse(row: Measured, first: Measured) -> float:
    """The test of a control's ranks against those of the first row; NaN for real images, which are of other classes."""
    if row is first or row.name == REAL or row.judged is None or first.judged is None:
        return nan
    return row.judged.worse_than(first.judged)


def _judged(found: Verdicts | None) -> dict[str, float]:
    low, high = (nan, nan) if found is None else found.interval
    rank_low, rank_high = (nan, nan) if found is None else found.rank_interval
    return {
        "judge": nan if found is None else found.right,
        "judge_low": low,
        "judge_high": high,
        "judge_rank": nan if found is None else found.median_rank,
        "judge_rank_low": rank_low,
        "judge_rank_high": rank_high,
    }


def sheets_of(rows: Sequence[Measured], near: Nearest | None) -> tuple[Sheet, ...]:
    """Images of every row for the page, and the nearest real ones to those of the first; none where inputs are no images."""
    if rows[0].pixels.dim() != 4:
        return ()
    found = [
        _sheet(row.name, row.pixels, row, MOST_BESIDE if i else MOST_SHOWN) for i, row in enumerate(rows)
    ]
    return (*found, *([] if near is None else [_sheet(NEAREST, near.pixels, None, MOST_BESIDE)]))


def _sheet(name: str, pixels: Tensor, row: Measured | None, most: int) -> Sheet:
    shown = pixels[:most]
    nothing = (-1,) * len(shown)
    targets = None if row is None else row.targets
    judged = None if row is None else row.judged
    return Sheet(
        name,
        colors(shown),
        nothing if targets is None else tuple(targets[:most].tolist()),
        nothing if judged is None else tuple(judged.guesses[:most].tolist()),
    )


def colors(pixels: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Pixels (n, C, H, W) of 0 to 1 as (n, H, W, 3): three channels are colors, of any other number their mean is a gray."""
    shown = pixels if pixels.shape[1] == 3 else pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    found: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = (
        (shown.nan_to_num().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    )
    return found
