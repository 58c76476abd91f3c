"""No other place of the package opens, writes, moves or removes a file: read from the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from test_import_boundaries import PACKAGE, dotted, modules

OPENING = {
    *(
        "open",
        "read_text",
        "read_bytes",
        "write_text",
        "write_bytes",
        "fdopen",
        "fromfile",
        "tofile",
        "memmap",
        "mmap",
    ),
    *(
        "safe_open",
        "save_file",
        "load_file",
        "load_url",
        "from_file",
        "savefig",
        "ZipFile",
        "mkstemp",
        "NamedTemporaryFile",
    ),
    *(
        "read_csv",
        "to_csv",
        "to_parquet",
        "read_parquet",
        "ParquetFile",
        "write_table",
        "to_pickle",
        "download_url_to_file",
    ),
    *("mkdir", "makedirs", "unlink", "rename", "rmdir", "rmtree", "touch", "symlink_to", "copyfile"),
}
"""Functions and methods that open, make or remove files, whoever has them."""

OF = {
    ("torch", "load"),
    ("torch", "save"),
    ("np", "load"),
    ("np", "save"),
    ("os", "replace"),
    ("os", "remove"),
}
"""The same, under names that others also have."""


ALLOWED = {
    # what was opened by the gate, or is no file
    ("models.image_folder", "np.load"),
    ("models.image_folder", "open"),  # PIL's, of an opened file
    ("weights.file_kinds", "open"),  # tarfile's, of an opened file
    ("weights.with_torch.load", "torch.load"),
    ("report.formats.tables", "to_csv"),
    ("report.formats.read_table", "read_csv"),  # of bytes that the gate read
    ("report.formats.read_table", "ParquetFile"),
    ("models.parquet_images", "ParquetFile"),
    ("report.formats.tables", "write_table"),  # into RAM
    ("report.figures.album", "savefig"),
    ("report.figures.png", "open"),  # PIL's, of a raster in RAM
    ("report.figures.contact_sheet", "open"),  # PIL's, of an opened file
    ("cli.state_dict", "torch.save"),  # into RAM
    ("cli.recalibrate", "rename"),  # columns of a table
    ("cli.surgery", "rename"),
    ("comparison.names", "rename"),  # names of layers
    # torch's own cache of weights, and torch's own way to fill it
    ("models.download", "mkdir"),
    ("models.download", "download_url_to_file"),
    # the text of our own loops, which is a part of the mark of what was compiled from them
    ("reductions.cpu.launch", "read_bytes"),
    # the null device in place of a pipe that nobody reads
    ("printing", "open"),
}


def openings(text: str) -> Iterator[tuple[int, str]]:
    """Lines and names of whatever opens a file, called or passed on."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in OPENING:
            yield node.lineno, node.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called, owner = node.func.attr, node.func.value
            if isinstance(owner, ast.Name) and (owner.id, called) in OF:
                yield node.lineno, f"{owner.id}.{called}"
            elif called in OPENING:
                yield node.lineno, called
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in OPENING)


def test_only_the_gate_opens_files():
    """Fails if a file is opened past the gate, which knows limits, pipes, links and modes, or an exception outlives its
    reason."""
    outside = [path for path in modules() if PACKAGE / "files" not in path.parents]
    found = {(dotted(path), name) for path in outside for _, name in openings(path.read_text("utf-8"))}
    assert found == ALLOWED, found ^ ALLOWED


@pytest.mark.parametrize(
    "text",
    [
        "open('a')",
        "Path('a').read_text()",
        "path.open('rb')",
        "torch.load(p)",
        "np.load(p)",
        "from safetensors import safe_open",
    ],
)
def test_an_opening_is_seen(text):
    """Fails if the reader above is blind to what it is there for."""
    assert list(openings(text))
