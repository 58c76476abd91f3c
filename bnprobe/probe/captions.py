"""What each sample of a batch is, in the user's words: the path of its file, or a text."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fsdecode
from typing import Any

from bnprobe.errors import BnprobeError

Captions = Sequence[str | PathLike[str]]
"""One path or text per sample."""

LONGEST = 200
"""Characters of a text that are kept."""

HOW = 'Pass pathlib.Path("cat/1.jpg") for a file, and text as it is.'


def check_captions(captions: Captions, n_samples: int) -> None:
    """Raises BnprobeError unless there is one path or text per sample."""
    if len(captions) != n_samples:
        raise BnprobeError(
            f"got {len(captions):,} captions for a batch of {n_samples:,} samples. Pass one path or text per sample."
        )


def captions_of(given: Any) -> Captions:
    """The captions of a batch. Raises BnprobeError for anything but a sequence of paths and texts."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise BnprobeError(
            f"captions must be a list with one path or text per sample, got {type(given).__name__}. {HOW}"
        )
    odd = next((one for one in given if not isinstance(one, str | PathLike)), None)
    if odd is not None:
        raise BnprobeError(f"captions hold {type(odd).__name__}, which is neither path nor text. {HOW}")
    return given


def kept_caption(given: str | PathLike[str]) -> tuple[str, bool]:
    """A path or a text as it is kept, and which of the two it is."""
    if isinstance(given, str):
        text = " ".join(given.split())
        text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    else:
        text = fsdecode(given)
    # half characters, which names of files may hold, cannot be written
    return text.encode("utf-8", "replace").decode(), not isinstance(given, str)
