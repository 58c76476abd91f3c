"""New running statistics for a trained model from a sample of data, planned before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from glob import escape
from typing import Any

import numpy as np
import torch
from torch import nn

from bnprobe.errors import BnprobeError, NothingRecorded, class_name
from bnprobe.experiments.held_vectors import demand_one_device
from bnprobe.experiments.mixing import Mixture, pooled
from bnprobe.experiments.plan import PRECISE, Plan, Renewal
from bnprobe.experiments.put_back import in_eval_mode, put_back, write
from bnprobe.experiments.run import Batches, Call, run
from bnprobe.experiments.stored_norms import StoredNorm, stored_norms
from bnprobe.probe import attach
from bnprobe.probe.calls.vectors import vector_of
from bnprobe.probe.labels import LabelsOfBatches
from bnprobe.recording import Recording
from bnprobe.recording.layer_record import LayerRecord

MEAN, VAR = "mean", "var"

ONE_PASS = "one pass, each norm normalizing with the statistics of its batch, as in training; then pooled over all batches"
LAYER_BY_LAYER = "layer after layer: each norm sees what the norms renewed before it give"
OF_RECORDING = "from the moments of a recording"


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any] | Recording,
    *,
    what: str | Sequence[str] = (MEAN, VAR),
    alpha: float = 1.0,
    prior: float | None = None,
    layers: str | Sequence[str] | None = None,
    call: Call | None = None,
    layer_by_layer: bool = False,
) -> Plan:
    """Plan new running statistics for a trained model; nothing is written before `Plan.apply`.

    Known as precise BN, re-estimating BN statistics, `update_bn` after weight averaging, AdaBN, BN adaptation,
    alpha-BN, and REPAIR. Whether it helps depends on the data: it can lower the accuracy on data like those of
    training. So look at `Plan.preview` on other samples first.

    The statistics are exact: the variance is that of all values together, which includes the variance of the batch
    means. (`torch.optim.swa_utils.update_bn` with momentum=None averages the variances of the batches and leaves that
    part out.) Only norms that store statistics and are not frozen change; dropout is off, and modes, gradients, counters
    and random state are as before.

    Args:
        model: Any `torch.nn.Module` with batch norms (or instance norms) that store running statistics.
        batches: A loader or list of batches, as for `bnprobe.record`, read once; targets are not needed. Or a
            `Recording` of this model in train mode, whose moments are used without a pass.
        what: "mean", "var" or both.
        alpha: Weight of the new statistics, 0 to 1. The variance of a mixture contains alpha (1 - alpha) times the
            squared difference of the means.
        prior: Instead of alpha: the number of samples N that the stored statistics count for; alpha = n / (n + N).
        layers: Shell-style pattern or patterns of the paths of norms to renew. None renews all.
        call: Function of (model, batch) that runs one batch and returns the output, where `model(x)` does not.
        layer_by_layer: Renew norm after norm in the order of execution, each from a pass of its own in eval mode, so
            that it is given what the renewed ones before it give: as many passes as norms, and exact for any batch size.
            In one pass each norm is given what batch statistics give. A module that is used several times is renewed
            once.

    Returns:
        The plan.

    Raises:
        NoNormLayers: No norm stores statistics, all are frozen, or none matches `layers`.
        NothingRecorded: There were no samples.
        BnprobeError: An argument is out of range, batches cannot be read as often as needed, a batch is too small for
            batch statistics, the model lies on several devices and `call` does not say how it runs, or a recording does
            not belong to the model.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4)).eval()
        >>> plan = bnprobe.recalibrate(model, [torch.randn(64, 6) for _ in range(8)], prior=512)
        >>> plan
        Plan(1 norm from 512 samples, not applied)
        >>> plan.apply().undo()
        Plan(1 norm from 512 samples, not applied)
    """
    if not isinstance(model, nn.Module):
        raise BnprobeError(
            f"recalibrate needs a torch.nn.Module, got {class_name(model)}. Pass the model itself."
        )
    _demand_weight(alpha, prior)
    mixture = Mixture(_what(what), alpha, prior)
    norms = stored_norms(model, layers)
    if isinstance(batches, Recording):
        return _from_recording(model, norms, batches, mixture, call)
    if call is None:  # which may move batches as the model wants them
        demand_one_device(model)
    seen = Batches(model, batches, "renewing", len(norms) + 1 if layer_by_layer else 1)
    with put_back(model), torch.no_grad():
        in_eval_mode(model)
        if layer_by_layer:
            renewals, records = _one_by_one(model, norms, seen, mixture, call)
        else:
            for norm in norms.values():
                norm.module.training = True
            records = _records(_observed(model, list(norms), seen, call))
            renewals = _renewals(norms, records, mixture)
    return Plan(
        model=model,
        renewals=renewals,
        how=LAYER_BY_LAYER if layer_by_layer else ONE_PASS,
        n_samples=seen.n_samples,
        call=call,
        notes=(*_one_class(records), *_imprecise(renewals)),
        fitted=frozenset(seen.samples),
    )


def output_of(model: nn.Module, batch: Any) -> Any:
    """The model's output for one batch, in eval mode; the model is as it was."""
    with put_back(model), torch.no_grad():
        in_eval_mode(model)
        return run(model, next(iter(Batches(model, [batch], "looking"))), None)


