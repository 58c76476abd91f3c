"""The list of `bnprobe record --shards`: what it names, and the file that each of its lines becomes."""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bnprobe.cli.listed import lines_of
from bnprobe.errors import BadImages, BnprobeError, CannotWrite
from bnprobe.files import files_in, folders_in

if TYPE_CHECKING:
    from bnprobe.models.packed_images import Fields
    from bnprobe.scaling.shards import Shard


def shards_of(options: argparse.Namespace, settings: Sequence[str]) -> list[Shard]:
    """The shards of the list, in its order; their files are named by place and `settings`.

    Raises BnprobeError where the list is none, or the folder has parts of others or what can be none.
    """
    from bnprobe.scaling.shards import Shard

    places = _listed(Path(options.shards))
    folder = Path(options.out) / "parts"
    how = repr([getattr(options, name) for name in settings])
    names = [
        f"{i:06}-{hashlib.sha256(f'{how} {place} {len(places)}'.encode()).hexdigest()[:8]}.bnp"
        for i, place in enumerate(places)
    ]
    others = sorted({path.name for path in files_in(folder, ".bnp")} - set(names))
    if others:
        raise BnprobeError(
            f"{folder} holds parts of another list or of other settings ({len(others):,}, the first is {others[0]}). Choose "
            "another --out, or remove them."
        )
    shards = [Shard(place, i, len(places), folder / names[i]) for i, place in enumerate(places)]
    _demand_regular_parts(shards)
    return shards


def _demand_regular_parts(shards: Sequence[Shard]) -> None:
    """Raises CannotWrite where something else is in the place of a part: a pipe, a device, a folder, a link to nothing.

    Otherwise it would be found out after a shard was recorded, and of the null device never.
    """
    for shard in shards:
        if not shard.is_done and (shard.part.exists() or shard.part.is_symlink()):
            raise CannotWrite(
                f"{shard.part} is there, and no regular file, so that no part can be kept in it. Remove it."
            )


def _listed(path: Path) -> list[str]:
    from bnprobe.models.image_shards import kind_of, shard_place

    lines = lines_of(path, "shard")
    if not lines:
        raise BnprobeError(f"{path} lists no shards. Write one folder, .tar or .parquet file per line.")
    places = []
    for line in lines:
        try:
            places.append(shard_place(line))
        except BadImages as error:
            raise BadImages(f"{path} lists {error}") from None
    ((often, n),) = Counter(places).most_common(1)
    if n > 1:
        raise BnprobeError(f"{path} lists {often} {n} times. Leave one of these lines.")
    kinds = sorted({kind_of(place) for place in places})
    if len(kinds) > 1:
        raise BadImages(
            f"{path} lists shards of several kinds ({', '.join(kinds)}), which number classes by rules of their own. Make a "
            "list of each, and merge what they give."
        )
    return places


def classes_of(shards: Sequence[Shard]) -> tuple[str, ...]:
    """The class folders of all shards together, so that a class has one number in all of them; none for files."""
    return tuple(sorted({folder.name for shard in shards for folder in folders_in(Path(shard.place))}))


def fields_of(options: argparse.Namespace) -> Fields:
    """What the options call image and class in files."""
    from bnprobe.models.packed_images import Fields

    return Fields(options.image_field, options.label_field)
