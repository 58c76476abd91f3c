"""Norms that are function calls: those of torch.nn.functional, intercepted while a probe is attached.

Such a call passes no module's hook. While somebody listens, the code of the five functions is replaced by
one that asks the listeners first and then runs the original; with the last listener the original comes back.
Why the code, and not the name in torch.nn.functional: `from torch.nn.functional import layer_norm` would miss
a new name, and whoever asks which function is called (tensor subclasses, torch.fx) would find another one.
File and line stay those of torch's source, which the compiler of TorchScript reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from types import CodeType, FunctionType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from bnprobe.errors import BnprobeError
from bnprobe.norms.layer import LAST, NormLayer
from bnprobe.recording import BATCH, CHANNELS, GROUP, INSTANCE


class Listener(Protocol):
    """What is informed of functional norms."""

    def function_called(self, name: str, args: tuple[Any, ...]) -> Callable[[Any], None] | None:
        """Called before the function with its arguments; the returned function, if any, is called with the output."""


def _with_running_statistics(
    kind: str,
    pools: str,
    x: Tensor,
    mean: Any,
    var: Any,
    weight: Any,
    bias: Any,
    own: bool,
    momentum: Any,
    eps: float,
) -> NormLayer:
    """Batch and instance norm take the same arguments; `own` is whether they use statistics of their input."""
    return NormLayer(
        kind=kind,
        pools=pools,
        n_channels=x.shape[1],
        eps=eps,
        weight=_kept(weight),
        bias=_kept(bias),
        running_mean=_kept(mean),
        running_var=_kept(var),
        momentum=momentum,
        uses_running=not own,
    )


def _group_norm(x: Tensor, n_groups: int, weight: Any, bias: Any, eps: float) -> NormLayer:
    weight, bias = _kept(weight), _kept(bias)
    return NormLayer("group_norm", GROUP, x.shape[1], eps, n_groups=n_groups, weight=weight, bias=bias)


def _layer_norm(x: Tensor, shape: Any, weight: Any, bias: Any, eps: float) -> NormLayer:
    return _over_channels("layer_norm", shape, eps, weight, bias, centred=True)


def _rms_norm(x: Tensor, shape: Any, weight: Any, eps: float | None) -> NormLayer:
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _over_channels("rms_norm", shape, eps, weight, None, centred=False)


def _over_channels(kind: str, shape: Any, eps: float, weight: Any, bias: Any, centred: bool) -> NormLayer:
    return NormLayer(
        kind=kind,
        pools=CHANNELS,
        n_channels=torch.Size(shape).numel(),
        channels=LAST,
        n_channel_dims=len(shape),
        eps=eps,
        weight=_kept(weight),
        bias=_kept(bias),
        centred=centred,
    )


def _kept(tensor: Tensor | None) -> Tensor | None:
    """A vector that a site may keep: one computed for this call must not keep its graph alive."""
    return tensor if tensor is None or tensor.is_leaf else tensor.detach()


PLANS: dict[str, Callable[..., NormLayer]] = {
    "batch_norm": partial(_with_running_statistics, "batch_norm", BATCH),
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "instance_norm": partial(_with_running_statistics, "instance_norm", INSTANCE),
    "rms_norm": _rms_norm,
}
"""From the arguments of a call to the plan of the norm."""


def plan_of(name: str, args: tuple[Any, ...]) -> NormLayer | None:
    """The plan of a functional norm with these arguments; None where torch itself will refuse them."""
    if not isinstance(args[0], Tensor):
        return None
    try:
        return PLANS[name](*args)
    except (BnprobeError, AttributeError, IndexError, TypeError, ValueError, RuntimeError):
        return None


# What runs in place of torch's code, with the original's arguments and defaults. The import stands inside
# because the code runs among the names of torch.nn.functional.


def _new_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps):  # type: ignore[no-untyped-def]
    from bnprobe.norms.functional import called

    return called("batch_norm", (input, running_mean, running_var, weight, bias, training, momentum, eps))


def _new_layer_norm(input, normalized_shape, weight, bias, eps):  # type: ignore[no-untyped-def]
    from bnprobe.norms.functional import called

    return called("layer_norm", (input, normalized_shape, weight, bias, eps))


def _new_group_norm(input, num_groups, weight, bias, eps):  # type: ignore[no-untyped-def]
    from bnprobe.norms.functional import called

    return called("group_norm", (input, num_groups, weight, bias, eps))


def _new_instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps):  # type: ignore[no-untyped-def]
    from bnprobe.norms.functional import called

    args = (input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return called("instance_norm", args)


def _new_rms_norm(input, normalized_shape, weight, eps):  # type: ignore[no-untyped-def]
    from bnprobe.norms.functional import called

    return called("rms_norm", (input, normalized_shape, weight, eps))


NEW = (_new_batch_norm, _new_layer_norm, _new_group_norm, _new_instance_norm, _new_rms_norm)

_lock = threading.RLock()  # a probe may be collected, and its listener leave, while another one comes
_listeners: tuple[Listener, ...] = ()
_originals: dict[str, Callable[..., Any]] = {}
"""The five original functions; filled while there are listeners."""
_codes: dict[str, tuple[CodeType, CodeType]] = {}
"""Their code before and after, restored only if nobody else has changed it since."""


def listen(listener: Listener) -> None:
    """Inform `listener` of every functional norm of this process until `leave`."""
    global _listeners
    with _lock:
        if not _listeners:
            for new in NEW:
                _replace(new.__name__.removeprefix("_new_"), new.__code__)
        _listeners = (*_listeners, listener)


def leave(listener: Listener) -> None:
    """Stop; with the last listener torch's functions are restored."""
    global _listeners
    with _lock:
        _listeners = tuple(other for other in _listeners if other is not listener)
        if _listeners:
            return
        for name, (original, ours) in _codes.items():
            function = getattr(F, name)
            if function.__code__ is ours:
                function.__code__ = original
        _codes.clear()


def _replace(name: str, ours: CodeType) -> None:
    """Run our code in place of torch's, if the function still takes the arguments known here."""
    function = getattr(F, name, None)
    if not isinstance(function, FunctionType):
        return
    original = function.__code__
    if original.co_varnames[: original.co_argcount] != ours.co_varnames[: ours.co_argcount]:
        return
    copied = FunctionType(original, function.__globals__, name, function.__defaults__)
    ours = ours.replace(
        co_filename=original.co_filename, co_firstlineno=original.co_firstlineno, co_name=name
    )
    _originals[name], _codes[name] = copied, (original, ours)
    function.__code__ = ours


def called(name: str, args: tuple[Any, ...]) -> Any:
    """Call the functional norm `name` with these arguments, and inform the listeners."""
    original = _originals[name]
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return original(*args)
    finishes = []
    for listener in _listeners:  # not a comprehension, which is a frame of its own in some versions of Python
        finish = listener.function_called(name, args)
        if finish is not None:
            finishes.append(finish)
    y = original(*args)
    for finish in finishes:
        finish(y)
    return y
