"""The one gate for files: regular ones only, under limits on the way in, whole or not at all on the way out."""

from bnprobe.files.read import files_in, folders_in, is_file, is_folder, open_input, read_input, read_shipped
from bnprobe.files.stream import STREAM, standard_input
from bnprobe.files.write import check_outputs, write_output

__all__ = [
    "STREAM",
    "check_outputs",
    "files_in",
    "folders_in",
    "is_file",
    "is_folder",
    "open_input",
    "read_input",
    "read_shipped",
    "standard_input",
    "write_output",
]
