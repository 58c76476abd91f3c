"""What `config.json` beside the weights says of norms, as Hugging Face writes it: eps, and with it kinds.

Values may stand in parts (`text_config`, `vision_config`); a norm takes those of the part whose name its path has, and none
where parts disagree and its path does not tell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from bnprobe.checkpoints.attention import Heads
from bnprobe.checkpoints.groups import Norm
from bnprobe.errors import CannotFetch
from bnprobe.files import Place, Url, is_folder, read_input
from bnprobe.files.gguf import Fact
from bnprobe.weights.file_kinds import is_gguf
from bnprobe.weights.read_file import facts_of

Value = TypeVar("Value")

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

KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")

BATCH_NORMS = ("mobilenet",)
"""Beginnings of model types whose `layer_norm_eps` is that of batch norms."""


class NormSettings(Protocol):
    """What tensors alone do not say of a norm, and where it is from."""

    @property
    def source(self) -> str:
        """In words, such as config.json."""

    def eps(self, norm: Norm) -> float | None:
        """The eps of a norm; None where it is not known."""

    def kind(self, norm: Norm) -> str:
        """The kind of a norm; the one it has by its tensors where nothing else is known."""

    def heads(self, path: str) -> Heads | None:
        """The heads of attention of the part of the model that a path is in; None where they are not known."""


@dataclass(frozen=True)
class Config:
    """The eps of each kind of norm ("" for any), by the part of the model that says so; "" is the whole.

    `groups` says that some norms pool over groups of channels, so that nothing tells them from layer norms. `stores_sums`
    says that norms which multiply by 1 + w have the 1 in the file, as those of GGUF do.
    """

    model_type: str = ""
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    groups: bool = False
    attention: Mapping[str, Heads] = field(default_factory=dict)
    source: str = NAME
    stores_sums: bool = False

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

    def heads(self, path: str) -> Heads | None:
        """The heads that the part of a path has."""
        return _one(self.attention, path)

    def _of(self, path: str, kind: str) -> float | None:
        """The value of the part that a path is in."""
        return _one({part: values[kind] for part, values in self.parts.items() if kind in values}, path)


def _one(values: Mapping[str, Value], path: str) -> Value | None:
    """One value: of the part that the path names, else of the whole, else that on which all parts agree."""
    words = set(re.split(r"[._]", path))
    words |= {"text"} if "language" in words else set()
    named = [value for part, value in values.items() if part and part in words]
    whole = [values[""]] if "" in values else []
    for group in (named, whole, list(values.values())):
        if group:
            return group[0] if len(set(group)) == 1 else None
    return None


NO_CONFIG = Config()


def config_of(path: Place) -> Config:
    """The config that belongs to a folder or a file of weights; an empty one where there is none that can be read."""
    if not is_folder(path) and is_gguf(path):
        return _of_gguf(facts_of(path))
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
    heads = {name: found for name, part in _parts(read) if (found := _heads(part, model_type))}
    groups = any(map(_has_groups, (part for _, part in _parts(read))))
    return Config(model_type, parts, groups, heads)


def _of_gguf(facts: Mapping[str, Fact]) -> Config:
    """What a GGUF file says of its norms and of attention, under the name of its architecture."""
    name = str(facts.get("general.architecture", ""))
    said = {key.removeprefix(f"{name}.attention."): value for key, value in facts.items()}
    values = {
        "rms_norm_eps": said.get("layer_norm_rms_epsilon"),
        "layer_norm_eps": said.get("layer_norm_epsilon"),
        "num_attention_heads": said.get("head_count"),
        "num_key_value_heads": said.get("head_count_kv"),
        "head_dim": said.get("key_length"),
        "hidden_size": facts.get(f"{name}.embedding_length"),
    }
    parts, heads = _values(values, name), _heads(values, name)
    return Config(
        name,
        {"": parts} if parts else {},
        attention={"": heads} if heads else {},
        source="its metadata",
        stores_sums=True,
    )


def _parts(read: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", read
    for name, value in read.items():
        if name.endswith("_config") and isinstance(value, dict):
            yield name.removesuffix("_config"), value


def _heads(part: dict[str, Any], model_type: str) -> Heads | None:
    """The heads of attention; None where the config does not say how many."""

    def first(*names: str) -> float:
        given = [part[name] for name in names if type(part.get(name)) in (int, float)]
        return next((value for value in given if 0 < value < 2**16), 0)

    n, n_keys = int(first("num_attention_heads", "n_head", "n_heads", "num_heads")), int(first(*KEY_HEADS))
    if not n:
        return None
    size = int(first("head_dim", "d_kv")) or int(first("hidden_size", "n_embd", "d_model")) // n
    scalar = first("query_pre_attn_scalar")
    own = 1.0 if model_type in ROOT_MEAN_SQUARE else first("attention_multiplier")
    return Heads(n, n_keys, size, scalar**-0.5 if scalar else own)


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
