"""A side that is broken, or lacks something: the first sentence and a finding say so, at the right place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bnprobe

State = dict[str, Tensor]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [layer for i in range(3) for layer in (nn.Conv2d(3 if i == 0 else 6, 6, 3), nn.BatchNorm2d(6))]
    model = nn.Sequential(*parts)
    model(torch.randn(8, 3, 12, 12))
    return model.eval()


def put(name: str, where: int | slice, value: float) -> Callable[[State], None]:
    def change(state: State) -> None:
        state[name][where] = value

    return change


def without(*ends: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        for name in [name for name in state if name.endswith(ends)]:
            del state[name]

    return change


def pair(change: Callable[[State], None]) -> tuple[State, State]:
    state = network().state_dict()
    other = {name: tensor.clone() for name, tensor in state.items()}
    change(other)
    return state, other


NAN, INF = float("nan"), float("inf")
POISON = {
    "all nan": (
        put("3.running_mean", slice(None), NAN),
        "running_mean is not finite in 6 of 6 channels",
        range(6),
    ),
    "gamma": (put("3.weight", 2, NAN), "γ is not finite in 1 of 6 channels", (2,)),
    "beta": (put("3.bias", 2, -INF), "β is not finite in 1 of 6 channels", (2,)),
    "inf": (put("3.running_mean", 2, INF), "running_mean is not finite in 1 of 6 channels", (2,)),
    "negative": (put("3.running_var", 5, -1), "running_var is below 0 in 1 of 6 channels", (5,)),
}


@pytest.mark.parametrize("name", POISON)
def test_a_poisoned_file_is_called_broken_where_it_is(name):
    """Fails if poison is passed over as rounding, put down to another layer, or a finding is silent about it."""
    change, fact, channels = POISON[name]
    good, bad = pair(change)
    found, back = bnprobe.compare(good, bad), bnprobe.compare(bad, good)
    assert found.answer[0] == f"B is broken at layer 3: {fact}."
    assert back.answer[0] == f"A is broken at layer 3: {fact}."
    for comparison in (found, back):
        words = " ".join(comparison.answer)
        assert "rounding" not in words
        assert "moved most" not in words
    assert list(found.findings["rule"]) == ["became-nonfinite"]
    row = found.findings.iloc[0]
    assert (row["severity"], row["layer"], row["channels"]) == ("critical", "3", tuple(channels))
    assert row["because"] == f"in B {fact}, unlike in A."
    mirrored = back.findings.iloc[0]
    assert (mirrored["severity"], mirrored["rule"], mirrored["layer"]) == ("info", row["rule"], "3")
    assert mirrored["because"] == f"in A {fact}, unlike in B."
    assert len(back.findings) == 1


def test_poison_of_both_sides_alike_changed_nothing_and_other_poison_did():
    """Fails if what A held already is said to have appeared in B, or NaN in place of infinity is no change."""
    _, nan = pair(put("3.running_var", 1, NAN))
    _, negative = pair(put("3.running_var", 1, -1))
    assert bnprobe.compare(nan, nan).identical
    assert bnprobe.compare(nan, nan).findings.empty
    assert [sentence[:22] for sentence in bnprobe.compare(nan, negative).answer[:2]] == [
        "A is broken at layer 3",
        "B is broken at layer 3",
    ]


def test_what_can_be_measured_beside_poison_is_still_told():
    """Fails if one broken channel hides how far everything else lies apart."""
    good, bad = pair(put("3.running_mean", 2, NAN))
    bad["5.weight"] *= 3
    answer = bnprobe.compare(good, bad).answer
    assert answer[0].startswith("B is broken at layer 3")
    assert answer[1].startswith("A and B are the same before γ and β of layer 5; there they differ by ")


def test_buffers_that_are_not_there_are_missing_and_not_infinite():
    """Fails if what is missing is called rounding, or not finite."""
    good, bare = pair(without("running_mean", "running_var", "num_batches_tracked"))
    found = bnprobe.compare(good, bare)
    assert found.answer[0] == (
        "B lacks running_mean and running_var, which A stores, first at layer 1 (3 norms in all)."
    )
    assert "rounding" not in " ".join(found.answer)
    assert [(row.rule, row.layer) for row in found.findings.itertuples()] == [
        ("statistics-lost", layer) for layer in ("1", "3", "5")
    ]
    assert "B does not store them" in found.findings["because"][0]
    back = bnprobe.compare(bare, good)
    assert back.answer[0].startswith("A lacks running_mean and running_var, which B stores")
    assert list(back.findings["severity"]) == ["info"] * 3
    assert list(back.findings["because"]) == [
        because.replace("A", "?").replace("B", "A").replace("?", "B") for because in found.findings["because"]
    ]


def test_a_missing_scale_is_another_norm():
    """Fails if γ and β that are gone are taken for 1 and 0 without a word."""
    good, bare = pair(without("3.weight", "3.bias"))
    bare["2.weight"] = good["2.weight"]
    found = bnprobe.compare(good, bare)
    assert found.answer[0] == "B lacks γ and β, which A stores, at layer 3 (1 norm in all)."
    replaced = found.findings[found.findings["rule"] == "norm-replaced"]
    assert list(replaced["because"]) == ["only A stores γ; only A stores β."]


def test_values_that_entered_are_told_from_where_they_are_not_finite():
    """Fails if a run through broken weights is said to differ elsewhere, or not at all."""
    model, data = network(), [torch.randn(40, 3, 12, 12)]
    good = bnprobe.record(model, data)
    with torch.no_grad():
        model[2].weight[0] = NAN
    found = bnprobe.compare(good, bnprobe.record(model, data))
    n = 40 * 8 * 8
    assert (
        found.answer[0]
        == f"B is broken, first at layer 3: {n:,} input values are not finite (2 norms in all)."
    )
    assert found.findings["layer"][0] == "3"
    assert f"{n:,} input values are not finite" in found.findings["because"][0]


def test_the_page_of_a_broken_side_does_not_say_that_nothing_changed(tmp_path):
    """Fails if the page denies what its answer says."""
    page = (
        bnprobe.compare(*pair(put("3.running_mean", 2, NAN)))
        .to_html(tmp_path / "page.html")
        .read_text("utf-8")
    )
    assert "B is broken at layer 3" in page
    assert "No norm changed." not in page
    assert "could not be drawn" not in page
