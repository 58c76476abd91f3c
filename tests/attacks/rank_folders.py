"""The same pickles in folders of torch.distributed.checkpoint: as the table of the folder, and as a part of a tensor."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

from torch.distributed.checkpoint import filesystem, save

from attacks.pickles import STATE

SHARD = "__0_0.distcp"


def healthy(folder: Path) -> Path:
    """What a single process saves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no others
        save({name: tensor.clone() for name, tensor in STATE.items()}, checkpoint_id=folder)
    return folder


def as_the_table(attack: Path, folder: Path) -> Path:
    """A folder whose `.metadata` is the pickle of an attack."""
    (healthy(folder) / ".metadata").write_bytes(_pickle_of(attack))
    return folder


def before_the_end_of_the_table(attack: Path, folder: Path) -> Path:
    """A folder whose `.metadata` gives what torch wrote, after it made what the attack asks for and threw it away."""
    table = (healthy(folder) / ".metadata").read_bytes()
    whole, made, pop, stop = table[:-1], _pickle_of(attack), b"0", b"."
    (folder / ".metadata").write_bytes(whole + made.rstrip(stop) + pop + stop)
    return folder


def as_a_part(attack: Path, folder: Path) -> Path:
    """A folder of which one tensor is the file of an attack, where `.metadata` says that it lies."""
    table = pickle.loads((healthy(folder) / ".metadata").read_bytes())
    content = _file_of(attack).read_bytes()
    (index,) = (one for one in table.storage_data if one.fqn == "bn.running_mean")
    start = (folder / SHARD).stat().st_size
    table.storage_data[index] = filesystem._StorageInfo(SHARD, start, len(content))
    with (folder / SHARD).open("ab") as file:
        file.write(content)
    (folder / ".metadata").write_bytes(pickle.dumps(table))
    return folder


def _file_of(attack: Path) -> Path:
    """The file with the pickle, of an attack that may be a folder."""
    return attack / "a-2.bin" if attack.is_dir() else attack


def _pickle_of(attack: Path) -> bytes:
    """However torch.save wrote it."""
    file = _file_of(attack)
    if not zipfile.is_zipfile(file):
        return file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
