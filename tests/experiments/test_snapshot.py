"""Whatever a remedy does to a model, it is afterwards what it was: attributes, modules, hooks, tensors, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnprobe.experiments.snapshot import Snapshot, all_put_back
from bnprobe.norms import ModuleTree
from bnprobe.probe.integrity.fingerprint import Fingerprint


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Sequential(nn.SyncBatchNorm(3))
    )
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[1].register_forward_hook(lambda m, x, y: y)
    return model.eval()


def state(model: nn.Module) -> dict[str, Any]:
    """All that can be seen of a model, tensors by their bits and by who they are."""
    states: dict[str, Any] = dict(Fingerprint.of(ModuleTree.of(model)).states)
    for path, module in model.named_modules():
        states[f"values {path}"] = {k: v for k, v in vars(module).items() if not isinstance(v, dict)}
        states[f"dicts {path}"] = {k: id(v) for k, v in vars(module).items() if isinstance(v, dict)}
    states["types"] = [(id(t), t.dtype, t.data_ptr()) for t in (*model.parameters(), *model.buffers())]
    states["gradients by id"] = [id(p.grad) for p in model.parameters()]
    return states


def edit_everything(model: Any) -> None:
    """One of each thing that an edit may change."""
    model[1].eps = 1.0
    model[1].momentum = None
    model[1].weight.data *= 2
    model[1].running_mean = model[1].running_var = None
    model[1].something_new = 5
    model[0].bias = None
    model[0].weight.grad = None
    model[0].register_forward_pre_hook(lambda m, x: None)
    model[2] = nn.Identity()
    model[3][0].__class__ = nn.BatchNorm2d
    model[3].requires_grad_(False)
    model[3].double()
    model.train()
    torch.rand(1)


@pytest.mark.parametrize("ends", [None, ZeroDivisionError, KeyboardInterrupt])
def test_everything_is_put_back(ends: type[BaseException] | None) -> None:
    """Fails if a kind of state is left as an edit made it, on success, after an exception or after Ctrl-C."""
    model = network()
    before = state(model)

    def inside() -> None:
        with all_put_back(model):
            edit_everything(model)
            if ends is not None:
                raise ends

    if ends is None:
        inside()
    else:
        with pytest.raises(ends):
            inside()
    assert state(model) == before


def test_one_goes_back_and_forth_between_two_versions() -> None:
    """Fails if a version is restored only in part, so that old and new are mixed."""
    model = network()
    x = torch.randn(2, 2, 6, 6)
    old = model(x)
    with all_put_back(model) as before:
        model[1].eps = 1.0
        model[1].weight.data[1] *= -3
        model[2] = nn.Identity()
        new = model(x)
        after = Snapshot(model, before)
        assert len(after.tensors) == 1, "of what is the same nothing is copied"
        for _ in range(2):
            before.restore(only=after)
            assert torch.equal(model(x), old)
            after.restore()
            assert torch.equal(model(x), new)
        assert not torch.equal(old, new)
    assert torch.equal(model(x), old)


def test_a_tensor_of_nan_is_not_taken_for_another() -> None:
    """Fails if NaN counts as a change of itself, so that every poisoned buffer is copied for each version."""
    model = network()
    model[1].running_var.fill_(float("nan"))
    with all_put_back(model) as before:
        assert not Snapshot(model, before).tensors


def test_ctrl_c_while_putting_back_is_raised_when_all_is_back() -> None:
    """Fails if an interrupt in the middle of putting back leaves the rest as it was edited."""
    model = network()
    before = state(model)

    class Interrupting(Tensor):
        """Raises as it is written to, the first time."""

        n = 0

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is Tensor.copy_ and not Interrupting.n:
                Interrupting.n += 1
                raise KeyboardInterrupt
            return super().__torch_function__(func, types, args, kwargs or {})

    snapshot = Snapshot(model)
    edit_everything(model)
    first = next(iter(snapshot.tensors.values()))
    first.values = first.values.as_subclass(Interrupting)
    with pytest.raises(KeyboardInterrupt):
        snapshot.restore()
    assert Interrupting.n == 1
    now = state(model)
    for one in (before, now):
        one.pop("random state")
    assert now == before
