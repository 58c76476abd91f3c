"""Problems from public threads about weights that were not trained as they are: averaged, copied, pruned, folded."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, update_bn

import bnprobe
from scripts.rule_benchmark.cases.case import ANY, SHIFTED, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import (
    Batch,
    checked,
    classes,
    convnet,
    fit,
    follow,
    images,
    several,
    told,
)

CASES = Cases("public threads, averaged and changed weights")


@CASES.add("a target network is updated by parameters alone", "DLR-RM/stable-baselines3#996")
def target_network() -> Iterator[Look]:
    for buffers in (False, True):
        torch.manual_seed(0)
        online = convnet()
        target = copy.deepcopy(online).eval()
        for _ in range(20):
            fit(online, steps=5)
            follow(target, online, 0.0, buffers)
        report = told(target, several())
        if buffers:
            yield right("with buffers", report)
        else:
            yield fault("parameters only", report, Must("statistics-never-updated"))
            both = bnprobe.compare(
                bnprobe.record(online.eval(), several()), bnprobe.record(target, several())
            )
            yield fault("compared", both, Must("statistics-lost"))


def hard() -> Batch:
    """Images whose classes are less far apart."""
    return images(64, classes(0.3))


@CASES.add("stochastic weight averaging without update_bn", "timgaripov/swa#8, pytorch/ignite#2590")
def swa() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=3), hard, steps=40)
    average = AveragedModel(model)
    for _ in range(8):
        fit(model, hard, steps=25, make=torch.optim.SGD, lr=1.0)
        average.update_parameters(model)
    data = several(hard, 12)
    yield fault("the average", told(average.eval(), data), Must(SHIFTED))
    update_bn([x for x, _ in several(hard, 20)], average)
    yield right("update_bn", told(average.eval(), data))


@CASES.add(
    "an average of weights whose decay is too high for a short training",
    "huggingface/pytorch-image-models#106",
)
def short_average() -> Iterator[Look]:
    for decay in (0.9998, 0.9):
        torch.manual_seed(0)
        model = convnet()
        average = copy.deepcopy(model).eval()
        for _ in range(150):
            fit(model, steps=1)
            follow(average, model, decay)
        report = told(average, several())
        if decay > 0.99:
            yield fault("decay 0.9998", report, Must(".*statistics.*|" + SHIFTED, severities=ANY))
        else:
            yield right("decay 0.9", report)


@CASES.add(
    "schedule-free weights are evaluated with the statistics of others", "facebookresearch/schedule_free#60"
)
def schedule_free() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=3), hard, steps=60)
    mean = {k: v.clone() for k, v in model.named_parameters()}
    for i in range(1, 30):
        fit(model, hard, steps=5, make=torch.optim.SGD, lr=1.0)
        with torch.no_grad():
            for k, v in model.named_parameters():
                mean[k] += (v - mean[k]) / (i + 1)
    with torch.no_grad():
        for k, v in model.named_parameters():
            v.copy_(mean[k])
    data = several(hard, 12)
    yield fault("evaluation", told(model.eval(), data), Must(SHIFTED))
    update_bn([x for x, _ in several(hard, 20)], model)
    yield right("update_bn", told(model.eval(), data))


@CASES.add(
    "channels of small gamma are removed with their beta",
    "Eric-mingjie/network-slimming#46, VainF/Torch-Pruning#530",
)
def pruned() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(32, depth=3), steps=200)
    norm = model[1]
    with torch.no_grad():
        weak = norm.weight.abs().argsort()[:12]
        norm.bias[weak] = 1.5
        norm.weight[weak] = 0.002
    fit(model, steps=60, lr=1e-4)
    data = several(n=8)
    model.eval()
    with torch.no_grad():
        norm.weight[weak], norm.bias[weak] = 0.0, 0.0
    report = told(model, data)
    yield fault("pruned", report, Must(SHIFTED + "|channels-shifted", "4"))


@CASES.add(
    "the fold leaves out the convolution's own bias", "ultralytics/yolov3#807, open-mmlab/mmdetection#2924"
)
def folded() -> Iterator[Look]:
    for right_formula in (False, True):
        torch.manual_seed(0)
        layers = list(convnet(depth=3))
        layers[0] = nn.Conv2d(3, 16, 3, padding=1)
        with torch.no_grad():
            layers[0].bias.uniform_(-2, 2)
        model = fit(nn.Sequential(*layers)).eval()
        conv, norm = model[0], model[1]
        with torch.no_grad():
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            conv.weight *= scale[:, None, None, None]
            inner = conv.bias if right_formula else 0.0
            conv.bias.copy_(norm.bias + (inner - norm.running_mean) * scale)
        model[1] = nn.Identity()
        report = told(model, several())
        if right_formula:
            yield right("with it", report)
        else:
            yield fault("without it", report, Must(SHIFTED, "4"))


@CASES.add("a file read with an offset of a few values", "marvis/pytorch-caffe-darknet-convert#48")
def offset() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=3), steps=150)
    state = model.state_dict()
    # darknet's order: beta, gamma, mean, variance, then the filters
    order = []
    for i in (0, 3, 6):
        order += [f"{i + 1}.{name}" for name in ("bias", "weight", "running_mean", "running_var")] + [
            f"{i}.weight"
        ]
    flat = torch.cat([state[k].flatten() for k in order]).roll(-1)
    for k in order:
        n = state[k].numel()
        state[k], flat = flat[:n].reshape(state[k].shape), flat[n:]
    yield fault("file", checked(state), Must("statistics-poisoned"))


@CASES.add("weights are loaded into the wrong layers of the same shape", "mapillary/inplace_abn#130")
def wrong_layers() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=4), steps=200).eval()
    state = model.state_dict()
    for name in ("weight", "bias", "running_mean", "running_var"):
        state[f"4.{name}"], state[f"10.{name}"] = state[f"10.{name}"].clone(), state[f"4.{name}"].clone()
    other = copy.deepcopy(model)
    other.load_state_dict(state)
    yield fault("data", told(other, several()), Must(SHIFTED, "4"))


@CASES.add("every process keeps statistics of its own", "pytorch/pytorch#13711, open-mmlab/mmpose#998")
def per_process() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet())
    other = copy.deepcopy(model)
    with torch.no_grad():  # the same weights, each shard of the data for itself
        for _ in range(40):
            model(images()[0])
            other(images()[0] * 0.6 + 0.5)
    data = several()
    a, b = (bnprobe.record(m.eval(), data) for m in (model, other))
    yield fault("compared", bnprobe.compare(a, b), Must("frozen-statistics-moved"))
    yield right("the same", bnprobe.compare(a, bnprobe.record(copy.deepcopy(model), data)))


@CASES.add(
    "trained in half precision, skipped steps spoil the statistics",
    "pytorch/pytorch#88474, pytorch/pytorch#96798",
)
def spoiled() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=3), steps=60)
    x, _ = images()
    x[0, 0, 0, 0] = float("inf")
    with torch.no_grad():
        model(x)
    yield fault("file", checked(model.state_dict()), Must("statistics-poisoned"))
    yield fault("evaluation", told(model.eval(), several()), Must("statistics-poisoned"))


@CASES.add(
    "weight decay has shrunk every gamma", "Lightning-AI/lit-llama#254, microsoft/Swin-Transformer#176"
)
def decayed() -> Iterator[Look]:
    for decay in (2.0, 0.01):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 32), *(
            layer for _ in range(3) for layer in (nn.LayerNorm(32), nn.Linear(32, 32), nn.GELU())
        ), nn.LayerNorm(32), nn.Linear(32, 4))  # fmt: skip

        def batch() -> tuple[Tensor, Tensor]:
            x = torch.randn(64, 8)
            return x, x[:, :4].argmax(1)

        fit(model, batch, 800, make=torch.optim.AdamW, lr=3e-3, weight_decay=decay)
        report = told(model, several(batch), loss=F.cross_entropy)
        if decay > 1:
            yield fault("decay 2", report, Must(".*", words=("decay",), severities=ANY))
        else:
            yield right("decay 0.01", report)
