"""Rules about samples that come in groups: an instance norm that stores statistics, and batches of one kind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import SHIFTED
from bnprobe.rules.by_hand import BATCHES
from bnprobe.rules.edits import DropStatistics, remedy
from bnprobe.rules.remedies import module
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.rules.wording import count


def stored_in_instance_norms(evidence: Evidence) -> Iterator[Finding]:
    """Instance norms that keep running statistics, of samples that differ: eval mode is another function than train mode."""
    limit = evidence.limits.samples_apart
    for row, channels in evidence.sites:
        if row["kind"] != "instance_norm" or channels["running_var"].isna().all() or row["call"]:
            continue
        apart = _samples_apart(channels, row["eps"])
        if not apart > limit:
            continue
        uses = row["normalized_by"] in ("running", "both")
        yield Finding(
            "warning",
            row["layer"],
            "This instance norm replaces each sample's own statistics by stored ones"
            + (", and the samples differ." if uses else " in eval mode, and the samples differ."),
            f"track_running_stats=True; the means of samples are {apart:.2g} times as far apart as values within a sample "
            f"(typical channel, threshold {limit:g}). Train mode takes that out of each sample, eval mode does not.",
            "If the model was trained in train mode, let eval mode do the same, which changes its results: "
            f"`n = {module(row['layer'])}; n.running_mean = n.running_var = None; n.track_running_stats = False`.",
            call=row["call"],
            remedy=remedy(DropStatistics(row["layer"])),
        )


def _samples_apart(channels: pd.DataFrame, eps: float) -> float:
    """Standard deviation of the samples' means relative to that within a sample; of the typical channel."""
    with np.errstate(all="ignore"):
        within = channels["scale_ratio"] ** 2 * (channels["running_var"] + eps)
        return float(np.sqrt((channels["pre_var"] / within - 1).clip(lower=0)).median())


def batches_of_one_kind(evidence: Evidence) -> Iterator[Finding]:
    """Batch statistics of batches that each hold samples of one kind, by labels where there are any."""
    norms = evidence.layers[evidence.layers["normalized_by"].isin(("batch", "both"))]
    norms = norms[norms["kind"] == "batch_norm"]
    single, ordered = (
        norms[[applies(row) for _, row in norms.iterrows()]] for applies in (_of_one_class, _in_order)
    )
    found = ordered if single.empty else single
    if found.empty:
        return
    first = found.iloc[0]
    says, because = (
        ("Batches come in the order of their classes", _had_next(first))
        if single.empty
        else ("Each batch holds samples of one class", _had_one(first))
    )
    yield Finding(
        "warning",
        first["layer"],
        f"{says}: batch statistics take the difference between classes away, and the running statistics hold that of the "
        "last batches.",
        f"{because}, of {first['n_classes']:.0f} classes in all; "
        f"{count(found['layer'].nunique(), 'batch norm')} normalized with such batches.",
        "Shuffle: `loader = torch.utils.data.DataLoader(loader.dataset, loader.batch_size, shuffle=True)`, and train "
        "again.",
        call=first["call"],
    )


MOST = 0.9
"""Share of the batches with labels that hold one class each."""

FEWEST_BATCHES = 4
"""Batches with labels from which there is a pattern: of two classes, two batches of one each may be chance or intended."""


FEWEST_SAMPLES = 4
"""Samples of a batch from which its labels are hardly in order by chance."""


def _of_one_class(row: pd.Series) -> bool:
    """Whether nearly every batch has one class, while there are several."""
    return _has_classes(row) and bool(row["n_calls_one_class"] >= MOST * row["n_calls_labeled"])


def _in_order(row: pd.Series) -> bool:
    """Whether nearly every batch goes on with the classes where the one before ended, as a folder that is read in order."""
    labeled, pairs = row["n_calls_labeled"], row["n_calls_labeled"] - 1
    enough = pairs >= FEWEST_BATCHES and row["n_images"] >= FEWEST_SAMPLES * labeled
    return _has_classes(row) and bool(enough and row["n_calls_in_order"] >= MOST * pairs)


def _has_classes(row: pd.Series) -> bool:
    """Whether there are several classes, and batches enough."""
    return bool(row["n_calls_labeled"] >= FEWEST_BATCHES and row["n_classes"] >= 2)


def _had_one(row: pd.Series) -> str:
    return f"{count(row['n_calls_one_class'], 'batch')} of {row['n_calls_labeled']:,.0f} with labels had a single class"


def _had_next(row: pd.Series) -> str:
    return (
        f"{count(row['n_calls_in_order'], 'batch')} of {row['n_calls_labeled']:,.0f} with labels had no class that comes "
        "before the last of the batch before"
    )