def _what(what: str | Sequence[str]) -> tuple[str, ...]:
    found = (what,) if isinstance(what, str) else tuple(what)
    if not found or not set(found) <= {MEAN, VAR}:
        raise BnprobeError(
            f"what={what!r} is not 'mean', 'var' or both. Pass for example what=('mean', 'var')."
        )
    return found


def _demand_weight(alpha: float, prior: float | None) -> None:
    for name, value, low, high in (
        ("alpha", alpha, 0, 1),
        ("prior", 0 if prior is None else prior, 0, np.inf),
    ):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high or value == np.inf:
            wanted = "a number from 0 to 1" if name == "alpha" else "a number of samples, 0 or more"
            raise BnprobeError(
                f"{name}={value!r} is not {wanted}. Leave it out for the new statistics alone."
            )
    if prior is not None and alpha != 1:
        raise BnprobeError(f"alpha={alpha} and prior={prior} are two ways to say the same. Pass one of them.")


def _observed(model: nn.Module, paths: list[str], batches: Batches, call: Call | None) -> Recording:
    """Record what these norms are given, by class where batches bring labels and the model is called as it is."""
    labels = LabelsOfBatches()
    with attach(model, layers=[escape(path) for path in paths], histograms=False, gradients=False) as probe:
        for batch in batches:
            by_class = None if call is not None else labels.of(batch)
            try:
                with nullcontext() if by_class is None else probe.labels(by_class):
                    run(model, batch, call)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise BnprobeError(
                    f"a batch is too small for batch statistics ({error}). Give larger batches (drop_last=True leaves "
                    "out a last, small one), or pass layer_by_layer=True, which needs no batch statistics."
                ) from error
    return probe.recording


def _records(recording: Recording) -> dict[str, list[LayerRecord]]:
    """The records of every norm that saw values, at each of its calls, in the order of execution."""
    found: dict[str, list[LayerRecord]] = {}
    for record in recording.layers:
        if record.pre.n.any():
            found.setdefault(record.layer, []).append(record)
    return found


def _renewals(
    norms: dict[str, StoredNorm], records: dict[str, list[LayerRecord]], mixture: Mixture
) -> dict[str, Renewal]:
    """In the order of execution; norms that saw nothing are left out."""
    renewals = {path: _renewal(norms[path], records[path], mixture) for path in records if path in norms}
    if not renewals:
        raise NothingRecorded(
            "no norm with running statistics saw a finite value. Check that the batches reach the norms, and what they hold."
        )
    return renewals


