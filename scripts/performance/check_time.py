"""How long `bnprobe.check` takes for a file of a torchvision model, after import, by format.

    python -m scripts.performance.check_time [--model resnet50] [--rounds 5]

Files are made with random weights in a temporary folder, and read once before the clock starts. Printed: the
seconds from the path to the tables and findings (median and slowest round), and those of the imports alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file

State = dict[str, torch.Tensor]


def zipped(state: State, folder: Path) -> Path:
    torch.save(state, folder / "model.pt")
    return folder / "model.pt"


def legacy(state: State, folder: Path) -> Path:
    torch.save({"state_dict": state}, folder / "model.th", _use_new_zipfile_serialization=False)
    return folder / "model.th"


def safe(state: State, folder: Path) -> Path:
    save_file(state, folder / "model.safetensors")
    return folder / "model.safetensors"


def shards(state: State, folder: Path) -> Path:
    (folder / "shards").mkdir()
    names = list(state)
    places = {name: f"model-{1 + 2 * i // len(names)}-of-2.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: state[name] for name in names if places[name] == file}, folder / "shards" / file)
    index = folder / "shards" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return index


FORMATS: dict[str, Callable[[State, Path], Path]] = {
    ".pt (zip)": zipped,
    ".th (pickle of before 1.6)": legacy,
    ".safetensors": safe,
    "two shards and their index": shards,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    state = dict(torchvision.models.get_model(options.model, weights=None).state_dict())
    started = time.perf_counter()
    import bnprobe
    import bnprobe.checkpoints.check
    import bnprobe.report.result

    print(f"imports of bnprobe, after torch: {time.perf_counter() - started:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in FORMATS.items():
            path = make(state, Path(folder))
            seconds = []
            for _ in range(options.rounds + 1):
                started = time.perf_counter()
                report = bnprobe.check(path)
                n = len(report.findings)
                seconds.append(time.perf_counter() - started)
            size = sum(
                file.stat().st_size for file in (path.parent.iterdir() if path.suffix == ".json" else [path])
            )
            print(
                f"{options.model} {name}, {size / 1e6:.0f} MB: {len(report.layers)} norms, {n} findings, "
                f"first {seconds[0]:.2f} s, then median {statistics.median(seconds[1:]):.2f} s, slowest "
                f"{max(seconds[1:]):.2f} s"
            )


if __name__ == "__main__":
    main()
