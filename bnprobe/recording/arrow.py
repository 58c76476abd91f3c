"""A recording as a table of Arrow's: what was recorded of every channel, each field with its meaning and unit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bnprobe.files.arrow import needed
from bnprobe.recording.about import About
from bnprobe.recording.layer_record import LayerRecord
from bnprobe.stats.moments import Array

SCHEMA = "bnprobe/tables/recording"


@dataclass(frozen=True)
class Field:
    """A column of numbers, one per channel; `of` gives those of a site, or None where it has none."""

    name: str
    description: str
    unit: str
    of: Callable[[LayerRecord], Array | None]


def _moments(side: str, what: str) -> Iterator[Field]:
    """The moments of one side of the norm."""
    sums = {
        "n": (f"Values of the {what} that are finite", "values"),
        "mean": (f"Their mean, at the {what}", what),
        "m2": (f"Sum of (x − mean)² over the values of the {what}", f"{what}²"),
        "m3": (f"Sum of (x − mean)³ over the values of the {what}", f"{what}³"),
        "m4": (f"Sum of (x − mean)⁴ over the values of the {what}", f"{what}⁴"),
        "low": (f"Smallest value of the {what}", what),
        "high": (f"Largest value of the {what}", what),
    }
    for name, (description, unit) in sums.items():
        yield Field(f"{side}_{name}", f"{description}.", unit, _reading(side, name))
    yield Field(
        f"{side}_nonfinite",
        f"Values of the {what} that are NaN or infinite.",
        "values",
        lambda record: getattr(record, f"{side}_nonfinite"),
    )


def _reading(side: str, name: str) -> Callable[[LayerRecord], Array | None]:
    def of(record: LayerRecord) -> Array | None:
        moments = getattr(record, side)
        extreme = name in ("low", "high", "mean")
        # of nothing the extremes are infinite and the mean is 0, which is for merging alone
        return np.where(moments.n > 0, getattr(moments, name), np.nan) if extreme else getattr(moments, name)

    return of


FIELDS = (
    Field("gamma", "Weight of the norm at the last recorded call.", "output", lambda record: record.gamma),
    Field("beta", "Bias of the norm at the last recorded call.", "output", lambda record: record.beta),
    Field(
        "running_mean",
        "Running mean at the first recorded call.",
        "input",
        lambda record: record.running_mean,
    ),
    Field(
        "running_var",
        "Running variance at the first recorded call.",
        "input²",
        lambda record: record.running_var,
    ),
    *_moments("pre", "input"),
    Field("pre_samples", "Samples with a finite value.", "samples", lambda record: record.pre_images.n),
    Field(
        "pre_samples_m2",
        "Sum over samples of (mean of the sample − mean of these)².",
        "input²",
        lambda record: record.pre_images.aa,
    ),
    *_moments("post", "output"),
    Field("n_positive", "Values of the output above 0.", "values", lambda record: record.n_positive),
)
"""The columns after `layer`, `call`, `kind` and `channel`."""

PLACE = {
    "layer": "Path of the norm in the model.",
    "call": "Which call of it in a forward pass, counted from 0.",
    "kind": "What kind of norm it is.",
    "channel": "Number of the channel, counted from 0.",
}


def to_arrow(about: About, layers: Iterable[LayerRecord]) -> Any:
    """A row per channel of every site. Raises BnprobeError where pyarrow is not installed."""
    pyarrow = needed("Arrow tables", "recording.save")
    layers = tuple(layers)
    columns = {
        "layer": pyarrow.array([name for r in layers for name in [r.layer] * r.n_channels], pyarrow.string()),
        "call": pyarrow.array([call for r in layers for call in [r.call] * r.n_channels], pyarrow.int64()),
        "kind": pyarrow.array([kind for r in layers for kind in [r.kind] * r.n_channels], pyarrow.string()),
        "channel": pyarrow.array([c for r in layers for c in range(r.n_channels)], pyarrow.int64()),
    }
    columns |= {field.name: _column(pyarrow, field, layers) for field in FIELDS}
    said = {name: {"description": text} for name, text in PLACE.items()}
    said |= {field.name: {"description": field.description, "unit": field.unit} for field in FIELDS}
    fields = [pyarrow.field(name, column.type, metadata=said[name]) for name, column in columns.items()]
    metadata = {"schema": SCHEMA, "about": json.dumps(asdict(about))}
    return pyarrow.table(list(columns.values()), schema=pyarrow.schema(fields, metadata))


def _column(pyarrow: Any, field: Field, layers: Iterable[LayerRecord]) -> Any:
    """Numbers of all sites; null where a site has none, or nothing was seen."""
    values = [(field.of(record), record.n_channels) for record in layers]
    numbers = [np.full(n, np.nan) if value is None else value for value, n in values]
    unknown = [
        np.full(n, value is None) if value is None or field.name in _STORED else np.isnan(value)
        for value, n in values
    ]
    none = np.zeros(0)
    return pyarrow.array(
        np.concatenate([none, *numbers]),
        pyarrow.float64(),
        mask=np.concatenate([none, *unknown]).astype(bool),
    )


_STORED = ("gamma", "beta", "running_mean", "running_var")
"""In which a NaN is one of the model's, and no missing number."""
