"""Write every attack into a folder of its own below the one that is named."""

from __future__ import annotations

import sys
from pathlib import Path

from attacks import archives, headers, indices, pickles, recordings

if len(sys.argv) != 2:
    sys.exit("python -m attacks FOLDER")
made = {
    **{
        make.__name__: make
        for make in (*pickles.CODE, *pickles.COSTLY, *pickles.NO_NUMBERS, *pickles.ODD_NUMBERS)
    },
    **{make.__name__: make for make in (*archives.ARCHIVES, *archives.HARMLESS)},
    **{f"header, {name}": make for name, make in headers.HEADERS.items()},
    **{f"index, {name}": make for name, make in indices.INDICES.items()},
    **{f"recording, {name}": make for name, make in recordings.RECORDINGS.items()},
}
for name, make in made.items():
    folder = Path(sys.argv[1], name)
    folder.mkdir(parents=True, exist_ok=True)
    print(make(folder))
