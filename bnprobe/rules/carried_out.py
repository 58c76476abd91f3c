"""Which rules' advice can be carried out on a model, by which edits; and why that of the others cannot.

Every rule is in one of both lists. A rule of the first may also give advice without an edit, where its tables do not say
what to do.
"""

from __future__ import annotations

from bnprobe.rules.edits import (
    CleanInputs,
    DivideStatistics,
    DropStatistics,
    Edit,
    Freeze,
    InFloat32,
    MoveBias,
    PlainBatchNorm,
    Recalibrate,
    RecalibrateOne,
    Reinitialize,
    Remove,
    Rescale,
    ResizeInputs,
    ScaleDown,
    SetAttribute,
    SetGamma,
    SetMode,
    SmoothInputs,
    Swap,
    TrackStatistics,
    UndoMap,
    UpdateOnce,
)

RENEWED = (Recalibrate, RecalibrateOne)

BY_EDITS: dict[str, tuple[type[Edit], ...]] = {
    # of the inputs
    "input-not-as-trained": (UndoMap,),
    "input-size": (ResizeInputs, SmoothInputs),
    "values-not-finite": (CleanInputs, InFloat32, Reinitialize),
    # of running statistics
    "data-shifted": (*RENEWED, DivideStatistics),
    "channels-shifted": RENEWED,
    "statistics-never-updated": RENEWED,
    "statistics-poisoned": RENEWED,
    "statistics-young": RENEWED,
    "statistics-scaled": RENEWED,
    "statistics-alike": RENEWED,
    "batches-differ": RENEWED,
    "statistics-not-updated": (TrackStatistics,),
    "instance-norm-stored": (DropStatistics,),
    "calls-differ": (DropStatistics,),
    "vectors-swapped": (Swap,),
    # of modes and settings
    "batch-normalized": (SetMode,),
    "train-mode-in-evaluation": (SetMode,),
    "frozen-but-moving": (SetMode,),
    "moving-without-gradient": (SetMode,),
    "learning-but-frozen": (Freeze,),
    "gradient-no-signal": (Freeze, Reinitialize),
    "momentum-odd": (SetAttribute, Recalibrate),
    "updated-twice": (UpdateOnce,),
    "sync-alone": (PlainBatchNorm,),
    "few-values": (SetAttribute, Freeze, Remove),
    "updates-below-step": (InFloat32,),
    "rows-zero": (InFloat32,),
    "layer-unread": (Remove,),
    # of weights and vectors
    "variance-below-eps": (SetAttribute, Rescale, *RENEWED),
    "half-overflow": (Rescale,),
    "bias-redundant": (MoveBias,),
    "channels-dead": (Reinitialize,),
    "channels-constant": (Reinitialize,),
    "channels-saturated": (Reinitialize,),
    "channels-silent": (Reinitialize,),
    "filters-decayed": (Reinitialize,),
    "branch-off": (SetGamma,),
    "gradient-breaks": (SetGamma,),
    "outlier-dimensions": (ScaleDown,),
}
"""The kinds of edits that each rule's findings may bring."""

TRAINING = "it takes steps of training, which are not made here"
BATCHES = "it is about how batches are made, before the model gets them"
ANOTHER_FILE = "it takes another file of weights"
CODE = "it takes other code of the model"
TWO_SIDES = "it is about two recordings, and one model is at hand"

BY_HAND: dict[str, str] = {
    "affine-untrained": TRAINING,
    "learning-in-eval": TRAINING,
    "batches-of-one-class": BATCHES,
    "batches-of-two-kinds": BATCHES,
    "samples-alike": BATCHES,
    "few-images": "it takes more samples",
    "tensors-empty": ANOTHER_FILE,
    "norm-folded": "it takes the model as it was before its norms were folded",
    "positions-as-channels": CODE,
    "future-leaks": CODE,
    "more-than-a-norm": CODE,
    "digits-lost": "it takes inputs with more digits than these have",
    "rows-constant": CODE,
    "outputs-saturated": CODE,
    "gradient-not-finite": "the operation to change has to be found first",
    "identity-violated": "nothing is wrong with the model as such",
    **dict.fromkeys(
        (
            "became-nonfinite",
            "changed-alike",
            "channels-silenced",
            "channels-unrelated",
            "frozen-statistics-moved",
            "inputs-differ",
            "layers-unmatched",
            "modes-disagree",
            "norm-replaced",
            "statistics-lost",
            "statistics-outdated",
            "tensors-differ",
            "tensors-unmatched",
        ),
        TWO_SIDES,
    ),
}
"""Why a rule's advice is not carried out."""
