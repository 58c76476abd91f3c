"""What each vector of each norm is worth: it is replaced, the model runs, and it is put back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, NoNormLayers, class_name
from bnprobe.experiments.feature_scales import Scales, is_feature_norm
from bnprobe.experiments.first_order import Estimates, estimated
from bnprobe.experiments.held_vectors import VECTORS, HeldNorm, demand_one_device, held_norms
from bnprobe.experiments.measure_variants import INTERRUPTED, Deadline, Measuring
from bnprobe.experiments.outputs import Metric, token_loss
from bnprobe.experiments.positions import Positions
from bnprobe.experiments.prefix import Prefix
from bnprobe.experiments.preview import demand_callable
from bnprobe.experiments.put_back import in_eval_mode, put_back, write
from bnprobe.experiments.renewing import Renewing
from bnprobe.experiments.replacements import COMPUTED, Variant, scale_variants, variants
from bnprobe.experiments.rows import notes, table_of
from bnprobe.experiments.run import Batches, Call, run
from bnprobe.norms import ModuleTree
from bnprobe.probe import attach
from bnprobe.probe.survey.unwrap import unwrap
from bnprobe.recording import Recording
from bnprobe.report.study import Study

ALL = (*VECTORS, *COMPUTED)
"""What of a norm can be replaced."""

LEVELS = ("network", "stage", "layer")


def ablate(
    model: nn.Module,
    batches: Iterable[Any],
    metric: Metric | str | None = None,
    *,
    vectors: str | Sequence[str] = ALL,
    layers: str | Sequence[str] | None = None,
    budget_s: float | None = None,
    call: Call | None = None,
    initial: nn.Module | Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> Study:
    """Measure what each vector of each norm is worth to a trained model: replace it, run, and put it back.

    A vector is replaced in one layer, in all layers of a stage (paths that begin alike) and in the whole network. The
    running mean becomes "data" (the mean of what the norm is given), "0" or "implied" (what the norms and weights before it
    imply); the running variance "data", "1", "mean" (its mean over channels) or "implied"; the weight γ "1", "mean" (the
    mean of |γ|, signs kept), "permuted" (over channels), "unsigned" (|γ|) or "initial"; the bias β "0", "mean", "permuted"
    or "initial". A permutation is the control: it keeps the distribution and takes away which channel has which value.
    Layers without a replacement keep their vector, group norms have a weight and a bias only, and statistics of several
    layers are renewed together, as `recalibrate` does it in one pass.

    Layer and RMS norms divide each token by a scale of its own. "scale" replaces it by its geometric mean over all tokens
    ("constant"), with one for the first token and one for all others ("two"), with one for each position ("position"), or
    leaves tokens of more than five times the median as they are ("loud"). "centering" makes an RMS norm of a layer norm
    ("removed") and a layer norm of an RMS norm ("added"). Samples are sequences; padding that a mask of the batch marks
    keeps its own scale and does not count.

    The model runs in eval mode and is afterwards as it was, bit for bit, also after an exception. Each batch is read once
    for all replacements, which run on the same samples. Blocks that run before the changed layer are not computed again:
    their outputs are kept while a batch is worked on (512 MB at most), and it is checked that the output is the same to the
    last bit; otherwise everything is computed.

    Args:
        model: Any `torch.nn.Module` with norms.
        batches: A list of batches or a loader that can be read several times, as for `bnprobe.record`, with targets where
            the metric needs them.
        metric: Function of (output, target) that returns one number per sample, shape (N,), larger is better; or "loss",
            the cross entropy in nats to targets that are classes, else to the next tokens of the input. Default: whether the
            largest score is the target's, where targets are classes; else the agreement with the model as it is.
        vectors: Which of "mean", "var", "scale", "centering", "weight" and "bias".
        layers: Shell-style pattern or patterns of the paths of norms to study. None studies all.
        budget_s: Seconds. Replacements are then ranked by a first-order estimate of how much each changes the loss of a
            sample, from one backward pass. Those of the whole network are measured first, then those of stages and of
            layers with the largest estimates, as many as fit; the others have the estimate alone.
        call: Function of (model, batch) that runs one batch and returns the output, where `model(x)` does not.
        initial: The model at initialization, or its state dict, for the replacement "initial".
        seed: Of the permutations.

    Returns:
        The study. After Ctrl-C it holds what was measured until then, if anything was, and a note says so.

    Raises:
        NoNormLayers: No norm holds such a vector, or none matches `layers`.
        NothingRecorded: There were no samples.
        BnprobeError: An argument is out of range, batches cannot be read several times or hold one sample, or the metric
            returns another shape.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)).eval()
        >>> batches = [(torch.randn(50, 6), torch.randint(3, (50,))) for _ in range(4)]
        >>> study = bnprobe.ablate(model, batches, vectors=("mean", "bias"))
        >>> study.table.loc[study.table["layer"] == "1", "replacement"].tolist()
        ['data', '0', '0', 'mean', 'permuted']
        >>> study.metric, study.n_samples
        ('accuracy', 200)
    """
    measure = _metric(metric)
    _demand(model, budget_s)
    chosen = _vectors(vectors)
    state = _state_of(initial)
    deadline = Deadline(budget_s)
    seen = Batches(model, batches, "observing", n_passes=2)
    with put_back(model) as afterwards, torch.no_grad():
        in_eval_mode(model)
        recording, n_batches = _observed(model, seen, call)
        a_pass = deadline.spent
        n_samples = seen.n_samples
        if n_samples < 2:
            raise BnprobeError(
                "batches hold one sample, of which no interval can be given. Give some hundred samples."
            )
        norms = _chosen(model, held_norms(model, recording), layers)
        scales = _scales(model, norms, seen, call) if {*chosen} & {*COMPUTED} else None
        if scales is not None:
            norms = {path: replace(n, layer=scales.layers.get(path, n.layer)) for path, n in norms.items()}
        with _vectors_put_back(norms):
            renewing = Renewing(model, batches, call, expected=a_pass)
            made = variants(norms, chosen, state, renewing, seed)
            made += [] if scales is None else scale_variants(norms, chosen, scales)
            made.sort(key=lambda variant: LEVELS.index(variant.level))
            if not made:
                raise NoNormLayers(_nothing(model, norms, chosen))
            if state and not any(variant.replacement == "initial" for variant in made):
                raise BnprobeError(_not_initial(norms, state))
            estimates: dict[Variant, float] = {}
            if budget_s is not None:
                estimates = _estimates(model, norms, made, seen, call, deadline, state, seed, measure)
            ranked = in_order(made, estimates)
            ranked = [variant for variant in ranked if renewing.ready(variant, deadline)]
            prefix = Prefix(model, [norm.module for norm in norms.values()])
            seen.quiet = True
            measuring = Measuring(model, seen, n_batches, measure, call, prefix, deadline)
            measurements = measuring.of(ranked)
    return Study(
        table=table_of(made, measurements, estimates),
        model=class_name(model),
        metric=measurements.metric,
        n_samples=n_samples,
        seconds=deadline.spent,
        seed=seed,
        notes=tuple(notes(measurements, n_samples, afterwards.changes)),
        interrupted=measurements.stopped == INTERRUPTED,
    )


def _metric(given: Metric | str | None) -> Metric | None:
    """What is measured. Raises BnprobeError for a name that is not known, and for what is no function."""
    if isinstance(given, str):
        if given != "loss":
            raise BnprobeError(
                f'metric={given!r} is no name of one. Pass "loss", or a function of (output, target).'
            )
        return token_loss
    demand_callable(given)
    return given


def _demand(model: nn.Module, budget_s: float | None) -> None:
    if not isinstance(model, nn.Module):
        raise BnprobeError(f"ablate needs a torch.nn.Module, got {class_name(model)}. Pass the model itself.")
    number = isinstance(budget_s, int | float) and not isinstance(budget_s, bool)
    if budget_s is not None and not (number and 0 < budget_s < np.inf):
        raise BnprobeError(
            f"budget_s={budget_s!r} is not a number of seconds. Leave it out to measure everything."
        )
    demand_one_device(model)


def _vectors(vectors: str | Sequence[str]) -> tuple[str, ...]:
    found = (vectors,) if isinstance(vectors, str) else tuple(vectors)
    if not found or not set(found) <= set(ALL):
        raise BnprobeError(
            f"vectors={vectors!r} must be of {', '.join(ALL)}. Pass for example ('weight', 'bias')."
        )
    return found


def _state_of(initial: nn.Module | Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
    if initial is None:
        return {}
    if isinstance(initial, nn.Module):
        tree = ModuleTree.of(unwrap(initial)[0])
        return {**tree.parameters(), **tree.buffers()}
    if not isinstance(initial, Mapping):
        raise BnprobeError(
            f"initial is a {type(initial).__name__}. Pass the model at initialization, or its state dict."
        )
    # as DistributedDataParallel names them
    return {
        str(n).removeprefix("module."): tensor for n, tensor in initial.items() if isinstance(tensor, Tensor)
    }


def _chosen(
    model: nn.Module, norms: dict[str, HeldNorm], layers: str | Sequence[str] | None
) -> dict[str, HeldNorm]:
    """The norms that match; the others were observed for what they imply."""
    patterns = [layers] if isinstance(layers, str) else layers
    if patterns is None:
        return norms
    found = {path: norm for path, norm in norms.items() if any(fnmatchcase(path, p) for p in patterns)}
    if norms and not found:
        near = get_close_matches(next(iter(patterns), ""), list(norms), n=3, cutoff=0.0)
        raise NoNormLayers(
            f"no norm of {class_name(model)} with vectors matches {', '.join(patterns)}; nearest are {', '.join(near)}. "
            "Pass a path or a pattern of these."
        )
    return found


def _observed(model: nn.Module, batches: Batches, call: Call | None) -> tuple[Recording, int]:
    """What every norm is given by the model as it is, what the norms before it imply, and the number of batches."""
    n = 0
    with attach(model, histograms=False, gradients=False) as probe:
        for batch in batches:
            run(model, batch, call)
            n += 1
    return probe.recording, n


def _scales(
    model: nn.Module, norms: Mapping[str, HeldNorm], batches: Batches, call: Call | None
) -> Scales | None:
    """What layer and RMS norms divide tokens by, in one pass more; None where there are no such norms."""
    found = {n.path: (n.module, n.layer) for n in norms.values() if is_feature_norm(n.layer)}
    if not found:
        return None
    scales = Scales(found, Positions())
    batches.look = scales.positions.see
    with scales.watching():
        for batch in batches:
            run(model, batch, call)
    return scales


@contextmanager
def _vectors_put_back(norms: Mapping[str, HeldNorm]) -> Iterator[None]:
    """At the end every vector is as before, wherever a variant was interrupted."""
    before = [(t, t.detach().clone()) for norm in norms.values() for t in norm.tensors.values()]
    try:
        yield
    finally:
        for tensor, values in before:
            write(tensor, values)


def in_order(made: Sequence[Variant], estimates: Mapping[Variant, float]) -> list[Variant]:
    """All of the network first, then stages and layers by turns, each by the estimate: wherever time ends, the same part of
    both is measured. In one row a deep network's stages, whose changes are larger, would leave no time for any layer.
    """
    places: dict[Variant, float] = {}
    for level in LEVELS:
        there = sorted((v for v in made if v.level == level), key=lambda v: -estimates.get(v, 0.0))
        places |= {v: (i + 1) / len(there) - (level == "network") for i, v in enumerate(there)}
    return sorted(made, key=places.__getitem__)


def _nothing(model: nn.Module, norms: Mapping[str, HeldNorm], vectors: tuple[str, ...]) -> str:
    there = [*sorted({name for norm in norms.values() for name in norm.tensors}, key=VECTORS.index)]
    held = f"They hold {', '.join(there)}" if there else "None holds any vector that can be replaced"
    return (
        f"no norm of {class_name(model)} that was run holds {' or '.join(vectors)}. {held}. Pass vectors or layers that "
        "are there."
    )


def _not_initial(norms: Mapping[str, HeldNorm], state: Mapping[str, Tensor]) -> str:
    wanted = next(iter(norms))
    return (
        f"initial holds no weight or bias of these norms: {wanted}.weight is not among {', '.join(list(state)[:3])}, ... "
        "Pass the state dict of this model at initialization, and 'weight' or 'bias' among vectors."
    )


def _estimates(
    model: nn.Module,
    norms: Mapping[str, HeldNorm],
    made: Sequence[Variant],
    batches: Batches,
    call: Call | None,
    deadline: Deadline,
    initial: Mapping[str, Tensor],
    seed: int,
    metric: Metric | None,
) -> dict[Variant, float]:
    """What the budget is divided by."""
    estimates = Estimates(norms, made, initial, seed, metric)
    estimated(estimates, model, batches, call, deadline)
    return estimates.sizes
