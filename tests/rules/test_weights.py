"""Rules about stored vectors: each fires on its fault, is silent beside it, and needs no data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from measures.sites import call_log, recording, running_stats_of, site, some_rows
from torch import nn

import bnprobe
from bnprobe.checkpoints.records import without_calls
from bnprobe.measures import tables
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Folded, Neighbours
from bnprobe.rules import judge
from bnprobe.rules.thresholds import Limits

from .firing import fired

ROWS = some_rows(n_channels=8)
STATISTICS = running_stats_of(ROWS)
ONE = np.ones(8)
RELU = Neighbours("relu")


def stored(layer: str = "bn", rows: np.ndarray = ROWS, **changes: Any) -> LayerRecord:
    """A norm as a checkpoint shows it: vectors and neighbours, no call."""
    fields = {"gamma": 1.5, "beta": 0.1, **running_stats_of(rows), **changes}
    return without_calls(site(rows, layer, **fields))


def at(value: float, others: float, *places: int) -> np.ndarray:
    vector = np.full(8, float(others))
    vector[list(places)] = value
    return vector


def test_a_healthy_norm_is_silent_without_data():
    """Fails if a rule takes a missing statistic for a bad one."""
    assert len(judge(tables(recording(stored("a"), stored("b", ROWS * 3))))) == 0


# Dead


@pytest.mark.parametrize(
    ("follows", "severity"),
    [
        ("relu", "info"),
        ("relu6", "info"),
        ("unknown", "info"),
        ("add, relu", None),
        ("silu", None),
        ("relu | add", None),
    ],
)
def test_dead_needs_a_relu_or_no_knowledge(follows, severity):
    """Fails if a norm before a sum or a smooth activation is called dead."""
    found = fired(
        "channels-dead", stored(gamma=at(0.1, 1.5, 3), beta=at(-1, 0.1, 3), neighbours=Neighbours(follows))
    )
    assert list(found["severity"]) == ([severity] if severity else [])
    if severity:
        assert found["channels"].iloc[0] == (3,)
        assert ("if a ReLU follows" in found["says"].iloc[0]) == (follows == "unknown")


def test_a_wholly_dead_layer_is_not_to_be_removed():
    """Fails if all channels are called some, listed one by one, or to be cut out of a network that needs a path."""
    found = fired("channels-dead", stored(gamma=0.1, beta=-1, neighbours=Neighbours("relu")))
    assert found["says"].iloc[0].startswith("All channels are dead")
    assert "Remove" not in found["do"].iloc[0]
    assert "n.weight.data[:] = 1" in found["do"].iloc[0]


def test_dead_is_by_the_size_of_gamma_and_the_bound_itself():
    """Fails if gamma counts with its sign, or k or the reach is another."""
    beta = at(-0.6, 0.1, 0, 1, 2)
    gamma = at(1.0, 1.0)
    gamma[:3] = (0.1 + 1e-5, -(0.1 + 1e-5), 0.1 + 1e-4)
    assert fired("channels-dead", stored(gamma=gamma, beta=beta))["channels"].iloc[0] == (0, 1)


def test_a_channel_that_was_seen_positive_is_not_dead():
    """Fails if measured values do not overrule the bound."""
    rows = np.full((5, 8, 14), -1.0) * np.linspace(1, 2, 14)
    rows[0, 0, 0] = 1e3
    found = fired("channels-dead", site(rows, gamma=0.01, beta=-1, running_mean=0, running_var=1))
    assert found["channels"].iloc[0] == tuple(range(1, 8))


def test_many_dead_channels_are_a_warning_and_all_of_them_critical():
    """Fails if the severity does not grow with the share."""
    for n, severity in ((1, "info"), (2, "warning"), (8, "critical")):
        places = range(n)
        record = stored(gamma=at(0.1, 1.5, *places), beta=at(-1, 0.1, *places), neighbours=Neighbours("relu"))
        assert fired("channels-dead", record)["severity"].tolist() == [severity]


def test_a_branch_initialised_to_nothing_is_not_dead():
    """Fails if a zero-initialised residual branch is called dead."""
    assert fired("channels-dead", stored(gamma=0, beta=0)).empty


# Decayed filters


def wired(norm: np.ndarray) -> Neighbours:
    return Neighbours("relu", "conv1", folded=Folded(norm, -ONE, ONE, None), guessed=True)


def test_filters_decay_only_together_with_gamma():
    """Fails if a short filter under a live gamma, or a dead gamma over a live filter, is called decayed."""
    gamma = at(1e-3, 1.5, 0, 1)
    found = fired("filters-decayed", stored(gamma=gamma, neighbours=wired(at(0.02, 1.0, 0, 2))))
    assert found["channels"].iloc[0] == (0,)
    assert "conv1 (by name)" in found["because"].iloc[0]
    assert fired("filters-decayed", stored(gamma=gamma)).empty


def test_filters_decay_where_eps_leaves_nothing_of_gamma():
    """Fails if a recipe that does not decay γ hides the filters that it did decay: their inputs no longer vary."""
    short = wired(at(0.02, 1.0, 0))
    found = fired("filters-decayed", stored(gamma=1.5 * ONE, running_var=at(1e-10, 1.0, 0), neighbours=short))
    assert found["channels"].iloc[0] == (0,)
    assert "|γ| < 0.01 in 1 of 8 channels, with |γ| √(running_var" in found["because"].iloc[0]
    both = stored(
        gamma=at(1e-3, 1.5, 1), running_var=at(1e-10, 1.0, 0), neighbours=wired(at(0.02, 1.0, 0, 1))
    )
    found = fired("filters-decayed", both)
    assert found["channels"].iloc[0] == (0, 1)
    assert "|γ| < 0.01 in 2 of 8 channels, in 1 of them with |γ| √(running_var" in found["because"].iloc[0]
    # a norm that divides by its variance makes up for a short filter
    alive = stored(gamma=1.5 * ONE, running_var=at(1e-4, 1.0, 0), neighbours=short)
    assert fired("filters-decayed", alive).empty


def test_a_channel_whose_inputs_do_not_vary_is_dead_below_zero():
    """Fails if γ counts in full where eps is what the norm divides by: six of these standard deviations are .006."""
    var = at(1e-12, 1.0, 0)
    flat = stored(gamma=at(1.0, 1.5, 0), beta=at(-0.05, 0.1, 0), running_var=var, eps=1e-5, neighbours=RELU)
    found = fired("channels-dead", flat)
    assert found["channels"].iloc[0] == (0,)
    assert "in 1 of 8 channels, with |γ| √(running_var" in found["because"].iloc[0]
    assert "(eps = 1e-05)" in found["because"].iloc[0]
    # a tenth of eps may be out of date as the data change: there γ counts as it is
    loose = stored(
        gamma=at(1.0, 1.5, 0), beta=at(-0.05, 0.1, 0), running_var=at(1e-6, 1.0, 0), neighbours=RELU
    )
    assert fired("channels-dead", loose).empty


# eps


def test_inputs_that_never_varied_are_constant_and_no_matter_of_eps():
    """Fails if the smallest number of float32, where × 0.9 stops, is told as an eps that is too large."""
    floor, batches = np.float32(1.0), 0
    while floor != np.float32(0.9) * floor:
        floor, batches = np.float32(0.9) * floor, batches + 1
    assert floor == np.float32(5.6e-45)
    (row,) = fired("variance-below-eps", stored(running_var=at(float(floor), 1.0, 0, 3))).itertuples()
    assert (row.severity, row.channels) == ("info", (0, 3))
    assert "were constant in training" in row.says
    assert "1,000 batches" in row.because
    assert round(batches, -3) == 1000


def test_a_variance_of_exactly_0_beside_others_is_that_of_a_constant():
    """Fails if TensorFlow's zeros become an eps that is too large, or a buffer that was zeroed as a whole constant inputs.

    Of float32 times 0.99 the last steps are flushed to 0 on the hardware of some: efficientnet_lite0 has 53 such channels.
    """
    (row,) = fired("variance-below-eps", stored(running_var=at(0.0, 1.0, 0, 3))).itertuples()
    assert (row.severity, row.channels) == ("info", (0, 3))
    assert "were constant in training" in row.says
    assert "exactly 0 in 2 of 8 channels" in row.because
    says = fired("variance-below-eps", stored(running_var=0 * ONE))["says"]
    assert not says.str.contains("constant").any()


def test_what_is_said_of_constant_inputs_holds_for_a_layer():
    """Fails if the output is called β whatever comes in: an input that does vary is amplified by |γ| / √eps."""
    norm = nn.BatchNorm2d(2)
    norm.running_var[0], norm.bias.data[0], norm.weight.data[0] = 5.6e-45, 0.3, 0.5
    norm.eval()
    assert norm(torch.zeros(1, 2, 1, 1))[0, 0].item() == pytest.approx(0.3)
    assert norm(torch.full((1, 2, 1, 1), 0.1))[0, 0].item() == pytest.approx(
        0.3 + 0.1 * 0.5 / 1e-5**0.5, rel=1e-5
    )
    (do,) = bnprobe.check(norm_in_a_file(norm)).findings.query("rule == 'variance-below-eps'")["do"]
    assert "amplified there by up to |γ| / √eps" in do


def norm_in_a_file(norm: nn.BatchNorm2d) -> dict[str, torch.Tensor]:
    return nn.Sequential(nn.Conv2d(3, 2, 3), norm).state_dict()


def test_larger_weights_are_advised_only_where_they_help_all():
    """Fails if a factor below 1, or one that leaves a variance below eps, is said to lift it well clear."""
    fields = {"gamma": 1.5, "eps": 1e-5, "neighbours": wired(ONE)}
    low = fired("variance-below-eps", stored(running_var=np.geomspace(1e-6, 9e-6, 8), **fields))
    assert "Larger weights" in low["do"].iloc[0]
    for var in (at(1e-9, 1.0, 0), at(1e-6, 1e-2, 0)):
        (do,) = fired("variance-below-eps", stored(running_var=var, **fields))["do"]
        assert "Larger weights" not in do
        assert "No larger weights can help all of them" in do


def test_larger_weights_with_a_corrected_gamma_leave_the_output():
    """Fails if the advice changes the output where eps counts, which is wherever this rule speaks."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
    with torch.no_grad():
        conv.weight.mul_(2e-3)
        norm.weight.uniform_(0.5, 2)
    model = nn.Sequential(conv, norm)
    x = torch.randn(64, 3, 8, 8)
    model.train()
    for _ in range(200):
        model(x)
    model.eval()
    before = model(x)
    report = bnprobe.report(bnprobe.record(model, [x]))
    (do,) = report.findings.loc[report.findings["rule"] == "variance-below-eps", "do"]
    assert "corrected for eps" in do
    exec(do.split("`")[1], {"model": model, "torch": torch})
    assert float(norm.running_var.median()) > 0.5
    torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-4)


