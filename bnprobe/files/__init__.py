"""The one gate for files: regular ones only, under limits on the way in, whole or not at all on the way out."""

from bnprobe.files.journal import Journal
from bnprobe.files.read import (
    Place,
    files_in,
    folders_in,
    is_file,
    is_folder,
    open_input,
    read_input,
    read_shipped,
    size_and_time,
)
from bnprobe.files.remote import RemoteFile, Url, place_of
from bnprobe.files.stream import STREAM, standard_input
from bnprobe.files.write import check_outputs, write_output, write_output_by

__all__ = [
    "STREAM",
    "Journal",
    "Place",
    "RemoteFile",
    "Url",
    "check_outputs",
    "files_in",
    "folders_in",
    "is_file",
    "is_folder",
    "open_input",
    "place_of",
    "read_input",
    "read_shipped",
    "size_and_time",
    "standard_input",
    "write_output",
    "write_output_by",
]
