"""What a pickle comes to is known before it is read: shared values count each time they are met."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
import torch

from bnprobe.files import pickle_scan
from bnprobe.files.limits import TooMuch
from bnprobe.files.pickle_scan import demand_harmless


def shared(levels: int, width: int = 2) -> Any:
    value: Any = ("a", "b")
    for _ in range(levels):
        value = (value,) * width
    return value


def scan(value: Any, protocol: int = 2) -> None:
    demand_harmless(io.BytesIO(pickle.dumps(value, protocol)))


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("wide", [2, 300])
def test_shared_values_count_each_time(protocol, wide):
    """Fails if the number of operations is taken for the work of hashing a key that they make."""
    levels = 30 if wide == 2 else 4
    scan({shared(8 if wide == 2 else 2, wide): 1}, protocol)
    with pytest.raises(ValueError, match="repeats what it holds"):
        scan({"a": [shared(levels, wide)]}, protocol)


def test_a_list_grows_wherever_it_is_known(monkeypatch):
    """Fails if a list counts as what it was when it was first met."""
    keys = list(range(1000))
    monkeypatch.setattr(pickle_scan, "MOST_WORK", 20_000)
    scan([keys] * 10)
    with pytest.raises(ValueError, match="repeats what it holds"):
        scan([keys] * 30)


def test_what_is_too_deep_for_any_number_is_still_found_soon():
    """Fails if the weight of a value has as many digits as a file has tuples."""
    content = b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x000" * 200_000 + b"]h\x00a."
    with pytest.raises(ValueError, match="repeats what it holds"):
        demand_harmless(io.BytesIO(content))


def test_checkpoints_are_far_from_the_limit(monkeypatch):
    """Fails if what trainers write is refused: tables in tables, optimizers, parameters, shared tensors."""
    model = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(100)))
    optimizer = torch.optim.Adam(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    whole = {"model": model.state_dict(), "ema": model.state_dict(), "optimizer": optimizer.state_dict()}
    saved = io.BytesIO()
    torch.save({"epoch": 1, "all": whole, "args": {"lr": 0.1}}, saved, _use_new_zipfile_serialization=False)
    saved.seek(0)
    n_tensors = 2 * 200 + 3 * 200
    monkeypatch.setattr(pickle_scan, "MOST_WORK", 200 * n_tensors)  # a hundredth of the limit's for this many
    demand_harmless(saved, 5)


def test_too_many_operations_are_no_damage(monkeypatch):
    """Fails if a file that is larger than what is read is called broken."""
    monkeypatch.setattr(pickle_scan, "MOST_OPERATIONS", 100)
    with pytest.raises(TooMuch, match="more than 100 operations"):
        scan(list(range(100)))