def test_eps_matters_to_live_channels_only():
    """Fails if a dead channel is named, or eps is taken from elsewhere."""
    var = at(1e-4, 1.0, 0, 1)
    record = stored(gamma=at(1e-3, 1.0, 1), running_var=var, eps=1e-3)
    found = fired("variance-below-eps", record)
    assert found["channels"].iloc[0] == (0,)
    assert fired("variance-below-eps", stored(running_var=var, eps=1e-5)).empty
    assert fired("variance-below-eps", stored(running_var=at(-1, 1.0, 0))).empty


def test_a_variance_that_was_lost_is_not_blamed_on_the_inputs():
    """Fails if a buffer of zeros sends the user to weights whose outputs vary."""
    fields = {"gamma": 1.5, "beta": 0.1, **running_stats_of(ROWS)}
    fields["running_var"] = np.where(np.arange(8) < 3, 0.0, fields["running_var"])
    (row,) = fired("variance-below-eps", site(ROWS, **fields)).itertuples()
    assert (row.severity, row.channels) == ("warning", (0, 1, 2))
    assert "while these data vary" in row.says
    assert "update_bn" in row.do
    still = ROWS * np.where(np.arange(8) < 3, 1e-4, 1.0)[:, None]
    (row,) = fired("variance-below-eps", site(still, **fields)).itertuples()
    assert "Their inputs hardly vary" in row.do