def _renewal(norm: StoredNorm, records: list[LayerRecord], mixture: Mixture) -> Renewal:
    n_samples = float(records[0].n_images)
    images = records[0].pre_images
    error = mixture.weight(n_samples) * np.sqrt(images.var_between / np.maximum(images.n, 1))
    return Renewal(
        norm=norm,
        new=norm.rounded(mixture.of(norm.statistics, pooled(records), n_samples)),
        n_samples=n_samples,
        n_values=float(np.median(sum(record.pre.n for record in records))),
        mean_error=error if MEAN in mixture.what else np.zeros_like(error),
    )


def _one_by_one(
    model: nn.Module,
    norms: dict[str, StoredNorm],
    batches: Batches,
    mixture: Mixture,
    call: Call | None,
) -> tuple[dict[str, Renewal], dict[str, list[LayerRecord]]]:
    """A pass for the order of execution, and one for each norm, with all before it renewed."""
    renewals: dict[str, Renewal] = {}
    records = _records(_observed(model, list(norms), batches, call))
    for path in records:
        renewals |= _renewals(norms, _records(_observed(model, [path], batches, call)), mixture)
        norm, (mean, var) = norms[path], renewals[path].new
        write(norm.mean, mean)
        write(norm.var, var)
    return renewals, records


def _from_recording(
    model: nn.Module,
    norms: dict[str, StoredNorm],
    recording: Recording,
    mixture: Mixture,
    call: Call | None,
) -> Plan:
    records = _records(recording)
    for path in records.keys() & norms.keys():
        _demand_same_weights(norms[path], records[path][0])
    renewals = _renewals(norms, records, mixture)
    stored = [path for path in renewals if records[path][0].n_calls_running]
    notes = [*_one_class(records), *_imprecise(renewals)]
    if stored and len(renewals) > 1:
        notes.append(
            "The recording was made in eval mode: every norm was given what the old statistics before it give, so "
            "only the first norm's new statistics are those it will need. Pass the batches instead of the recording."
        )
    return Plan(
        model=model,
        renewals=renewals,
        how=OF_RECORDING,
        n_samples=recording.about.n_images,
        call=call,
        notes=tuple(notes),
    )


def _demand_same_weights(norm: StoredNorm, record: LayerRecord) -> None:
    """Raises BnprobeError where a recording was made with other weights."""
    now = vector_of(norm.layer.weight, norm.layer.weight_offset)
    if record.n_channels != len(norm.statistics.mean) or (
        now is not None and record.gamma is not None and not np.array_equal(now, record.gamma, equal_nan=True)
    ):
        raise BnprobeError(
            f"the recording does not belong to this model: {norm.path} has other weights. Record this model, or pass "
            "batches."
        )


def _imprecise(renewals: dict[str, Renewal]) -> list[str]:
    """A note if the sample tells the new means too roughly, with the number of samples needed."""
    typical = {path: renewal.typical_error for path, renewal in renewals.items()}
    known = {path: error for path, error in typical.items() if np.isfinite(error)}
    if not known:
        return ["From one sample nothing says how far another one would lead. Give more samples."]
    worst = max(known, key=lambda path: known[path])
    margin = 1.96 * known[worst]
    if margin <= PRECISE:
        return []
    n = renewals[worst].n_samples
    needed = int(np.ceil(n * (margin / PRECISE) ** 2))
    return [
        f"Too few samples: from {n:,.0f}, the new mean of the median channel of {worst} is known to ±{margin:.2g} "
        f"running σ (95%). For ±{PRECISE:g} give about {needed:,}."
    ]


def _one_class(records: dict[str, list[LayerRecord]]) -> list[str]:
    """A note if the samples, or those of each batch, are of one class, as far as batches bring labels."""
    record = next(iter(records.values()))[0]
    log = record.call_log
    classes = record.classes
    if classes is not None and len(classes.n) == 1 and classes.n_images == record.n_images > 1:
        return [
            "All samples are of one class, so the new statistics are those of that class. Give samples of all classes."
        ]
    if log is None or not record.is_sorted_by_class:
        return []
    return [
        f"{log.n_calls_one_class} of {log.n_calls_labeled} batches hold a single class: each norm was given inputs "
        "normalized by the statistics of one class. Shuffle the samples."
    ]
