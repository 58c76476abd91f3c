"""What `config.json` beside the weights says of norms, as Hugging Face writes it: eps, and with it kinds.

Values may stand in parts (`text_config`, `vision_config`); a norm takes those of the part whose name its path has, and none
where parts disagree and its path does not tell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bnprobe.checkpoints.groups import Norm
from bnprobe.errors import CannotFetch
from bnprobe.files import Place, Url, is_folder, read_input

NAME = "config.json"

LARGEST = 2**24
"""Bytes of a config that are read: a thousand times what the largest have."""

OURS = re.compile(
    r"^(diffusion_)?(pytorch_)?(model|adapter_model)([-._].*)?\.(safetensors|bin)(\.index\.json)?$"
)
"""Names of the files that belong to a config in the same folder."""

EPS = re.compile(r"^(?P<kind>layer_?norm|rms_?norm|batch_?norm|group_?norm|norm)?_?(eps|epsilon)$")

ROOT_MEAN_SQUARE = ("t5", "mt5", "umt5", "longt5", "switch_transformers", "pix2struct")
"""Model types whose layer norms, and `layer_norm_epsilon`, are those of RMS norms."""

IN_CODE = ("convnext", "convnextv2", "segformer")
"""Model types most of whose norms have an eps in their code, other than the one in their config."""

BATCH_NORMS = ("mobilenet",)
"""Beginnings of model types whose `layer_norm_eps` is that of batch norms."""


class NormSettings(Protocol):
    """What tensors alone do not say of a norm."""

    def eps(self, norm: Norm) -> float | None:
        """The eps of a norm; None where it is not known."""

    def kind(self, norm: Norm) -> str:
        """The kind of a norm; the one it has by its tensors where nothing else is known."""


@dataclass(frozen=True)
class Config:
    """The eps of each kind of norm ("" for any), by the part of the model that says so; "" is the whole.

    `groups` says that some norms pool over groups of channels, so that nothing tells them from layer norms.
    """

    model_type: str = ""
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    groups: bool = False

    def eps(self, norm: Norm) -> float | None:
        """The eps of a norm; None where the config does not say, or the norms do not ask it."""
        if self.model_type in IN_CODE:
            return None
        over_features = ("layer_norm", "rms_norm") if "beta" in norm.vectors else ("rms_norm", "layer_norm")
        kinds = ("batch_norm",) if norm.kind == "batch_norm" else over_features
        return next((eps for kind in (*kinds, "") if (eps := self._of(norm.path, kind)) is not None), None)

    def kind(self, norm: Norm) -> str:
        """The kind of a norm: layer or RMS norm where the vectors fit, and the config names one of the two."""
        layer, rms = (self._of(norm.path, kind) is not None for kind in ("layer_norm", "rms_norm"))
        if norm.kind != "unknown_norm" or layer == rms or self.groups:
            return norm.kind
        if "beta" not in norm.vectors and (rms or self.model_type in ROOT_MEAN_SQUARE):
            return "rms_norm"
        return "layer_norm" if layer and "beta" in norm.vectors else norm.kind

    def _of(self, path: str, kind: str) -> float | None:
        """One value: of the part that the path names, else of the whole, else that on which all parts agree."""
        words = set(re.split(r"[._]", path))
        named = [values for part, values in self.parts.items() if part and part in words]
        whole = [self.parts[""]] if "" in self.parts else []
        for group in (named, whole, list(self.parts.values())):
            found = {values[kind] for values in group if kind in values}
            if found:
                return found.pop() if len(found) == 1 else None
        return None


NO_CONFIG = Config()


def config_of(path: Place) -> Config:
    """The config that belongs to a folder or a file of weights; an empty one where there is none that can be read."""
    if isinstance(path, Url) and path.scheme != "hf":
        return NO_CONFIG  # of a repository its config is a part; elsewhere nothing is asked for that was not named
    folder = path if is_folder(path) else path.parent if OURS.match(path.name) else None
    file = folder / NAME if folder else None
    if file is None:
        return NO_CONFIG
    try:
        read = json.loads(read_input(file, LARGEST).decode("utf-8"))
    except (ValueError, OSError, RecursionError, CannotFetch):
        return NO_CONFIG
    if not isinstance(read, dict):
        return NO_CONFIG
    model_type = str(read.get("model_type", ""))
    parts = {name: values for name, part in _parts(read) if (values := _values(part, model_type))}
    return Config(model_type, parts, groups=any(map(_has_groups, (part for _, part in _parts(read)))))


def _parts(read: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", read
    for name, value in read.items():
        if name.endswith("_config") and isinstance(value, dict):
            yield name.removesuffix("_config"), value


def _has_groups(part: dict[str, Any]) -> bool:
    return part.get("feat_extract_norm") == "group" or any("num_groups" in name for name in part)


def _values(part: dict[str, Any], model_type: str) -> dict[str, float]:
    """Kinds and their eps; every value a number that can be one."""
    found = {}
    for name, value in part.items():
        match = EPS.match(name)
        if match and isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
            word = (match["kind"] or "").replace("_", "").removesuffix("norm")
            kind = f"{word}_norm" if word else ""
            of_batch = kind == "layer_norm" and model_type.startswith(BATCH_NORMS)
            found["batch_norm" if of_batch else kind] = float(value)
    return found
