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
    CROSS_ATTENTION_OUTPUT,
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
        "repeats",
        "The norm whose output goes into this one as it is, and nowhere else; empty where there is none.",
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
    Column(
        "qk_bound",
        "What logits of that attention cannot exceed by the weights alone, rotary positions left out.",
        "max over heads of σ(WqᵀWk, γ folded) · C · scale; with norms of queries and keys √d · max |γq γk|",
        "",
        "Wortsman et al. 2023, arXiv:2309.14322",
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
    CROSS_ATTENTION_OUTPUT: "cross out",
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

NUMBERED = re.compile(r"(?:_|layer|block|stage|level)(\d+)$")
"""A part of a path that ends in the number of its block; the number of dinov2 is none."""

GENERIC = re.compile(r"_(model|tower|encoder|blocks|layers|transformer)$")
"""What names of towers have in common."""


def layer_columns(record: LayerRecord) -> dict[str, str | float]:
    """The role of a norm, and what the attention does that it feeds."""
    found = record.neighbours or Neighbours("unknown")
    return {
        "norm_role": found.role,
        "repeats": found.repeats,
        "largest_logit": found.largest_logit,
        "attention_evenness": found.attention_evenness,
        "attention_factor": found.attention_factor,
        "qk_bound": found.qk_bound,
    }


def is_transformer(layers: pd.DataFrame) -> bool:
    """Whether positions see each other between its norms."""
    return "norm_role" in layers and bool(layers["norm_role"].isin(MIXING).any())


def names_by_role(layers: pd.DataFrame) -> list[str]:
    """A name per row of the table of layers: the block and the role, "12.attn", in a transformer; else the path.

    Where two norms would have one name, more of the numbers in their paths stand in it, or the path itself. Norms of one of
    several towers, such as an encoder and a decoder, begin with its name.
    """
    paths, roles = list(layers["layer"]), list(layers["norm_role"]) if "norm_role" in layers else []
    if not is_transformer(layers):
        return paths
    sites = list(zip(paths, roles, towers_of(layers), strict=True))
    names = [_name(*site, most=1) for site in sites]
    names = _told_apart(names, paths, [_name(*site) for site in sites])
    return _told_apart(names, paths, paths)


def _told_apart(names: list[str], paths: list[str], instead: list[str]) -> list[str]:
    """The names, but for those of several paths, in whose place others stand."""
    times = Counter(name for name, _ in set(zip(names, paths, strict=True)))
    return [name if times[name] == 1 else other for name, other in zip(names, instead, strict=True)]


def towers_of(layers: pd.DataFrame) -> list[str]:
    """For each row the name of its tower, such as "enc", "dec", "vision": a stack of blocks beside another one. "" in a
    network of one stack, and for norms outside."""
    paths = [str(path) for path in layers["layer"]]
    inside = layers["norm_role"].isin((*MIXING, MLP)).to_numpy()
    stacks = dict.fromkeys(_stack(path) for path, one in zip(paths, inside, strict=True) if one)
    stacks.pop((), None)
    words: dict[str, str] = {}
    for stack in stacks:
        others = {word for other in stacks if other != stack for word in other}
        own = next((word for word in stack if word not in others), "")
        if own and len(stacks) > 1:
            words[own] = {"encoder": "enc", "decoder": "dec"}.get(own) or GENERIC.sub("", own) or own
    return [next((words[part] for part in path.split(".") if part in words), "") for path in paths]


def _stack(path: str) -> tuple[str, ...]:
    """What stands before the number of the block."""
    parts = path.split(".")
    numbers = _numbers(parts)
    return tuple(parts[: numbers[0][0]]) if numbers else ()


def _numbers(parts: Sequence[str]) -> list[tuple[int, str]]:
    """The numbers of blocks in a path and their places: parts that are numbers, else those that end in one."""
    found = [(i, part) for i, part in enumerate(parts[:-1]) if part.isdecimal()]
    ending = ((i, NUMBERED.search(part)) for i, part in enumerate(parts[:-1]))
    return found or [(i, match[1]) for i, match in ending if match]


def _name(path: str, role: str, tower: str, most: int | None = None) -> str:
    """With `most` of the numbers in the path, or all."""
    if not role:
        return path
    alone = role in (FINAL, EMBEDDING, ENCODER_END)
    block = [] if alone else [number for _, number in _numbers(path.split("."))[:most]]
    return ".".join([*([tower] if tower else []), *block, SHORT[role]])
