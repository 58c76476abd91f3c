"""Rules about parts of a model that learn nothing while the rest does: teachers, frozen backbones, copies kept aside."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bnprobe.recording.names import said
from bnprobe.rules.edits import SetMode, remedy
from bnprobe.rules.remedies import is_function
from bnprobe.rules.rule import Evidence, Finding, Rule
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
    return unreached(evidence) & frozenset(layers["layer"][aside])


def following_batches(evidence: Evidence) -> frozenset[str]:
    """Those of them whose running statistics follow the batches."""
    layers = evidence.layers
    follow = (layers["memory_moved"] > 0) & layers["normalized_by"].isin(("batch", "both", "sample"))
    return unreached(evidence) & frozenset(layers["layer"][follow])


def moving_without_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Parts in train mode that learn nothing: one finding for each part as a whole."""
    found, layers = following_batches(evidence), evidence.layers
    reached = set(layers["layer"]) - unreached(evidence)
    parts: dict[str, list[str]] = {}
    for layer in (name for name in dict.fromkeys(layers["layer"]) if name in found):
        parts.setdefault(_largest_part(layer, reached), []).append(layer)
    for part, norms in parts.items():
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
        "eval mode, or a backward pass, in every part of a model that trains",
        moving_without_gradient,
        edits=(SetMode,),
    ),
)