def two_kinds(evidence: Evidence) -> Iterator[Finding]:
    """Batches of two kinds that take turns, each normalized by its own statistics: real and generated, source and target."""
    limit = evidence.limits.kinds_apart
    found = evidence.layers[evidence.layers["kinds_apart"] > limit]
    if found.empty:
        return
    first = found.iloc[0]
    yield Finding(
        "info",  # meant where real and generated images are kept apart
        first["layer"],
        "Batches of two kinds take turns here, and each kind is normalized by its own statistics.",
        f"the means of {count(first['n_calls'], 'batch')} fall into two groups that are {first['kinds_apart']:.2g} standard "
        f"deviations apart (root mean square over channels, threshold {limit:g}), while batches of a group lie within "
        f"{first['kinds_spread']:.2g}; so it is at {count(found['layer'].nunique(), 'batch norm')}.",
        "In train mode this takes the difference between the kinds out; eval mode normalizes both by one set of running "
        "statistics, that of the mixture. A discriminator that sees real and generated images in batches of their own does "
        "this on purpose. If both kinds, such as source and target domain, are to be distinguished or treated alike in eval "
        "mode, put both into each batch, or keep a norm for each, and retrain.",
        call=first["call"],
    )


def batches_of_their_own(evidence: Evidence) -> Iterator[Finding]:
    """Batches that each hold samples of one place, film or person, and are normalized by what these have in common."""
    layers, limit = evidence.layers, evidence.limits.batches_apart
    learns = (layers["kind"] == "batch_norm") & (layers["n_calls_learning"] > 0)
    found = layers[learns & (layers["batches_apart"] > limit) & layers["kinds_apart"].isna()]
    if found.empty:
        return
    row = found.iloc[0]
    yield Finding(
        "warning",
        row["layer"],
        "Samples of one batch are alike while the model learns: batch statistics take away what a batch has in common, and "
        "eval mode does not.",
        f"the mean of a batch lies {row['batches_apart']:.2g} standard deviations within a batch from that of the batch "
        f"before (root mean square over channels, beyond chance; threshold {limit:g}), in {count(row['n_calls'], 'batch')}; "
        f"so it is at {count(found['layer'].nunique(), 'batch norm')}.",
        "If each batch holds one film, place, person or class, mix them: "
        "`loader = torch.utils.data.DataLoader(loader.dataset, loader.batch_size, shuffle=True)`, and train again. Where "
        "samples must stay together, use GroupNorm, or freeze the norms on running statistics of mixed batches.",
        call=row["call"],
    )


def samples_alike(evidence: Evidence) -> Iterator[Finding]:
    """Batches that differ more than batches of independent samples do, where that shows most; and data of one class."""
    yield from _one_class(evidence.layers)
    layers, limit = evidence.layers, evidence.limits.samples_alike
    # while weights move, batches differ because of that
    learns = (layers["n_calls_learning"] > 0) & (layers["mode"] != "eval")
    found = layers[~learns & (layers["batch_effect_least"] >= limit)]
    if found.empty:
        return
    row = found.iloc[int(found["batch_effect_least"].argmax())]
    by_folds = (found["error_from"] == "folds").all()
    yield Finding(
        "info" if by_folds else "warning",  # copies may be meant, as in Monte-Carlo dropout
        row["layer"],
        f"Samples of one batch are alike: {count(row['n_images'], 'sample')} are worth about {row['n_effective']:,.0f} "
        "independent ones.",
        f"the means of {count(row['n_calls'], 'batch')} have {row['batch_effect']:.2g} times the variance that those of "
        f"independent samples would have, at least {row['batch_effect_least']:.2g} times (99.9%, threshold {limit:g}). "
        + (
            "Standard errors allow for that."
            if by_folds
            else "Standard errors do not allow for that: batches are too few."
        ),
        "If the data are in order, of classes or of time, shuffle them: "
        "`loader = torch.utils.data.DataLoader(loader.dataset, loader.batch_size, shuffle=True)`. If samples are copies of "
        "one photo or frames of one film, record one of each.",
        call=row["call"],
    )


def _one_class(layers: pd.DataFrame) -> Iterator[Finding]:
    """Labels that are all of one class, where norms compare the data with stored statistics."""
    found = layers[(layers["normalized_by"] == "running") & (layers["n_classes"] == 1)]
    found = found[found["n_calls_one_class"] == found["n_calls"]]
    if found.empty:
        return
    row = found.iloc[0]
    yield Finding(
        "warning" if found["verdict"].isin(SHIFTED).any() else "info",
        row["layer"],
        "All samples are of one class: what differs from the running statistics may be that class, and not the data.",
        f"{count(row['n_calls'], 'batch')} with labels, of one class in all.",
        "Record samples of all classes: "
        "`loader = torch.utils.data.DataLoader(loader.dataset, loader.batch_size, shuffle=True)`.",
        call=row["call"],
    )


