"""What of a norm could learn, and did, beside the rest of the model: frozen on purpose, or left out of the optimizer.

The other families look at one site; this one looks at the recording as a whole, so it gives columns and no rows.
"""

from __future__ import annotations

from bnprobe.measures.columns import Column
from bnprobe.recording import LayerRecord, Recording

COLUMNS = (
    Column(
        "frozen",
        "Whether neither γ nor β requires a gradient while other parameters do, 1 or 0; NaN where that is not known.",
        table="layers",
    ),
    Column(
        "stepped",
        "Whether a parameter of the norm changed by detach, 1, or only others, 0; NaN where none did, or that is not known.",
        table="layers",
    ),
)

NOT_KNOWN = float("nan")


def site_columns(recording: Recording) -> dict[str, list[float]]:
    """The columns, a value for each site."""
    names = () if recording.tensors is None else recording.tensors.names
    changed = _changed(recording)
    return {
        "frozen": [_frozen(record, recording.about.n_learning) for record in recording.layers],
        "stepped": [_stepped(record, names, changed) for record in recording.layers],
    }


def _frozen(record: LayerRecord, n_learning: int | None) -> float:
    log = record.call_log
    known = (
        () if log is None else tuple(one for one in (log.gamma_learns, log.beta_learns) if one is not None)
    )
    if not known or n_learning is None:
        return NOT_KNOWN
    return float(n_learning > 0 and not any(known))


def _changed(recording: Recording) -> tuple[str, ...]:
    """Parameters that something outside the model's passes changed, as an optimizer does."""
    if recording.integrity is None:
        return ()
    return tuple(
        name for one in recording.integrity.unexplained if one.what == "parameters" for name in one.names
    )


def _stepped(record: LayerRecord, names: tuple[str, ...], changed: tuple[str, ...]) -> float:
    """Names with wrappers inside (`_orig_mod`) are not those of the sites, and tell nothing."""
    inside = f"{record.layer}."
    plain = not any(part.startswith("_") for name in changed for part in name.split("."))
    if not changed or not plain or not any(name.startswith(inside) for name in names):
        return NOT_KNOWN
    return float(any(name.startswith(inside) for name in changed))
