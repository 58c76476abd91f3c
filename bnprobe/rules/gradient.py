"""Rules about gradients: where they vanish or explode, where they carry no signal, and violated identities."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd

from bnprobe.recording.names import IN_BRANCHES, KEY, QUERY, said
from bnprobe.rules.detached import detached, is_detached
from bnprobe.rules.edits import Freeze, Reinitialize, SetGamma, remedy
from bnprobe.rules.frozen_parts import following_batches, kept_aside, unreached
from bnprobe.rules.remedies import made_new, made_new_edit, unit_scale
from bnprobe.rules.rule import Evidence, Finding, Rule, indices
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.rules.wording import count

FIRST_PASSES = 8
"""Backward passes after which a gradient gets past whatever a new network begins with at 0."""

SPOILT = {
    "dy_nonfinite": "dL/dy",
    "dx_nonfinite": "dL/dx",
    "grad_gamma_nonfinite": "dL/dγ",
    "grad_beta_nonfinite": "dL/dβ",
}
"""Columns that count what is not finite, and of what."""

FIND_OPERATION = (
    "See the operation, and its line, in which the gradient stops being finite, on the batch it happens with "
    "(set_detect_anomaly(True) alone names the first NaN, which an infinity from elsewhere may have made): "
    "`import copy`, "
    "`with torch.autograd.set_detect_anomaly(True, check_nan=False): total = loss(copy.deepcopy(model)(x), y)`, "
    "`fine = lambda grads: all(g is None or bool(g.isfinite().all()) for g in grads); nodes = [total.grad_fn]`, "
    "`for n in nodes: nodes += [m for m, _ in n.next_functions if m is not None and m not in nodes]`, "
    "`for n in nodes: n.register_hook(lambda made, given, n=n: print(n.name(), *n.metadata.get('traceback_', [])[-1:]) "
    "if fine(given) and not fine(made) else None)`, `total.backward()`. If a loss scaler skips such steps, pass it: "
    "attach(model, scaler=scaler)."
)


def not_finite(evidence: Evidence) -> Iterator[Finding]:
    """Gradients that are NaN or infinite: at the first norm they reach on their way back, and wherever they arise."""
    layers = evidence.layers
    bad = layers["n_backward_nonfinite"].fillna(0) > 0
    n_others = int(bad.sum()) - 1
    for at in np.flatnonzero(bad)[::-1]:
        row, following = layers.iloc[at], layers.iloc[at + 1 :]
        first = not bad.iloc[at + 1 :].any()
        if first or row["n_backward_arising"] > 0:
            more = f"; {count(n_others, 'previous norm')} received such gradients" * (first and n_others > 0)
            yield _not_finite(row, evidence, more, following[following["n_backward"] > 0])


def _not_finite(row: pd.Series, evidence: Evidence, more: str, sound: pd.DataFrame) -> Finding:
    """What is said of one norm; `sound` are the following norms that a backward pass reached."""
    channels = evidence.channels
    mine = channels[(channels["layer"] == row["layer"]) & (channels["call"] == row["call"])]
    n, arising = int(row["n_backward_nonfinite"]), int(row["n_backward_arising"])
    skipped = row["n_backward_scaled"] == n < row["n_backward"]
    says = (
        "Gradients become NaN or infinite in this norm: those at its output are finite"
        if arising
        else "NaN or infinite gradients arrive at this norm: they arise after it, on the way to the loss"
    )
    both = f", and arrive at it in {n - arising} more" if arising and arising < n else ""
    entered = bool(evidence.layers["n_nonfinite"].sum() > 0)
    return Finding(
        "info" if skipped else "critical",
        row["layer"],
        f"{says}{', under a loss scale too high for these passes' if skipped else ''}.",
        f"in {arising or n} of {_passes(row)}{both}: {_where(mine)}{more}."
        + " Values that are not finite entered norms as well; see values-not-finite." * entered,
        "Nothing: the scaler skips these steps and lowers its scale."
        if skipped
        else _of_this_norm(row)
        if arising
        else _of_what_follows(sound),
        indices(mine[_spoilt(mine).any(axis=1)]),
        row["call"],
    )


def _spoilt(channels: pd.DataFrame) -> pd.DataFrame:
    return channels[list(SPOILT)] > 0


def _where(channels: pd.DataFrame) -> str:
    """In how many channels each gradient was not finite."""
    hit = _spoilt(channels).sum()
    parts = [f"{letter} in {int(hit[name])}" for name, letter in SPOILT.items() if hit[name]]
    return f"{', '.join(parts)} of {count(len(channels), 'channel')}"


def _of_what_follows(sound: pd.DataFrame) -> str:
    until = "the loss"
    if len(sound):
        next_norm = sound.iloc[0]
        until = f"{said(next_norm['layer'], next_norm['call'])}, whose gradients are finite"
    return (
        f"Look between it and {until}, for what has a finite value but no finite derivative: a root, norm or distance at "
        "exactly 0 (add eps inside the root), the softmax of a row that is masked throughout, 0/0 or log(0) under "
        f"torch.where or a mask, atan2 at the origin, overflow in half precision. {FIND_OPERATION}"
    )


def _of_this_norm(row: pd.Series) -> str:
    no_eps = "Its eps is 0. " if row["eps"] == 0 else ""
    if row["constant_rows"] > 0:
        no_eps += f"The variance of {row['constant_rows']:.0%} of its rows is 0. "
    return (
        f"{no_eps}A root at a variance of exactly 0 has no derivative: rows of equal values, such as padding, need eps "
        "inside the root, (var + eps).sqrt() and not var.sqrt() + eps. In half precision it may be an overflow: run this "
        f"norm in float32. {FIND_OPERATION}"
    )


def breaks(evidence: Evidence) -> Iterator[Finding]:
    """A jump of the gradient's norm between two norms that follow each other."""
    step = evidence.limits.gradient_step
    # queries and keys stand side by side, and get next to nothing where attention looks at all keys evenly
    on_the_way = ~evidence.layers["norm_role"].isin((QUERY, KEY))
    is_known = evidence.layers["grad_out"].notna() & (evidence.layers["grad_out"] > 0) & on_the_way
    known = zip(
        evidence.layers[is_known].iterrows(), _added_by_branches(evidence.layers)[is_known], strict=True
    )
    for ((_, before), adds), ((_, after), later_adds) in pairwise(known):
        ratio, expected = before["grad_out"] / after["grad_out"], adds / later_adds
        if 1 / step * min(expected, 1) <= ratio <= step * max(expected, 1):
            continue
        way = "explodes" if ratio > 1 else "vanishes"
        yield Finding(
            "info" if evidence.is_new else "warning",
            before["layer"],
            f"The gradient {way} between the following norm and this one.",
            f"its length is {after['grad_out']:.2e} at {said(after['layer'], after['call'])} and "
            f"{before['grad_out']:.2e} here, "
            f"a factor of {ratio:.2g} (threshold {step:g}).",
            "Check what lies between the two: missing normalization, a saturated activation, a scale far from 1; compare "
            f"with the same network at initialization.{_unit_scale(after)}",
            call=before["call"],
            remedy=remedy(
                SetGamma(after["layer"], 1 - after["gamma_offset"]) if after["gamma_abs_median"] > 0 else None
            ),
        )