@pytest.mark.parametrize("kind", ["layer_norm", "group_norm", "rms_norm"])
@pytest.mark.parametrize(("size", "fires"), [(0.8, True), (1.5, False)])
def test_eps_against_what_a_norm_of_one_image_divides_by(kind, size, fires):
    """Fails if an eps larger than the variance of most images passes, or one that is smaller does not."""
    rows = np.random.default_rng(0).normal(size=(40, 8, 30)) * size
    found = fired("variance-below-eps", site(rows, kind=kind, gamma=1.5, beta=0.1, eps=1.0))
    assert len(found) == fires
    if fires:
        assert found["says"][0].endswith("it hardly normalizes.")
        assert ".eps = 1e-05`" in found["do"][0]


# Initial values


def test_an_affine_that_never_moved_is_told_from_a_new_layer():
    """Fails if a frozen affine is missed, or an untrained network is blamed."""
    assert fired("affine-untrained", stored(gamma=1, beta=0))["severity"].tolist() == ["warning"]
    assert fired("affine-untrained", stored(gamma=1, beta=0, running_mean=0, running_var=1)).empty
    fresh = without_calls(site(ROWS, "ln", "layer_norm", gamma=1, beta=0))
    assert fired("affine-untrained", fresh)["severity"].tolist() == ["info"]
    assert fired("affine-untrained", fresh, stored())["severity"].tolist() == ["warning"]
    assert fired("affine-untrained", stored(gamma=at(1.001, 1, 0), beta=0)).empty
    first_batches = stored(gamma=1, beta=0, n_batches_tracked=5)
    assert fired("affine-untrained", first_batches)["severity"].tolist() == ["info"]
    # beside a norm that has learned, it is left behind and not new
    assert fired("affine-untrained", first_batches, stored("b"))["severity"].tolist() == ["warning"]
    assert fired("affine-untrained", stored(gamma=None, beta=None)).empty


