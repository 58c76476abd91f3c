"""Norms with a gate: a second argument, of which an activation multiplies what goes into the norm, or what comes out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnprobe.errors import BnprobeError

ARGUMENTS = ("gate", "z", "g")
"""Names of the second argument: transformers', mamba_ssm's and fla's."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "swish": F.silu,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True)
class Gate:
    """What a gated norm multiplies by: norm(x · silu(gate)) as in Mamba-2, or norm(x) · silu(gate) as in Qwen3-Next.

    Without a gate in its call the norm is a plain one.

    Attributes:
        before: Whether the input is multiplied, so that the product is what is normalized; else the output is.
        activation: "silu" ("swish" is the same) or "sigmoid".

    Raises:
        BnprobeError: Another activation.

    Example:
        >>> from bnprobe.norms import Gate, NormLayer
        >>> NormLayer(kind="rms_norm", pools="channels", n_channels=6, eps=1e-5, gate=Gate(before=True))
        NormLayer(kind='rms_norm', pools='channels', n_channels=6, eps=1e-05, gate=Gate(before=True, activation='silu'))
    """

    before: bool
    activation: str = "silu"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise BnprobeError(
                f"activation={self.activation!r} is none of a gate. Use one of {', '.join(ACTIVATIONS)}."
            )

    def factor(self, gate: Tensor) -> Tensor:
        """What the norm multiplies by, in float32 or wider, as the norms compute it."""
        return ACTIVATIONS[self.activation](gate.to(torch.promote_types(gate.dtype, torch.float32)))


def gates_of(module: nn.Module) -> tuple[Gate | None, ...]:
    """The gates that a norm known by its looks may have, the one that it tells of, else the usual one, first."""
    if argument_of(module) is None:
        return (None,)
    said = getattr(module, "activation", "silu")
    activation = said if said in ACTIVATIONS else "silu"
    after = getattr(module, "norm_before_gate", None)
    return tuple(
        Gate(before, activation) for before in ([not after] if isinstance(after, bool) else [True, False])
    )


def gate_in(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The gate in the arguments of a call; None where there is none."""
    if len(args) + len(kwargs) < 2:
        return None
    name = argument_of(module)
    given = None if name is None else args[1] if len(args) > 1 else kwargs.get(name)
    return given if isinstance(given, Tensor) and given.is_floating_point() else None


def argument_of(module: nn.Module) -> str | None:
    """The name of the gate among the arguments of a module, right after its input; None where it takes none."""
    return _argument_of(type(module).forward)


@lru_cache(maxsize=1024)
def _argument_of(forward: Callable[..., Any]) -> str | None:
    try:
        names = list(inspect.signature(forward).parameters)
    except (TypeError, ValueError):  # a forward without a signature
        return None
    return names[2] if len(names) > 2 and names[2] in ARGUMENTS else None
