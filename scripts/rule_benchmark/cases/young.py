"""Networks of a few dozen steps, and buffers that were set by hand: what is wrong with them is known all the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from scripts.rule_benchmark.cases.case import SHIFTED, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import checked, convnet, fit, several, told

CASES = Cases("networks of a few dozen steps")


@CASES.add("sixty steps of training, and other inputs")
def young() -> Iterator[Look]:
    for steps in (25, 60, 100):
        torch.manual_seed(5)
        model = fit(convnet(depth=4), steps=steps, lr=1e-3).eval()
        data = [x for x, _ in several(n=8)]
        yield right(f"{steps} steps", told(model, data))
        yield fault(f"{steps} steps, times 255", told(model, [255 * x for x in data]), Must(SHIFTED, "1"))
        yield fault(f"{steps} steps, plus 3", told(model, [x + 3 for x in data]), Must(SHIFTED, "1"))


@CASES.add("one buffer was set to 0")
def zeroed() -> Iterator[Look]:
    torch.manual_seed(61)
    model = fit(convnet(depth=4), steps=200, lr=1e-2).eval()
    yield right("as it was", told(model, several(n=8)))
    for name in ("running_mean", "running_var"):
        other = copy.deepcopy(model)
        norm = other[4]
        assert isinstance(norm, nn.BatchNorm2d)
        getattr(norm, name).zero_()
        must = Must("statistics-alike", "4", (name,))
        yield fault(f"{name}, file", checked(other.state_dict()), must)
        yield fault(
            f"{name}, data", told(other, several(n=8)), must, Must(f"{SHIFTED}|variance-below-eps", "4")
        )


@CASES.add("the running means of one norm are off by six standard deviations")
def moved() -> Iterator[Look]:
    for steps in (40, 200):
        torch.manual_seed(6)
        model = fit(convnet(depth=4), steps=steps, lr=1e-3).eval()
        data = [x for x, _ in several(n=8)]
        yield right(f"{steps} steps", told(model, data))
        norm = model[7]
        assert isinstance(norm, nn.BatchNorm2d)
        norm.running_mean += 6 * (norm.running_var + norm.eps).sqrt()
        yield fault(
            f"{steps} steps, moved", told(model, data), Must("data-shifted", "7", ("still match at layer 4",))
        )