def test_a_norm_without_scale_is_a_note_where_no_norm_has_one():
    """Fails if a library without scale is blamed, or one frozen gamma among trained ones is not."""
    assert fired("affine-untrained", stored(gamma=1))["severity"].tolist() == ["info"]
    both = fired("affine-untrained", stored("a", gamma=1), stored("b", ROWS * 2))
    assert both[["layer", "severity"]].to_numpy().tolist() == [["a", "warning"]]


# Half precision


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"running_var": at(65505, 1, 2)}, "running_var of 1 of 8"),
        ({"running_mean": at(-65505, 1, 2)}, "largest input"),
        ({"gamma": at(-7e4, 1, 2)}, "gamma of 1"),
        ({"running_mean": at(60000, 0, 2), "running_var": at(1e6, 1, 2)}, "largest input 66,000"),
    ],
)
def test_what_half_precision_cannot_hold(changes, word):
    """Fails if a vector is not looked at, or the reach of the input is not six standard deviations."""
    found = fired("half-overflow", stored(**changes))
    assert found["severity"].tolist() == ["warning"]
    assert word in found["because"].iloc[0]


def test_half_precision_goes_by_what_was_seen_where_data_were_seen():
    """Fails if a measured extreme is not used, or the running statistics overrule it."""
    assert fired("half-overflow", stored(running_mean=6e4, running_var=ONE)).empty
    for largest, fires in ((7e4, 1), (3.3e4, 1), (3.2e4, 0)):  # room for inputs twice as large
        loud = ROWS.copy()
        loud[0, 0, 0] = -largest
        assert len(fired("half-overflow", site(loud, gamma=1.5, beta=0, **STATISTICS))) == fires
    assert fired(
        "half-overflow", stored(running_mean=np.inf, running_var=np.nan)
    ).empty  # statistics-poisoned says it


FED = Neighbours("relu", "conv", folded=Folded(ONE, -ONE, ONE, None))


def test_data_that_do_not_fit_are_not_the_weights_fault():
    """Fails if a layer with small running statistics is scaled down because these data are large."""
    (row,) = fired(
        "half-overflow", site(3e5 * ROWS, "bn", gamma=1.5, beta=0, **STATISTICS, neighbours=FED)
    ).itertuples()
    assert row.says.startswith("On these data, the input")
    assert "look at the inputs" in row.do
    assert "`" not in row.do


def a_layer(bias: bool, scale: float) -> tuple[Any, Any]:
    """A linear layer with large weights, its norm with statistics as they are, and inputs."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8, bias=bias), torch.nn.BatchNorm1d(8)).double()
    x = torch.randn(400, 6, dtype=torch.float64)
    with torch.no_grad():
        model[0].weight *= scale
        if bias:
            model[0].bias += 3e4
        model[1].momentum = 1.0
        model(x)
    return model.eval(), x


def advice(model: Any, x: Any) -> str:
    """What to do about its overflow."""
    import bnprobe

    with bnprobe.attach(model) as probe:
        model(x)
    found = bnprobe.report(probe).findings
    (row,) = found[found["rule"] == "half-overflow"].itertuples()
    return str(row.do)


@pytest.mark.parametrize(("bias", "scale"), [(False, 1e5), (True, 3e3)])
def test_scaling_down_leaves_the_output(bias, scale):
    """Fails if the bias is left as it was, or the code for the weights changes what follows the norm."""
    model, x = a_layer(bias, scale)
    before = model(x).detach()
    exec(advice(model, x).split("`")[1], {"model": model})
    np.testing.assert_allclose(model(x).detach(), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("least", "with_eps", "possible"), [(1e7, 0, 1), (1e5, 1, 1), (10.0, 0, 0)])
def test_no_scaling_into_eps(least, with_eps, possible):
    """Fails if running_var is scaled down to where eps, or half precision's smallest number, sets it."""
    # what lies above 2^20 is scaled by 2^-15, and with it a variance by 2^-30
    loud = stored(
        running_mean=2.0**20 * ONE, running_var=at(least, 1e7, 2), gamma=ONE, neighbours=FED, eps=1e-5
    )
    do = fired("half-overflow", loud)["do"].iloc[0]
    assert ("f.parameters()" in do) == possible
    assert ("n.eps *=" in do) == with_eps
    assert ("does not help" in do) != possible


