"""`attach`: one look at a model, its options checked, and the probe that records it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from bnprobe.errors import BnprobeError, class_name
from bnprobe.probe.backward.gradients import LossScaler
from bnprobe.probe.options import AttachOptions
from bnprobe.probe.probe import Probe
from bnprobe.probe.survey.culprit import cannot_look
from bnprobe.probe.survey.survey import survey_of


def attach(
    model: nn.Module,
    *,
    layers: str | Sequence[str] | None = None,
    histograms: bool = True,
    gradients: bool = True,
    scaler: LossScaler | None = None,
    normalize: tuple[Sequence[float], Sequence[float]] | None = None,
    training_batch: int | None = None,
    exemplars: int = 0,
    mask: str | None = None,
    sample_dim: int = 0,
    unit: str | None = None,
    every: int = 1,
    until: int | None = None,
    phase: str | None = None,
) -> Probe:
    """Hook every normalization layer of a model and return the probe that records them.

    Run the model as usual while the probe is attached, then pass the probe to `bnprobe.report`. Use it as a context
    manager, or call `Probe.detach` when done. Every forward pass is recorded, unless `every` or `until` say otherwise; a
    backward pass is recorded too.

    Nothing of the model changes: outputs, parameters, buffers, modes, hooks, gradients and random state are
    bit-identical with and without the probe, on success and after an exception. No tensor is kept, so RAM does not grow
    with the number of batches. The first pass after each `attach` costs more, because every layer's formula is checked
    against its real output; attach once and run many batches.

    The first dimension of the model's first tensor counts as the sample, unless `sample_dim` says otherwise. Rows of one
    sample (the steps of a sequence, the regions of an image) are correlated, so standard errors use samples as units.

    Args:
        model: Any `torch.nn.Module`, in the mode (train or eval) in which it will run. Batch, layer, group, instance and
            RMS norms are recognized; see `register_norm` for a layer of your own.
        layers: Shell-style pattern or patterns of module paths to record, such as "layer4.*". None records all norms.
        histograms: Whether to record distributions before and after each norm, beside their moments.
        gradients: Whether to record what backward passes do at each norm, if any run.
        scaler: The loss scaler in use, such as `torch.amp.GradScaler`, so that gradients are recorded unscaled.
        normalize: The constants (mean, std), one number per input channel each, if the inputs are (pixel - mean) / std
            of pixels from 0 to 1. With them `Report.stem` is in colors, without them in units of the input.
        training_batch: Samples per batch and device with which the running statistics were averaged in training. It sets
            their noise, and with it which shifts are significant. None assumes 32: if batches were larger, errors are
            then too large and a small shift may be missed; if they were smaller, too small and a shift may be noise.
        exemplars: For each channel, how many samples with the highest and with the lowest mean after the norm to keep, as
            `Report.exemplars`; 0 keeps none. Norms over channels, which see each token apart, go by a sample's highest and
            lowest token instead. `Probe.captions` says what the samples are.
        mask: Name of the argument of the model's forward that says which positions of a batch count; the others are left
            out, as by `Probe.mask`. None uses "attention_mask" where that has a value per token. "~" before the name is for
            masks that are true for padding: "~src_key_padding_mask". Of sequences that are packed without padding, the
            argument that says where each begins, such as "cu_seqlens": then each sequence is a sample.
        sample_dim: Dimension of the sample in the model's first tensor and in the inputs of norms over the last dimensions:
            1 for inputs of shape (T, N, C). Norms with channels in dimension 1 always have their samples in dimension 0.
        unit: What a sample is called in sentences: "images", "sequences", "tokens" and others. None says images where norms
            are over images, and samples elsewhere.
        every: Record the first of this many forward passes, the first of the next, and so on: for long runs of training. Of
            the others nothing is read, neither backward, and they run as fast as without a probe. Each phase counts by
            itself; a part that is called alone does too. `Recording.about` says how many were recorded and skipped.
        until: After this many recorded passes, in each phase, nothing more is read. None records until `Probe.detach`.
        phase: "generation" keeps passes that begin sequences apart from those that continue them with a cache, as the phases
            "prefill" and "decode", also where the loop is not yours, as in `model.generate`. In each a sequence counts
            once. None records all in one.

    Returns:
        The attached probe.

    Raises:
        NoNormLayers: No normalization layer is recognized, or none matches `layers`.
        CannotProbe: The model is TorchScript or an exported graph, where Python hooks are not called.
        BnprobeError: `model` is not a `torch.nn.Module`, or an option is not what it should be, such as constants of
            `normalize` that do not fit together.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        >>> with bnprobe.attach(model) as probe:
        ...     for x in torch.randn(5, 4, 3, 9, 9):  # five batches of four images
        ...         loss = model(x).square().mean()
        ...         loss.backward()  # optional
        >>> report = bnprobe.report(probe)
        >>> report.layers[["layer", "kind", "n_channels", "mode"]].values.tolist()
        [['1', 'batch_norm', 8, 'train']]
        >>> len(report.channels)
        8
    """
    if not isinstance(model, nn.Module):
        raise BnprobeError(f"attach needs a torch.nn.Module, got {class_name(model)}. Pass the model itself.")
    options = AttachOptions(
        layers=layers,
        histograms=histograms,
        gradients=gradients,
        scaler=scaler,
        normalize=normalize,
        training_batch=training_batch,
        exemplars=exemplars,
        mask=mask,
        sample_dim=sample_dim,
        unit=unit,
        every=every,
        until=until,
        phase=phase,
    )
    try:
        return Probe(survey_of(model, options.patterns), options)
    except BnprobeError:
        raise
    except (Exception, SystemExit) as error:  # attributes, comparisons and hooks of a model may be code
        raise cannot_look(model, error) from error