def alike(evidence: Evidence) -> Iterator[Finding]:
    """Samples that are copies of one, and batches whose samples resemble each other."""
    yield from copies(evidence)
    yield from same_batches(evidence)
    yield from batches_of_their_own(evidence)
    yield from samples_alike(evidence)


def same_batches(evidence: Evidence) -> Iterator[Finding]:
    """Batches that were recorded more than once, as the first norm shows; a note, since it may be meant."""
    if evidence.layers.empty:
        return
    row = evidence.layers.iloc[0]
    n, different = row["batches_recorded"], row["batches_different"]
    if not different < n:
        return
    yield Finding(
        "info",
        row["layer"],
        f"The same samples were recorded more than once: of {count(n, 'batch')} only {different:,.0f} "
        f"{'is' if different == 1 else 'are'} different.",
        f"the other {n - different:,.0f} {'has' if n - different == 1 else 'have'} the means and mean squares of one of "
        f"these in every channel, to 9 digits. Errors count {different / n:.0%} of the {row['n_images']:,.0f} samples.",
        "If this is not meant, as for Monte-Carlo dropout, look at what makes the batches: an iterator that is made again "
        "for each batch, next(iter(loader)), gives the first one each time.",
        call=row["call"],
    )


SAME_SAMPLES = (
    "[print(i, [(int(k), float(v)) for k, v in zip(n, one.flatten(1).std(1)) if k > 1]) for i, (x, y) in enumerate(batches) "
    "for one, n in [x.unique(dim=0, return_counts=True)] if len(one) < len(x)]"
)
"""Code that prints for each batch how often each sample that is there more than once is, and its std."""

WITHOUT_COPIES = (
    "batches = [(x[kept], y[kept]) for x, y in batches "
    "for _, of, n in [x.unique(dim=0, return_inverse=True, return_counts=True)] for kept in [n[of] == 1]]"
)
"""Code that leaves out all samples that are in their batch more than once."""


def copies(evidence: Evidence) -> Iterator[Finding]:
    """One sample many times in the first batch, among others: files that could not be read, or a loader's mistake."""
    limit = evidence.limits.same_samples
    found = evidence.layers[evidence.layers["same_samples"] >= limit]
    # all of them equal are a pass of zeros, or one sample as it is meant; all of them in groups are repetitions
    found = found[found["repeated_samples"] < 1]
    if found.empty:
        return
    row = found.iloc[0]
    yield Finding(
        "warning",
        row["layer"],
        "Many samples of the first batch are one and the same, to the last digit.",
        f"{row['same_samples']:.0%} of them (threshold {limit:.0%}), while others differ.",
        f"See which, and whether they are blank, with a std of 0: `{SAME_SAMPLES}`. Files that could not be read and were "
        "replaced by a constant image, crops of empty background, or a loader that returns one sample for many indices do "
        "this. They count in every mean and variance, of training and here: leave them out, "
        f"`{WITHOUT_COPIES}`, which changes the results of training.",
        call=row["call"],
    )


RULES = (
    Rule(
        "instance-norm-stored",
        "Does every instance norm use each sample's own statistics?",
        "Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022",
        f"no running statistics, or samples whose means lie less than {DEFAULT.samples_apart:g} standard deviations apart",
        stored_in_instance_norms,
        edits=(DropStatistics,),
        of_calls=True,
    ),
    Rule(
        "batches-of-one-class",
        "Are batches that normalize themselves mixed?",
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 4.2.1 (shuffle more thoroughly)",
        "batches of several classes, running statistics in use, or no labels",
        batches_of_one_kind,
        by_hand=BATCHES,
        of_calls=True,
    ),
    Rule(
        "batches-of-two-kinds",
        "Do batches that normalize themselves all hold the same kind of data?",
        "https://github.com/soumith/ganhacks/issues/52, https://github.com/scikit-adaptation/skada/issues/252; "
        "Li et al. 2016, arXiv:1603.04779",
        f"means of batches that do not fall into two groups that take turns, at least {DEFAULT.kinds_apart:g} standard "
        "deviations apart",
        two_kinds,
        by_hand=BATCHES,
        of_calls=True,
    ),
    Rule(
        "samples-alike",
        "Are the samples independent?",
        "Kish 1965, Survey Sampling: design effect",
        f"means of batches with less than {DEFAULT.samples_alike:g} times the variance that independent samples give them, "
        f"within {DEFAULT.batches_apart:g} standard deviations of the batch before while the model learns, "
        f"and less than {DEFAULT.same_samples:.0%} of the samples of the first batch one and the same",
        alike,
        by_hand=BATCHES,
        of_calls=True,
    ),
)
