"""What norms over features are for in a transformer, and the names that follow: 12.attn, 12.mlp, final."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from bnprobe.measures.columns import Column
from bnprobe.recording import LayerRecord
from bnprobe.recording.names import (
    ATTENTION,
    ATTENTION_OUTPUT,
    BOTH,
    CROSS_ATTENTION,
    EMBEDDING,
    ENCODER_END,
    FINAL,
    INNER,
    KEY,
    MIXER,
    MLP,
    MLP_OUTPUT,
    NORM_ROLES,
    QUERY,
)
from bnprobe.recording.neighbours import Neighbours

COLUMNS = (
    Column(
        "norm_role",
        "What a norm is for in a transformer, such as attention, MLP, query, final; empty where it was not recognized.",
        f"from the operations that ran: {', '.join(NORM_ROLES)}",
        table="layers",
    ),
    Column(
        "largest_logit",
        "Largest absolute logit of the attention that this norm feeds, in queries sampled from the first pass.",
        "max |q · k| · scale",
        "",
        "Wortsman et al. 2023, arXiv:2309.14322",
        "layers",
    ),
    Column(
        "attention_evenness",
        "How evenly that attention looks at the keys it may see: 1 evenly, 0 at one key.",
        "mean of entropy / log(number of keys)",
        "0 to 1",
        "Zhai et al. 2023, arXiv:2303.06296",
        "layers",
    ),
    Column(
        "attention_factor",
        "What logits of that attention are multiplied by, relative to the usual 1/√d.",
        "scale · √d",
        "",
        "Vaswani et al. 2017, arXiv:1706.03762",
        "layers",
    ),
)

MIXING = (ATTENTION, BOTH, CROSS_ATTENTION, QUERY, KEY, ATTENTION_OUTPUT, MIXER)
"""Roles that only networks have which let positions see each other."""

SHORT = {
    ATTENTION: "attn",
    MLP: "mlp",
    BOTH: "attn+mlp",
    MIXER: "mixer",
    CROSS_ATTENTION: "cross",
    QUERY: "q",
    KEY: "k",
    ATTENTION_OUTPUT: "attn out",
    MLP_OUTPUT: "mlp out",
    INNER: "inner",
    EMBEDDING: "embed",
    ENCODER_END: "end",
    FINAL: "final",
}
"""How roles are called in names."""


def layer_columns(record: LayerRecord) -> dict[str, str | float]:
    """The role of a norm, and what the attention does that it feeds."""
    found = record.neighbours or Neighbours("unknown")
    return {
        "norm_role": found.role,
        "largest_logit": found.largest_logit,
        "attention_evenness": found.attention_evenness,
        "attention_factor": found.attention_factor,
    }


def is_transformer(layers: pd.DataFrame) -> bool:
    """Whether positions see each other between its norms."""
    return "norm_role" in layers and bool(layers["norm_role"].isin(MIXING).any())


def names_by_role(layers: pd.DataFrame) -> list[str]:
    """A name per row of the table of layers: the block and the role, "12.attn", in a transformer; else the path.

    Where two norms would have one name, more of the numbers in their paths stand in it, or the path itself.
    """
    paths = list(layers["layer"])
    if not is_transformer(layers):
        return paths
    sides = {side for side in ("encoder", "decoder") if any(side in path.split(".") for path in paths)}
    roles = list(layers["norm_role"])
    names = [_name(path, role, len(sides) > 1, 1) for path, role in zip(paths, roles, strict=True)]
    for most, whole in ((8, False), (0, True)):
        sites = set(zip(names, paths, strict=True))
        times = Counter(name for name, _ in sites)
        names = [
            name if times[name] == 1 else path if whole else _name(path, role, len(sides) > 1, most)
            for name, path, role in zip(names, paths, roles, strict=True)
        ]
    return names


def _name(path: str, role: str, with_side: bool, most: int) -> str:
    if not role:
        return path
    parts = path.split(".")
    side: Sequence[str] = [part[:3] for part in parts if part in ("encoder", "decoder")] if with_side else ()
    numbers = [number for part in parts[:-1] if (number := re.search(r"\d+$", part))]
    alone = role in (FINAL, EMBEDDING, ENCODER_END)
    block = [] if alone else [number[0] for number in numbers[:most]]
    return ".".join([*side, *block, SHORT[role]])
