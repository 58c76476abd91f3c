"""Rules about norms that gave no numbers: never called, not understood, or empty in the file."""

from __future__ import annotations

from collections.abc import Iterator

from bnprobe.recording.names import EMPTY, GATHER
from bnprobe.rules.alternatives import left_out, not_chosen
from bnprobe.rules.by_hand import ANOTHER_FILE
from bnprobe.rules.edits import Remove, remedy
from bnprobe.rules.remedies import RECALIBRATE, module
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.wording import count, first_few

ENTRIES = " (entries: "
"""Between the path of a norm in a file and what the file holds of it."""


def unread(evidence: Evidence) -> Iterator[Finding]:
    """Norm layers that were never called, and modules that look like one but are not understood."""
    others = left_out(evidence)
    if others:
        yield not_chosen(others)
    for part, layers in _uncalled(evidence, set(others)).items():
        yield _never_called(part, layers, evidence)
    for why, found in (("not understood", _not_understood), ("no norm", _no_norm)):
        named = list(evidence.unread["layer"][evidence.unread["why"] == why])
        incomplete = [layer for layer in named if ENTRIES in layer and ";" not in layer]
        yield from map(_incomplete, incomplete)
        named = [layer for layer in named if layer not in incomplete]
        by_class: dict[str, list[str]] = {}
        for layer in named:
            by_class.setdefault(layer.partition(" (")[2], []).append(layer)
        yield from map(found, by_class.values())


def _uncalled(evidence: Evidence, but: set[str]) -> dict[str, list[str]]:
    """The norms that were never called, `but` some: by the largest part of the model in which no norm was called, or by
    itself where that is only the norm."""
    reached = set(evidence.layers["layer"])
    parts: dict[str, list[str]] = {}
    for layer in map(str, evidence.unread["layer"][evidence.unread["why"] == "never called"]):
        if layer in but:
            continue
        names = layer.split(".")
        above = (".".join(names[:i]) for i in range(1, len(names)))
        part = next((p for p in above if not any(one.startswith(f"{p}.") for one in reached)), layer)
        parts.setdefault(part, []).append(layer)
    return parts


def _never_called(part: str, layers: list[str], evidence: Evidence) -> Finding:
    one = len(layers) == 1
    says = "This norm layer was never called" if one else "Norm layers of this part were never called"
    these = "" if one else f", {count(len(layers), 'norm')} of {part}"
    if functions := _functions(evidence):
        named = first_few(functions)
        return Finding(
            "info",
            layers[0],
            f"{says} as {'a module' if one else 'modules'}, but a functional norm may use {'its' if one else 'their'} γ and "
            "β.",
            f"no forward pass reached {'it' if one else 'them'} through model(...), but functional norms were called: "
            f"{named}{these}.",
            "Check whether one of them uses this module's γ and β; do not replace the module before you know. If nothing "
            "uses them, it can be left out.",
        )
    if part != layers[0] and _in_eval_mode(evidence):
        return Finding(
            "info",
            layers[0],
            f"No norm of {part} was called in eval mode.",
            f"no forward pass reached {count(len(layers), 'norm')} in it through model(...), and the model was in eval mode "
            "in all of them.",
            "Nothing, if this part is only for training, as auxiliary heads are. Otherwise check that it is used; a layer "
            "whose .forward is called directly is not recorded.",
        )
    return Finding(
        "warning",
        layers[0],
        f"{says}.",
        f"no forward pass reached {'it' if one else 'them'} through model(...){these}.",
        "Check that it is used: another norm may have taken its place. A layer whose .forward is called directly is "
        f"not recorded. If the network is meant to work without it: {_without(layers)}.",
        remedy=remedy(*map(Remove, layers)),
    )


def _in_eval_mode(evidence: Evidence) -> bool:
    """Whether there were passes, and the model was in eval mode in each of them."""
    layers = evidence.layers
    return bool((layers["n_calls"] > 0).any() and (layers["n_calls_model_training"] == 0).all())


