"""What is a normalization layer, what it pools over, and how to read its input.

A layer is described by a `NormLayer`: a plan, plain data, that the probe applies. Where a class alone does
not settle the meaning (does this RMSNorm multiply by w or by 1 + w? are the channels first or last?),
`describe` returns several plans, and the probe keeps the first that reproduces the real output.

Lookup, most specific first: classes given to `register_norm`, by the method resolution order; torch's
own classes and their subclasses (`torch_norms`); then classes that only look like a norm by name and
attributes (`lookalike`). Functions are norms too (`functional`).
"""

from bnprobe.norms.folded import folded_away, has_matrix, identities_for_norms
from bnprobe.norms.gated import Gate, gate_in
from bnprobe.norms.layer import FIRST, LAST, Describe, NormLayer
from bnprobe.norms.module_tree import ModuleTree
from bnprobe.norms.pool import POOLS, Pool
from bnprobe.norms.registry import describe, is_norm, is_torchs_own, looks_like_norm, register_norm

__all__ = [
    "FIRST",
    "LAST",
    "POOLS",
    "Describe",
    "Gate",
    "ModuleTree",
    "NormLayer",
    "Pool",
    "describe",
    "folded_away",
    "gate_in",
    "has_matrix",
    "identities_for_norms",
    "is_norm",
    "is_torchs_own",
    "looks_like_norm",
    "register_norm",
]
