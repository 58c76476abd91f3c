"""A checkpoint to a report: the file read as tensors, its norms found, and what their vectors say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnprobe.checkpoints.attention import with_bounds
from bnprobe.checkpoints.config import NO_CONFIG, Config, config_of
from bnprobe.checkpoints.groups import Grouped, grouped
from bnprobe.checkpoints.one_plus import with_one_added
from bnprobe.checkpoints.records import records
from bnprobe.checkpoints.remote import of_fetching
from bnprobe.checkpoints.stubs import stubs
from bnprobe.errors import BadCheckpoint, BnprobeError, CannotFetch, NoNormLayers
from bnprobe.files import Place, Url, is_file, open_input, place_of, size_and_time
from bnprobe.recording import About, LayerRecord, Recording, TensorTable
from bnprobe.recording.names import GATHER
from bnprobe.recording.terms import TORCH_EPS
from bnprobe.report.numbers import count
from bnprobe.version import __version__
from bnprobe.weights import State, load, state_of

if TYPE_CHECKING:
    from bnprobe.report.result import Report

GUESSED = (
    "Which layer feeds a norm was inferred from names, shapes and the order of the file, and which norm comes before by the "
    "running means; `--arch` makes it exact."
)


def check(
    source: str | Path | Mapping[str, object],
    *,
    arch: str | None = None,
    batches: Iterable[Any] | None = None,
    config: str | Path | None = None,
) -> Report:
    """Report on the norms of a checkpoint: weights only, without architecture or data.

    Norms are found by the names and shapes of tensors. Files are read as data only: one that would have to execute code
    is refused. eps is not stored in a file of weights; it is read from the `config.json` of a Hugging Face folder, and
    torch's default is assumed else. The report says which.

    Args:
        source: A file (.pt .pth .th .bin .ckpt .safetensors .gguf), an index (*.index.json), a folder of shards, the
            address of a file or an index (https:// hf:// s3:// gs://), of which only what is needed is fetched, or a state
            dict.
        arch: Model to build around a file, "torchvision:resnet50" or your own "package.module:function", so that eps,
            kinds and neighbors of the norms are exact. None guesses neighbors from names and shapes.
        batches: With `arch`, batches as for `record`, for models that no blank input suits: the first one shows which
            operations follow which, and no number of it is kept.
        config: A TOML file of settings, as for `report`.

    Returns:
        A report whose columns that need data are NaN.

    Raises:
        BadCheckpoint: The source cannot be read safely, or does not fit `arch`.
        CannotFetch: A remote file cannot be had; a kind of BadCheckpoint.
        NoNormLayers: No norm was found.
        UnknownModel: No model is called `arch`.
        BadSettings: `config` cannot be read or names something that does not exist.
        BnprobeError: `batches` without `arch`.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        >>> report = bnprobe.check(model.state_dict())
        >>> report.layers[["layer", "kind", "n_channels", "mode"]].values.tolist()
        [['1', 'batch_norm', 8, 'weights only']]
    """
    from bnprobe.report import report

    if batches is not None and not arch:
        raise BnprobeError(
            "check runs a batch only through an architecture. Give arch as well, or leave batches out."
        )
    return report(recording_of(source, arch, batches=batches), config=config)


def recording_of(
    source: Any, arch: str | None = None, tensors: bool = False, batches: Iterable[Any] | None = None
) -> Recording:
    """The norms of a checkpoint as a recording without calls; with its other `tensors`, all of which are read then."""
    if isinstance(source, str | Path):
        path = place_of(source)
        if isinstance(path, Url) and (arch or tensors):
            raise BadCheckpoint(
                f"{path} is a remote file, and all of it would have to be fetched for this. Download the file, and use that."
            )
        if arch and isinstance(path, Path):
            from bnprobe.checkpoints.architecture import wired  # builds models: seconds of imports

            return wired(path, arch, batches)
        return _recording(load(path, several=True), path.name, _size(path), tensors, config_of(path))
    state = _in_ram(source) if isinstance(source, Mapping) else {}
    if not state or arch:
        raise BadCheckpoint(
            "check reads a file or a state dict (a mapping of names to tensors)"
            + (
                ", and builds an architecture only around a file. Save the state dict first."
                if arch
                else f", got {type(source).__name__}. Give model.state_dict(), or probe the model: bnprobe.attach."
            )
        )
    return _recording(state, "a state dict", f"{len(state)} tensors in RAM", tensors)


def _in_ram(source: Mapping[str, object]) -> State:
    from bnprobe.weights.with_torch.ram import in_ram  # whoever has tensors of torch's has torch

    return state_of(source, in_ram)


def _recording(state: State, name: str, weights: str, tensors: bool, config: Config = NO_CONFIG) -> Recording:
    """Raises NoNormLayers, with what was found instead."""
    empty = stubs(state)
    found = grouped(empty.whole)
    if empty.names and not found.norms:
        raise BadCheckpoint(
            f"{name}: {empty.counted} are empty, the first is {empty.names[0]}: shards were not gathered before saving. "
            f"{GATHER}."
        )
    if not found.norms and found.unreadable:
        raise BadCheckpoint(
            f"{name}: {found.unreadable[0]}, so this norm cannot be read, and there is no other. "
            "Save the state dict with dense tensors of floats."
        )
    if not found.norms:
        raise NoNormLayers(f"{name}: {_what_there_is(state, found)}")
    try:
        layers = records(state, found.norms, config)
    except CannotFetch:
        raise
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{name}: {error}") from None
    notes = [*_of_eps(layers, config.source), *of_fetching(state, found.norms)]
    if any(layer.neighbours is not None for layer in layers):
        notes.append(GUESSED)
    if not tensors and not config.stores_sums:  # two files are compared by what they hold
        layers, convention = with_one_added(layers, config.model_type, config.source)
        notes += [convention] * bool(convention)
    layers = with_bounds(layers, state, found.norms, config)
    odd = (*found.odd, *([empty.entry] if empty.names else []))
    return Recording(
        about(name, weights, state, notes),
        layers,
        not_understood=odd,
        tensors=_floats(state) if tensors else None,
    )


def _floats(state: State) -> TensorTable:
    """The tensors of floats."""
    # not above: hooks and kernels, which a check does without
    from bnprobe.probe.integrity.tensor_table import tensor_table
    from bnprobe.weights.with_torch.ram import as_torch

    return tensor_table({name: as_torch(tensor) for name, tensor in state.items() if tensor.is_number})


def _of_eps(layers: tuple[LayerRecord, ...], source: str) -> Iterator[str]:
    """Where eps is from."""
    assumed = sum(layer.eps_assumed for layer in layers)
    known = sorted({layer.eps for layer in layers if not layer.eps_assumed})
    if known:
        yield f"eps is from {source}: {', '.join(f'{eps:g}' for eps in known)}."
    if assumed:
        yield (
            f"A file of weights does not hold eps: {TORCH_EPS:g}, torch's default, was assumed for "
            f"{'all norms' if not known else f'{assumed} of {len(layers)} norms'}."
        )


def about(name: str, weights: str, state: State, notes: list[str]) -> About:
    """What was checked, in words; n_parameters counts every number that is no statistic."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    n = sum(tensor.numel for key, tensor in state.items() if not key.endswith(statistics))
    return About(
        model=name,
        weights=weights,
        data="none",
        preprocessing="none",
        device="none",
        versions=f"bnprobe {__version__}, numpy {np.__version__}",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        n_parameters=n,
        notes=tuple(notes),
    )


def _size(path: Place) -> str:
    """Name and size of what was read."""
    files = [path] if isinstance(path, Url) or is_file(path) else filter(is_file, path.iterdir())
    size = 0
    for file in files:
        with open_input(file) as opened:
            size += size_and_time(opened)[0]
    return f"{path.name}, {size / 1e6:,.1f} MB"


def _what_there_is(state: State, found: Grouped) -> str:
    """Why there is no norm, as far as the tensors show, and what to do."""
    weights = {
        name.removesuffix(".weight") for name, t in state.items() if name.endswith(".weight") and t.dim > 1
    }
    biased = sum(f"{path}.bias" in state for path in weights)
    facts = f"{count(len(state), 'tensor')}, {count(len(weights), 'layer')} of weights ({biased} with a bias), and no norm: "
    if found.odd:
        return facts + f"{found.odd[0]} does not fit together. Save the state dict of the whole model."
    if weights and biased == len(weights):
        return facts + "they may have been folded into the weights. Check the file from before fusion."
    names = ", ".join(list(state)[:3])
    return (
        facts
        + f"no running_mean, no weight and bias of one shape (it starts with {names}). Check that it is the model's."
    )