def _without(layers: list[str]) -> str:
    """The code that puts identities in the place of norms."""
    if len(layers) == 1:
        return f'`model.set_submodule("{layers[0]}", torch.nn.Identity())`'
    return f"`[model.set_submodule(name, torch.nn.Identity()) for name in {layers}]`"


def _functions(evidence: Evidence) -> list[str]:
    """Sites of functional norms, which may have been given the vectors of any module."""
    layers = evidence.layers
    return list(layers["layer"][layers["class_name"].astype(str).str.startswith("F.")].unique())


def _not_understood(modules: list[str]) -> Finding:
    path = modules[0].partition(" (")[0]
    return Finding(
        "warning",
        modules[0],
        "This module is named like a norm but was not understood: it is missing from all tables.",
        f"its class is unknown, and its attributes do not say what it normalizes over{_of_class(modules)}.",
        f"Register it, here as an RMS norm over the last dimension: `bnprobe.register_norm(type({module(path)}), "
        'lambda m: bnprobe.NormLayer("rms_norm", "channels", m.scale.numel(), 1e-6, channels="last", '
        "centred=False, weight=m.scale))`.",
    )


def _incomplete(module: str) -> Finding:
    """A norm of a file, of which nothing but its vectors is known: not a class that could be registered."""
    path, _, entries = module.partition(ENTRIES)
    missing = next((name for name in ("running_mean", "running_var") if name not in entries), "")
    return Finding(
        "warning",
        path,
        f"This norm is incomplete: the file has no {missing} of it."
        if missing
        else "The vectors of this norm do not fit together: they have other numbers of channels.",
        f"the file holds {entries.removesuffix(')')}; nothing else is known of it, and it is missing from all tables.",
        "A model that is loaded with strict=False keeps its initial values where the file has none: a running mean of 0 or "
        "a running variance of 1, with which eval mode does not normalize. Save the state dict of the whole model again: "
        "`torch.save(model.state_dict(), path)`; or load it and re-estimate the running statistics: "
        f"{RECALIBRATE}.",
    )


def _no_norm(modules: list[str]) -> Finding:
    return Finding(
        "info",
        modules[0],
        "This module is named like a norm, but its output is not its normalized input: it is left out of all tables.",
        "at the first call no axes, and no groups of channels, were found along which normalizing the input gives the output"
        f"{_of_class(modules)}.",
        "Nothing, if it is meant to do something else, as global response normalization does. If it normalizes and does "
        "more, as with an activation inside, describe it with bnprobe.register_norm.",
    )


def _of_class(modules: list[str]) -> str:
    return f"; there are {len(modules)} of its class" if len(modules) > 1 else ""


def empty_tensors(evidence: Evidence) -> Iterator[Finding]:
    """Tensors of a checkpoint that sharded training left empty."""
    for named in evidence.unread["layer"][evidence.unread["why"] == "empty"]:
        layer, _, counted = str(named).removesuffix(f" {EMPTY}").rpartition(": ")
        yield Finding(
            "critical",
            layer,
            "Tensors of this file are empty: shards were not gathered before saving.",
            f"{counted} have no number, or one in place of many.",
            f"{GATHER}. What is said of the norms holds for those that are whole.",
        )


RULES = (
    Rule(
        "layer-unread",
        "Did every norm give numbers?",
        "https://github.com/pytorch/pytorch/issues/117925 (forward called directly); "
        "https://github.com/pytorch/pytorch/issues/37233 (fused modules)",
        "every norm called and understood",
        unread,
        edits=(Remove,),
    ),
    Rule(
        "tensors-empty",
        "Does the file hold all of its tensors?",
        "https://github.com/deepspeedai/DeepSpeed/issues/2413, https://github.com/huggingface/transformers/issues/20082",
        "a number or more in every parameter",
        empty_tensors,
        by_hand=ANOTHER_FILE,
    ),
)
