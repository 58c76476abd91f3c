"""Records without a call: the vectors of a norm with empty statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bnprobe.checkpoints.config import NO_CONFIG, NormSettings
from bnprobe.checkpoints.fits import directly_fed, fit
from bnprobe.checkpoints.followers import activations
from bnprobe.checkpoints.groups import MOST_CHANNELS_IN_ALL, MOST_NORMS, Norm
from bnprobe.checkpoints.predictions import Predictions
from bnprobe.checkpoints.producers import filters, folded, producers
from bnprobe.checkpoints.remote import fetch_needed
from bnprobe.errors import BadCheckpoint
from bnprobe.recording import BATCH, CHANNELS, UNKNOWN, LayerRecord
from bnprobe.recording.neighbours import Neighbours
from bnprobe.recording.terms import TORCH_EPS
from bnprobe.stats import ImageMoments, Moments
from bnprobe.stats.fields import RECORDED
from bnprobe.weights import State, Tensor
from bnprobe.weights.messages import FEWER
from bnprobe.weights.number_types import WHOLE

POOLS = {"batch_norm": BATCH, "layer_norm": CHANNELS, "rms_norm": CHANNELS}


def records(
    state: State, norms: tuple[Norm, ...], config: NormSettings = NO_CONFIG
) -> tuple[LayerRecord, ...]:
    """A record per norm. Raises BadCheckpoint where the vectors declare more numbers than the file holds.

    What `config` says of eps and kinds is taken from there; torch's usual eps is assumed else.
    """
    _demand_held(norms)
    fetch_needed(state, norms)
    fed, acts, predictions = producers(state, norms), activations(state, norms), Predictions(norms)
    direct = directly_fed(state, norms, fed)
    made = []
    for i, norm in enumerate(norms):
        around = _neighbours(norm, i, fed.get(norm.path), acts.get(norm.path), state, config, predictions)
        if around is not None and norm.path in direct:
            around = replace(around, directly_fed=True)
        made.append(_record(norm, around, config))
    return tuple(made)


def without_calls(record: LayerRecord) -> LayerRecord:
    """The same norm as if it had not been called: its vectors, neighbors and circumstances, and no statistics."""
    around = record.neighbours
    if around is not None:
        nothing = float("nan")
        around = replace(
            around,
            scaled_var=nothing,
            scaled_skip_var=nothing,
            largest_logit=nothing,
            attention_evenness=nothing,
        )
    return replace(record, neighbours=around, **_no_calls(record.n_channels))


def _record(norm: Norm, neighbours: Neighbours | None, config: NormSettings) -> LayerRecord:
    kind, eps = config.kind(norm), config.eps(norm)
    vectors = {name: tensor.float64() for name, tensor in norm.vectors.items()}
    return LayerRecord(
        layer=norm.path,
        call=0,
        kind=kind,
        class_name=norm.says if kind == norm.kind else f"{norm.says}; kind by {config.source}",
        pools=POOLS.get(kind, UNKNOWN),
        eps=TORCH_EPS if eps is None else eps,
        eps_assumed=eps is None,
        momentum=float("nan"),
        n_batches_tracked=_count(norm.counter),
        gamma=vectors.get("gamma"),
        parameter_dtype=_dtype_of(norm),
        beta=vectors.get("beta"),
        running_mean=vectors.get("running_mean"),
        running_var=vectors.get("running_var"),
        neighbours=neighbours,
        **_no_calls(norm.n_channels),
    )


def _no_calls(n_channels: int) -> dict[str, Any]:
    """The fields of a record that calls fill, as they are without any."""
    empty, zeros = Moments.empty(n_channels), np.zeros(n_channels)
    return {
        "parameters_moved": False,
        "buffers_moved": False,
        "n_calls": 0,
        "n_calls_training": 0,
        "n_calls_running": 0,
        "n_images": 0,
        "output": "derived",
        "mismatch": float("nan"),
        "pre": empty,
        "pre_images": ImageMoments.empty(zeros),
        "pre_histogram": None,
        "post": empty,
        "post_histogram": None,
        "own_mean": None,
        "own_log_var": None,
        "gradient": None,
        "classes": None,
        "tokens": None,
        "pre_folds": None,
        **dict.fromkeys(RECORDED, zeros),
    }


def _neighbours(
    norm: Norm,
    i: int,
    path: str | None,
    follows: str | None,
    state: State,
    config: NormSettings,
    predictions: Predictions,
) -> Neighbours | None:
    """What the likely weights before a norm say, and an activation after it that has weights of its own."""
    nothing = Neighbours(follows or "unknown", guessed=True)
    alone = None if path is None else filters(state[f"{path}.weight"])
    if path is None or alone is None:
        return nothing if follows else None
    weight, bias, eps = state[f"{path}.weight"], state.get(f"{path}.bias"), config.eps(norm)
    ends = folded(alone, bias, norm, TORCH_EPS if eps is None else eps)
    candidates = predictions.candidates(i, weight, alone, bias)
    fits = fit(predictions, i, weight, alone, candidates, eps)
    fed = replace(
        nothing,
        producer=path,
        folded=ends,
        means_fit=fits.means,
        means_fit_unfolded=fits.unfolded,
        means_fit_negated=fits.negated,
        fits_like=fits.like,
        fits_layout=fits.layout,
    )
    guess = predictions.of(i, weight, bias, candidates)
    if guess is None:
        return fed
    return replace(
        fed, source="norm", sources=(guess.source,), activation=guess.activation, implied=guess.implied
    )


def _dtype_of(norm: Norm) -> str:
    tensor = norm.vectors.get("gamma", norm.vectors.get("beta"))
    return "" if tensor is None else tensor.dtype


def _count(counter: Tensor | None) -> int | None:
    """Batches tracked, where a whole number is kept."""
    if counter is None or counter.foreign or counter.dtype not in WHOLE or counter.numel != 1:
        return None
    return int(counter.array().reshape(-1)[0])


def _demand_held(norms: tuple[Norm, ...]) -> None:
    """Tensors may be views of one another: a few bytes that declare many vectors would fill the RAM, and so would zeros."""
    tensors = [tensor for norm in norms for tensor in norm.vectors.values()]
    places = dict(tensor.storage for tensor in tensors)
    declared, held = sum(tensor.numel for tensor in tensors), sum(places.values())
    if declared > held:
        raise BadCheckpoint(
            f"its norms declare {declared:,} numbers in {held:,} bytes, so they are views of one another, and were not "
            "read. Save the state dict with a clone of every tensor."
        )
    if len(norms) > MOST_NORMS:
        raise BadCheckpoint(
            f"it has {len(norms):,} norms, and {MOST_NORMS:,} are the most that are read. {FEWER}"
        )
    if (n := sum(norm.n_channels for norm in norms)) > MOST_CHANNELS_IN_ALL:
        raise BadCheckpoint(
            f"its norms have {n:,} channels in all, and {MOST_CHANNELS_IN_ALL:,} are the most that are read. {FEWER}"
        )
