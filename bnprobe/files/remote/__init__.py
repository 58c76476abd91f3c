"""Remote files, by range reads: of an address no more is fetched than is asked for, and nothing that was not named."""

from bnprobe.files.remote.ranges import RemoteFile
from bnprobe.files.remote.url import Url, place_of

__all__ = ["RemoteFile", "Url", "place_of"]
