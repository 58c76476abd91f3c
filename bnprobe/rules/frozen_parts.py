"""Rules about parts of a model that learn nothing while the rest does: teachers, frozen backbones, copies kept aside."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bnprobe.recording.names import said
from bnprobe.rules.edits import SetMode, remedy
from bnprobe.rules.precision import HALVES
from bnprobe.rules.remedies import is_function
from bnprobe.rules.rule import Evidence, Finding, Rule, while_training
from bnprobe.rules.wording import count


def unreached(evidence: Evidence) -> frozenset[str]:
    """Layers that were called, and that no backward pass reached, while others learned."""
    layers = evidence.layers.groupby("layer", sort=False)
    back, calls = layers["n_backward"].sum(), layers["n_calls"].sum()
    return frozenset(back.index[(back == 0) & (calls > 0)]) if (back > 0).any() else frozenset()


def kept_aside(evidence: Evidence) -> frozenset[str]:
    """Those of them that are in eval mode while the model trains: put there on purpose, as a teacher is."""
    layers = evidence.layers
    aside = (layers["mode"] == "eval") & (layers["n_calls_model_training"] > 0)
    return unreached(evidence) & frozenset(layers["layer"][aside]) if aside.any() else frozenset()


def fed_by_training(evidence: Evidence, row: pd.Series) -> bool:
    """Whether what a norm is fed are augmented training samples: the model trains in each of its calls, or the norm is kept
    aside meanwhile, in a part that may be called by itself and without gradients."""
    return while_training(row) or row["layer"] in kept_aside(evidence)


def following_batches(evidence: Evidence) -> frozenset[str]:
    """Those of them whose running statistics follow the batches."""
    layers = evidence.layers
    follow = (layers["memory_moved"] > 0) & layers["normalized_by"].isin(("batch", "both", "sample"))
    return unreached(evidence) & frozenset(layers["layer"][follow])


FEWEST_STEPS = 3
"""Backward passes from which a norm that no step changed is left out: the first steps may have a learning rate of 0."""


def without_steps(evidence: Evidence) -> frozenset[str]:
    """Layers in train mode that a gradient reaches, and that no step changed, while steps changed other parameters."""
    layers, channels = evidence.layers, evidence.channels
    arrives = set(channels["layer"][(channels["grad_gamma"].abs() > 0) | (channels["grad_beta"].abs() > 0)])
    left_out = (
        (layers["stepped"] == 0)
        & (layers["n_backward"] >= FEWEST_STEPS)
        & layers["learns"].isin(("both", "γ", "β"))
        & (layers["memory_moved"] > 0)
        & layers["normalized_by"].isin(("batch", "both"))
        & ~layers["parameter_dtype"].isin(HALVES)  # whose updates may be too small to be stored
    )
    return frozenset(layers["layer"][left_out]) & arrives


def moving_without_learning(evidence: Evidence) -> Iterator[Finding]:
    """Parts in train mode that learn nothing: one finding for each part as a whole."""
    yield from _moving_without_gradient(evidence)
    yield from _moving_without_steps(evidence)


def _by_part(evidence: Evidence, found: frozenset[str], like: frozenset[str]) -> dict[str, list[str]]:
    """The layers that were found by the largest part of the model whose norms are all `like` them."""
    names = list(dict.fromkeys(evidence.layers["layer"]))
    parts: dict[str, list[str]] = {}
    for layer in (name for name in names if name in found):
        parts.setdefault(_largest_part(layer, set(names) - like), []).append(layer)
    return parts


def _moving_without_steps(evidence: Evidence) -> Iterator[Finding]:
    """Parts that get gradients and are not in the optimizer."""
    found, layers = without_steps(evidence), evidence.layers
    for part, norms in _by_part(evidence, found, found).items():
        mine = layers[layers["layer"].isin(norms)]
        whole = said(part) if part in norms else f"{part}.*"
        yield Finding(
            "warning",
            norms[0],
            f"{whole} is in train mode, but no step changes it: its running statistics follow these batches while it learns "
            "nothing, so its outputs in eval mode change.",
            f"γ and β of {count(len(norms), 'norm')} were the same after up to {int(mine['n_backward'].max())} backward "
            "passes, in which other parameters of the model changed; the running means moved by up to "
            f"{mine['memory_moved'].max():.2g} running σ{_updates(mine)}.",
            "If it is meant to learn, give its parameters to the optimizer, with a learning rate above 0. If it is meant to "
            f"stay as it is, put it into eval mode, after every model.train(): {_to_eval(part)}, and "
            "requires_grad_(False) saves its gradients.",
            remedy=remedy(SetMode(part, training=False)),
        )


def _moving_without_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Parts that no backward pass reaches."""
    found, layers = following_batches(evidence), evidence.layers
    for part, norms in _by_part(evidence, found, unreached(evidence)).items():
        mine = layers[layers["layer"].isin(norms)]
        whole = said(part) if part in norms else f"{part}.*"
        yield Finding(
            "warning",
            norms[0],
            f"{whole} is in train mode without a gradient: its running statistics follow these "
            "batches while it learns nothing, so its outputs in eval mode change.",
            f"the running means of {count(len(norms), 'norm')} moved by up to {mine['memory_moved'].max():.2g} running σ"
            f"{_updates(mine)}; no backward pass reached {'it' if len(norms) == 1 else 'them'}, while other norms had up to "
            f"{int(layers['n_backward'].max())}.",
            f"A teacher or a frozen part needs eval mode, after every model.train(): {_to_eval(part)}. If it is meant to "
            "learn, look for torch.no_grad(), detach() or an output that the loss does not use.",
            remedy=remedy(SetMode(part, training=False)),
        )


def _largest_part(layer: str, reached: set[str]) -> str:
    """The path of the largest module around this layer in which no norm had a gradient."""
    names = layer.split(".")
    around = (".".join(names[:n]) for n in range(1, len(names)))
    return next((part for part in around if not any(_is_in(other, part) for other in reached)), layer)


def _is_in(layer: str, part: str) -> bool:
    return layer.startswith(f"{part}.")


def _updates(rows: pd.DataFrame) -> str:
    n = rows["n_updates"].max()
    return f" in {count(n, 'update')}" if n > 0 else ""


def _to_eval(part: str) -> str:
    if is_function(part):
        return "pass training=False to the function"
    return f"`model.{part}.eval()`" if part.isidentifier() else f'`model.get_submodule("{part}").eval()`'


RULES = (
    Rule(
        "moving-without-gradient",
        "Do the running statistics of parts that learn nothing stay fixed?",
        "https://github.com/pytorch/pytorch/issues/86590; Tarvainen & Valpola 2017, arXiv:1703.01780 (teachers)",
        "eval mode, or a backward pass and steps that change γ or β, in every part of a model that trains",
        moving_without_learning,
        edits=(SetMode,),
        of_calls=True,
    ),
)