# Counters and copies


def test_counters_that_differ():
    """Fails if twice as many are not distinguished from a few fewer, or the usual count is an average."""
    layers = [
        stored(name, ROWS * k, n_batches_tracked=n)
        for name, k, n in (("a", 1, 40), ("b", 2, 40), ("c", 3, 80), ("d", 4, 7))
    ]
    found = fired("batches-differ", *layers)
    assert found[["layer", "severity"]].to_numpy().tolist() == [["c", "warning"], ["d", "info"]]
    assert "2 times as many" in found["because"].iloc[0]
    assert fired("batches-differ", *layers[:2]).empty
    assert fired("batches-differ", stored("x", n_batches_tracked=None), layers[0]).empty


def test_an_instance_norm_is_not_counted():
    """Fails if a count that torch never touches is held against those of batch norms."""
    import torch
    from torch import nn

    import bnprobe

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        nn.BatchNorm2d(8),
    )
    for _ in range(20):
        model(torch.randn(8, 3, 12, 12))
    assert model[3].num_batches_tracked == 0
    assert not torch.equal(model[3].running_mean, torch.zeros(8))
    report = bnprobe.report(bnprobe.record(model.eval(), [(torch.randn(16, 3, 12, 12), None)]))
    assert "batches-differ" not in set(report.findings["rule"])


def test_counters_of_norms_that_were_new_when_training_began_are_compared():
    """Fails if counters are left out because the running statistics were initial before the recording."""
    new = {
        "running_mean": 0,
        "running_var": 1,
        "call_log": call_log(running_mean_after=STATISTICS["running_mean"]),
    }
    layers = [stored(name, **new, n_batches_tracked=n) for name, n in (("a", 40), ("b", 40), ("c", 80))]
    assert fired("batches-differ", *layers)["layer"].tolist() == ["c"]


def test_copies_that_went_their_own_ways_are_left_alone():
    """Fails if γ and β of the end are compared under running statistics from before the recording."""
    after = call_log(running_mean_after=STATISTICS["running_mean"] + 1)
    assert fired(
        "statistics-alike", stored("a", call_log=after), stored("b", gamma=1.4, call_log=after)
    ).empty


def test_copied_and_even_statistics():
    """Fails if a copy of another layer's buffers is missed, or one module under two names is blamed."""
    copied = fired("statistics-alike", stored("a"), stored("b", gamma=1.4))
    assert copied["layer"].tolist() == ["b"]
    assert "those of a" in copied["because"].iloc[0]
    assert fired("statistics-alike", stored("a"), stored("same module")).empty
    assert fired("statistics-alike", stored(running_var=3.0))["severity"].tolist() == ["warning"]
    assert fired("statistics-alike", stored(running_mean=0, running_var=1)).empty


def test_thresholds_reach_the_rules():
    """Fails if a rule uses its own constant and not the settings'."""
    record = stored(gamma=at(0.05, 1.5, 0), beta=at(-0.2, 0.1, 0))
    measured = tables(recording(record))
    assert "channels-dead" not in set(judge(measured)["rule"])
    assert "channels-dead" in set(judge(measured, Limits(dead_sigmas=3))["rule"])
    assert "channels-constant" in set(judge(measured, Limits(constant_gamma=0.1))["rule"])


@pytest.mark.parametrize(
    ("learned", "severity"), [(1e-3, "info"), (0.3, "warning")], ids=["just begun", "trained"]
)
def test_a_norm_that_lags_in_the_first_steps_is_no_warning(learned, severity):
    """Fails if a norm whose γ has not moved yet is blamed while those of the others moved by a thousandth."""
    rows = some_rows()
    other = site(rows, "a", "layer_norm", gamma=1 + learned, beta=learned)
    found = fired("affine-untrained", other, site(rows, "b", "layer_norm", gamma=1, beta=0))
    assert found["severity"].tolist() == [severity]
