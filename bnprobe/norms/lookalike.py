"""Classes that are norms by name and attributes only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from torch import nn

from bnprobe.errors import class_name
from bnprobe.norms.gated import gates_of
from bnprobe.norms.layer import FIRST, LAST, NormLayer
from bnprobe.norms.module_tree import children_of
from bnprobe.norms.torch_norms import batch_norm, eps_of, tensor_of
from bnprobe.recording import BATCH, CHANNELS, GROUP

WEIGHT, BIAS = ("weight", "gamma", "scale", "g", "a_2", "alpha"), ("bias", "beta", "b_2")
"""What classes of one's own call γ and β; a_2 and b_2 are those of the Annotated Transformer."""

MOVING = ("moving_mean",), ("moving_var", "moving_variance")
"""What textbooks, and networks that came from Keras, call the running mean and variance."""

USUAL_EPS = 1e-6
"""Of RMS norms. A class that does not tell its eps has it in its code: for inputs far from 0 the output is the same."""

USUAL_EPS_OF_BATCH = 1e-5
"""The same of batch norms."""

MOST_NUMBERS = 4
"""Of a module, that may say how many groups it has: each is tried in every form of the norm."""


def look_alike(module: nn.Module) -> Iterator[NormLayer]:
    """Plans for classes that are norms by name and attributes only."""
    name = class_name(module).lower()
    if tensor_of(module, "running_mean") is not None and tensor_of(module, "running_var") is not None:
        # torchvision's and detectron2's FrozenBatchNorm2d keep four buffers and never use the batch
        plans = list(batch_norm(module))
        yield from reversed(plans) if "frozen" in name and module.training else plans
        return
    if tensor_of(module, *MOVING[0]) is not None and tensor_of(module, *MOVING[1]) is not None:
        yield from _with_moving_averages(module)
        return
    weight = tensor_of(module, *WEIGHT)
    if "norm" not in name or weight is None or children_of(module):
        return
    eps = eps_of(module)
    if eps is None and "rms" not in name:
        return  # one that calls torch's function is recorded there, with the eps that it is called with
    assumed, eps = eps is None, USUAL_EPS if eps is None else eps
    bias = tensor_of(module, *BIAS)
    n_groups = getattr(module, "num_groups", None)
    if "group" in name and isinstance(n_groups, int):
        yield NormLayer(
            "group_norm",
            GROUP,
            weight.numel(),
            eps,
            n_groups=n_groups,
            weight=weight,
            bias=bias,
        )
    elif "rms" in name or "layer" in name:
        rms = NormLayer(
            "rms_norm",
            CHANNELS,
            weight.numel(),
            eps,
            channels=LAST,
            weight=weight,
            bias=bias,
            centred=False,
            eps_assumed=assumed,
        )
        layer = replace(rms, kind="layer_norm", centred=True)
        for gate, groups in product(gates_of(module), _groups_at_a_position(module, rms.n_channels)):
            for plan in (rms, layer) if "rms" in name else (layer, rms):
                # the Gemma family keeps w - 1 in its weight
                for offset in (0.0, 1.0):
                    made = replace(plan, weight_offset=offset, gate=gate, n_groups=groups)
                    yield made
                    yield replace(made, channels=FIRST)


def _with_moving_averages(module: nn.Module) -> Iterator[NormLayer]:
    """A batch norm with moving averages, which may be no buffers, and may be used by another sign than the mode."""
    eps = eps_of(module)
    mean = tensor_of(module, *MOVING[0])
    assert mean is not None
    plan = NormLayer(
        "batch_norm",
        BATCH,
        mean.numel(),
        USUAL_EPS_OF_BATCH if eps is None else eps,
        weight=tensor_of(module, *WEIGHT),
        bias=tensor_of(module, *BIAS),
        running_mean=mean,
        running_var=tensor_of(module, *MOVING[1]),
        uses_running=not module.training,
        eps_assumed=eps is None,
    )
    yield plan
    yield replace(plan, uses_running=module.training)


def _groups_at_a_position(module: nn.Module, n_channels: int) -> tuple[int, ...]:
    """How many groups of channels may have a scale of their own at each position, as in gated norms of state space models:
    as many as the module tells by their number or size, or one; else what any of its numbers says, taken for either."""
    number, size = (getattr(module, name, None) for name in ("n_groups", "group_size"))
    told = (
        number if isinstance(number, int) else n_channels // size if isinstance(size, int) and size > 0 else 1
    )
    if told > 1 and not n_channels % told:
        return told, 1
    numbers = [n for n in vars(module).values() if type(n) is int and 1 < n < n_channels]
    either = (count for n in numbers[:MOST_NUMBERS] if not n_channels % n for count in (n, n_channels // n))
    return tuple(dict.fromkeys((1, *either)))