def _added_by_branches(layers: pd.DataFrame) -> pd.Series:
    """How much the branch that reads each norm adds to its stream, relative to the stream; 1 where it is more, or not known.

    A branch gets as much of the gradient as it gives to the sum: next to nothing where its gate begins at 0. A norm whose
    output is the stream itself gets all of it.
    """
    adds = layers["branch"].shift(-1).bfill().fillna(1.0).clip(upper=1.0)
    return adds.where(layers["norm_role"].isin(IN_BRANCHES), 1.0)


def _unit_scale(row: pd.Series) -> str:
    """The scale of the following norm set to 1, where it has one."""
    typical = row["gamma_abs_median"]
    if not typical > 0:
        return ""
    return (
        f" The following norm's typical |γ| is {typical:.2g}; if that is the cause: "
        f"`{unit_scale(row)}`, and train on, as results change."
    )


def no_signal(evidence: Evidence) -> Iterator[Finding]:
    """Norms whose gamma and beta receive nothing, or only noise."""
    yield from _cut_off(evidence)
    noise = evidence.limits.silent_snr
    for row, channels in evidence.sites:
        if not row["n_backward"] > 0:
            continue
        upper = np.nanmax([row["gamma_snr_upper"], row["beta_snr_upper"], -1.0])
        if row["no_gradient"] == 1:
            yield Finding(
                "info" if _starts_at_zero(row, evidence) else "warning",
                row["layer"],
                "No gradient reaches this norm: its γ and β cannot learn.",
                f"the gradient at its output was exactly 0 in all channels over {_passes(row)}.",
                "Check that its output is used by the loss, and is not detached or cut off by a dead activation. If the "
                f"activation after it is dead: {made_new(row, channels, channels)}, and train on, as results change.",
                call=row["call"],
                remedy=remedy(made_new_edit(row, channels, channels)),
            )
        elif 0 <= upper < noise:
            yield Finding(
                "info",
                row["layer"],
                "The gradients of γ and β are mostly noise: their sign changes from pass to pass.",
                f"signal-to-noise ratio at most {upper:.2g} over {_passes(row)} of {_samples(row)} "
                f"(threshold {noise:g}).",
                "This is expected at the end of training; at its start, use larger batches (the ratio grows with the root "
                "of their size) or check the labels.",
                call=row["call"],
            )


