"""Outputs named like something that the command reads, in places where one does not look for it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from attacks import many
from attacks.found import Attack
from attacks.headers import named

JSON = ("--format", "json", "-o")


def a_shard_of_any_name(folder: Path) -> Sequence[str | Path]:
    """An index says which file it is, and no ending does."""
    named(folder, "bn").rename(folder / "victim")
    names = {f"bn.{leaf}": "victim" for leaf in ("weight", "bias", "running_mean", "running_var")}
    (folder / "a.index.json").write_text(json.dumps({"weight_map": names}))
    return "check", folder / "a.index.json", *JSON, folder / "victim"


def the_table_to_compare_with(folder: Path) -> Sequence[str | Path]:
    many.table(folder).to_csv(folder / "victim.csv", index=False)
    read = ("check", folder / "a.pt", "--against", folder / "victim.csv")
    return *read, "--write-baseline", folder / "victim.csv"


def the_config_beside_the_weights(folder: Path) -> Sequence[str | Path]:
    named(folder, "bn").rename(folder / "model.safetensors")
    (folder / "config.json").write_text('{"layer_norm_eps": 1e-5}')
    (folder / "victim").symlink_to(folder / "config.json")
    return "check", folder / "model.safetensors", *JSON, folder / "victim"


def image(option: str, place: str = "i/c/victim.png") -> Attack:
    """An image, one folder down."""

    def attack(folder: Path) -> Sequence[str | Path]:
        (folder / "i" / "c").mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(folder / "i" / "c" / "victim.png")
        (folder / "link").symlink_to(folder / "i")
        model = ("report", "attacks.sandbox:tiny", "--data", folder / "i", "--size", "16")
        others = () if option == "-o" else ("-o", folder / "o.html")
        return *model, *others, option, folder / place

    return attack


def a_part_of_many_ranks(name: str) -> Attack:
    """Of a folder as torch.distributed.checkpoint writes it."""

    def attack(folder: Path) -> Sequence[str | Path]:
        from torch.distributed.checkpoint import save

        state = {f"bn.running_{end}": torch.ones(4) for end in ("mean", "var")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are no other processes
            save(state, checkpoint_id=folder / "d")
        return "check", folder / "d", *JSON, folder / "d" / name

    return attack


REPLACED: dict[str, Attack] = {
    "a shard of any name": a_shard_of_any_name,
    "the table to compare with": the_table_to_compare_with,
    "the config beside the weights": the_config_beside_the_weights,
    "an image by the page": image("-o"),
    "an image by the recording": image("--save"),
    "an image through a link": image("-o", "link/c/victim.png"),
    "numbers of a rank": a_part_of_many_ranks("__0_0.distcp"),
    "what the ranks wrote": a_part_of_many_ranks(".metadata"),
}
"""Each is refused before the work."""
