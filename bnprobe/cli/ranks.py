"""A command that torchrun runs in several processes: each its share of the batches, and one recording of all."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from bnprobe.errors import BnprobeError

if TYPE_CHECKING:
    from bnprobe.models.image_folder import Batches
    from bnprobe.models.user_batches import UserBatches
    from bnprobe.recording import Recording
    from bnprobe.scaling.ranks import Ranks

ALONE = ("try", "ablate", "save_partial")
"""Options of what one process does with all batches."""


def share(batches: Batches | UserBatches, options: argparse.Namespace, group: Ranks) -> Batches | UserBatches:
    """What this process runs. Raises BnprobeError for options that need all batches in one process."""
    if group.of == 1:
        return batches
    given = [f"--{name.replace('_', '-')}" for name in ALONE if getattr(options, name)]
    if given:
        raise BnprobeError(
            f"{', '.join(given)} needs all batches in one process, and torchrun started {group.of}. Run it without torchrun."
        )
    return batches.share(group.rank, group.of)


def gathered(recording: Recording, batches: Batches | UserBatches, group: Ranks) -> Recording:
    """The recordings of all processes as one, which is described by what they read together."""
    if group.of == 1:
        return recording
    from bnprobe.scaling.gather import gather

    return gather(replace(recording, about=replace(recording.about, data=batches.words)))