def _starts_at_zero(row: pd.Series, evidence: Evidence) -> bool:
    """Whether a gradient of 0 may come from what a new network begins with at 0: a branch's last weights, or its scale."""
    return evidence.is_new and row["n_backward"] < FIRST_PASSES


def _cut_off(evidence: Evidence) -> Iterator[Finding]:
    """Norms that require gradients, yet no backward pass reaches them, only others; reported at the last of a run."""
    layers = evidence.layers.groupby("layer", sort=False)
    back, calls = layers["n_backward"].sum(), layers["n_calls_learning"].sum()
    candidates = unreached(evidence) - kept_aside(evidence) - following_batches(evidence)
    if not candidates:
        return
    cut = (calls > 0) & layers["learns"].first().isin(("both", "γ", "β")) & back.index.isin(candidates)
    run: list[str] = []
    for layer, following in zip(cut.index, cut.shift(-1, fill_value=False), strict=True):
        run = [*run, str(layer)] if cut[layer] else []
        if run and not following:
            yield _not_reached(run, int(calls[layer]), int(back.max()))


def _not_reached(run: list[str], n_calls: int, n_passes: int) -> Finding:
    named = ", ".join(map(said, run[:-1][-3:][::-1]))
    previous = "the previous norm" if len(run) == 2 else f"the {len(run) - 1} previous norms"
    before = f", nor in {previous} ({named}{', ...' if len(run) > 4 else ''})" if named else ""
    return Finding(
        "warning",
        run[-1],
        "No backward pass reaches this norm, although it requires gradients: it cannot learn.",
        f"no backward pass in {count(n_calls, 'call')}{before}, while other norms had up to {n_passes}.",
        "Look after it for detach(), .data, torch.no_grad() or a conversion to numpy, and check whether the loss uses its "
        f"output. If these norms are not meant to learn: `for name in {run}: model.get_submodule(name)"
        ".requires_grad_(False).eval()`.",
        remedy=remedy(Freeze(tuple(run), eval_mode=True)),
    )


def _samples(row: pd.Series) -> str:
    """Of a typical call."""
    return count(round(row["n_images"] / max(row["n_calls"], 1)), "sample")


def _passes(row: pd.Series) -> str:
    return count(row["n_backward"], "backward pass")


def violated(evidence: Evidence) -> Iterator[Finding]:
    """Identities that hold for every norm, and do not hold here."""
    limit = evidence.limits.gradient_gap
    for row in evidence.rows:
        gaps = {name: row[name] for name in ("gap_centre", "gap_map", "gap_weight") if row[name] > limit}
        numbers = ", ".join(f"{name} {gap:.2g}" for name, gap in gaps.items())
        if is_detached(row, evidence):
            yield detached(row, f"; {numbers} (threshold {limit:g})" * bool(gaps))
        elif gaps:
            yield Finding(
                "info",
                row["layer"],
                "The gradients violate an identity that holds for a plain norm: something else takes part.",
                f"{numbers} (threshold {limit:g}).",
                "Usual reasons: the input of the norm is used elsewhere too, weights are shared, or statistics are "
                "synchronized between processes. Read effective learning rates here with care.",
                call=row["call"],
            )


RULES = (
    Rule(
        "gradient-not-finite",
        "Are all gradients finite?",
        "https://github.com/pytorch/pytorch/issues/68425 (under torch.where); "
        "https://github.com/pytorch/pytorch/issues/187297 (a root)",
        "no NaN and no infinity in dL/dy, dL/dx, dL/dγ and dL/dβ",
        not_finite,
        by_hand="the operation to change has to be found first",
        of_calls=True,
    ),
    Rule(
        "gradient-breaks",
        "Does the gradient keep its size from norm to norm?",
        "Yang et al. 2019, arXiv:1902.08129; Bjorck et al. 2018, arXiv:1806.02375",
        f"lengths at neighboring norms within a factor of {DEFAULT.gradient_step:g}",
        breaks,
        edits=(SetGamma,),
        of_calls=True,
    ),
    Rule(
        "gradient-no-signal",
        "Do γ and β receive a gradient that is more than noise?",
        "McCandlish et al. 2018, arXiv:1812.06162 (gradient noise scale)",
        f"a gradient that arrives and is not zero, and a signal-to-noise ratio that may be "
        f"{DEFAULT.silent_snr} or more, within two standard errors",
        no_signal,
        edits=(Freeze, Reinitialize),
        of_calls=True,
    ),
    Rule(
        "identity-violated",
        "Do the gradients satisfy the identities that hold for every norm?",
        "van Laarhoven 2017, arXiv:1706.05350; Ioffe & Szegedy 2015, arXiv:1502.03167",
        f"relative gaps of at most {DEFAULT.gradient_gap:g}",
        violated,
        by_hand="nothing is wrong with the model as such",
        of_calls=True,
    ),
)
