"""How sharp attention is in the pass that is watched: its largest logit, and how evenly it looks at what it may see.

From a few rows of queries of a few sequences, once per layer: nothing is hooked, and no pass but the watched one is slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bnprobe.graph.graph import Node

MOST_SEQUENCES, MOST_QUERIES = 4, 64
"""Of a call, that are looked at."""

FEWEST_KEYS = 8
"""Keys that a query must see for its entropy to count."""

MASKED = -1e4
"""Logits below it are those of a mask: half precision ends at -65,504."""


def sharpness(
    func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor, float] | None:
    """The largest absolute logit, the mean entropy of the shares over log of the number of keys (0 to 1), as tensors,
    and what logits are multiplied by, relative to 1/√d; NaN for that where only the softmax is seen.

    None for operations that are no attention, and where nothing is seen. The entropy is NaN where no query sees
    FEWEST_KEYS keys.
    """
    logits, factor = (_given(args), math.nan) if "softmax" in name else _computed(func, args, kwargs)
    if logits is None or not logits.numel():
        return None
    seen = logits > MASKED
    n_keys = seen.sum(-1)
    largest = torch.where(seen, logits.abs(), 0.0).amax()
    logs = torch.log_softmax(torch.where(seen, logits, -torch.inf), -1)
    entropy = -torch.where(seen, logs.exp() * logs, 0.0).sum(-1)
    counted = n_keys >= FEWEST_KEYS
    even = torch.where(counted, entropy / n_keys.log(), 0.0).sum() / counted.sum()
    return largest, even, factor


def first_seen(attention: Iterable[Node]) -> tuple[float, float, float]:
    """What `sharpness` says of the first of these operations that was seen, as numbers; NaN where none was."""
    found = (node.facts.get("sharpness") for node in attention)
    largest, even, factor = next((one for one in found if one is not None), (math.nan,) * 3)
    return float(largest), float(even), factor


class Lengths(NamedTuple):
    """Of the last token of a call of attention: lengths of its queries (H,) and of its keys (K,) by head, and the channels
    of a head; and what the products are multiplied by."""

    queries: Tensor
    keys: Tensor
    size: int
    factor: float


def lengths(q: Tensor, k: Tensor, factor: float) -> Lengths | None:
    """Of queries and keys (N, heads, T, D); `factor` relative to 1/√D, NaN where it is not known."""
    if not math.isfinite(factor) or not (q.numel() and k.numel()) or q.shape[-1] != k.shape[-1]:
        return None
    of_queries, of_keys = (torch.linalg.vector_norm(x.detach()[-1, :, -1].float(), dim=-1) for x in (q, k))
    return Lengths(of_queries, of_keys, q.shape[-1], factor / math.sqrt(q.shape[-1]))


def last_row(y: Tensor) -> Tensor:
    """What a linear layer makes of the last token, shape (outputs,): a copy, that the rest need not stay, on its device."""
    return y.detach().reshape(-1, y.shape[-1])[-1].to(torch.float32, copy=True)


def _given(args: Sequence[Any]) -> Tensor | None:
    """Logits that a softmax over the last of four dimensions is handed, for some queries."""
    x: Tensor = args[0]
    dim = args[1]
    if x.dim() != 4 or dim not in (-1, 3):
        return None
    x = x.detach()[:MOST_SEQUENCES]
    return x[:, :, _some(x.shape[2], x.device)].float()


def _computed(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Tensor | None, float]:
    """The same of queries and keys, and the factor."""
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    q, k = given.get("query"), given.get("key")
    if not (isinstance(q, Tensor) and isinstance(k, Tensor)) or q.dim() != 4 or k.dim() != 4:
        return None, math.nan
    q, k = q.detach()[:MOST_SEQUENCES].float(), k.detach()[:MOST_SEQUENCES].float()
    rows = _some(q.shape[2], q.device)
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    root = math.sqrt(q.shape[-1])
    factor = 1.0 if given.get("scale") is None else float(given["scale"]) * root
    logits = q[:, :, rows] @ k.transpose(-1, -2) * (factor / root)
    if given.get("is_causal"):
        later = torch.arange(k.shape[2], device=q.device) > rows[:, None]
        logits = logits.masked_fill(later, -torch.inf)
    mask = given.get("attn_mask", given.get("attn_bias"))
    return logits if mask is None else _masked(logits, mask.detach(), rows, q.shape[2]), factor


def _masked(logits: Tensor, mask: Tensor, rows: Tensor, n_queries: int) -> Tensor:
    mask = mask.expand(*mask.shape[:-2], n_queries, mask.shape[-1])[..., rows, :]
    if mask.dim() == 4:
        mask = mask[:MOST_SEQUENCES]
    return logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask


def _some(n: int, device: torch.device) -> Tensor:
    """Places that are spread evenly, the last among them: it sees most."""
    step = max(-(-n // MOST_QUERIES), 1)
    return torch.arange(n - 1, -1, -step, device=device)
