"""A shift by depth: where it enters the network, where it is largest, and from where it is gone."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bnprobe.recording.names import SAME, SHIFTED


@dataclass(frozen=True)
class Course:
    """A shift through depth. Positions are those of rows in the table of layers; None where there is none.

    `opens` is the first shifted layer, `worst` the shifted one with the largest `w2_rms`, and `healed`
    the first layer from which on none is shifted any more: None while the last layer that could be
    judged is still shifted. `n_shifted` of `n_judged` layers were shifted.
    """

    opens: int | None
    worst: int | None
    healed: int | None
    n_shifted: int
    n_judged: int


def course(layers: pd.DataFrame) -> Course:
    """Where a shift enters the network, where it is largest, and by which layer it has healed.

    Reads `verdict` and `w2_rms` of the table of layers, whose rows stand in the order of execution.
    Layers that could not be judged (no running statistics, never updated, too few samples) are skipped.
    """
    judged = [i for i, verdict in enumerate(layers["verdict"]) if verdict in (SAME, *SHIFTED)]
    shifted = [i for i in judged if layers["verdict"].iloc[i] in SHIFTED]
    if not shifted:
        return Course(None, None, None, 0, len(judged))
    after = [i for i in judged if i > shifted[-1]]
    worst = max(shifted, key=lambda i: float(layers["w2_rms"].iloc[i]))
    return Course(shifted[0], worst, after[0] if after else None, len(shifted), len(judged))
