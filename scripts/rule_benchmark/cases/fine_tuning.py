"""Problems from public threads about fine-tuning and modes: what is frozen, what is not, and what is left in a mode."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from scripts.rule_benchmark.cases.case import ANY, SHIFTED, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import Batch, convnet, fit, follow, images, several, told

CASES = Cases("public threads, fine-tuning")


def others() -> Batch:
    """Images of another domain: darker, and with less contrast."""
    x, y = images()
    return x * 0.4 - 0.8, y


class Finetuned(nn.Module):
    """A backbone and a new head; `train` puts the backbone back into eval mode where `keep` is set."""

    def __init__(self, backbone: nn.Module, keep: bool, no_grad: bool = False) -> None:
        super().__init__()
        self.backbone, self.head = backbone.requires_grad_(False), nn.Linear(64, 4)
        self.keep, self.no_grad = keep, no_grad

    def train(self, mode: bool = True) -> Finetuned:
        super().train(mode)
        if self.keep:
            self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(not self.no_grad and torch.is_grad_enabled()):
            f = self.backbone(x)
        return self.head(f)


def backbone() -> nn.Module:
    return nn.Sequential(*list(fit(convnet()))[:-1])


@CASES.add("train() undoes the eval() of a frozen backbone", "pgniewko/gt-pyg#112, chemprop/chemprop#952")
def train_undoes_eval() -> Iterator[Look]:
    for no_grad in (False, True):
        for keep in (False, True):
            torch.manual_seed(0)
            model = Finetuned(backbone(), keep, no_grad)
            model.backbone.eval()
            model.train()
            fit(model, others, 40)
            report = told(model, several(others), loss=F.cross_entropy)
            if keep:
                yield right(f"train() keeps it, no_grad={no_grad}", report)
            else:
                rule = "moving-without-gradient|frozen-but-moving"
                yield fault(f"no_grad={no_grad}", report, Must(rule, "backbone", (r"eval\(\)",)))


@CASES.add("two domains in turn, and the source is tested last", "wasidennis/AdaptSegNet#79")
def two_domains() -> Iterator[Look]:
    for frozen in (False, True):
        torch.manual_seed(0)
        model = fit(convnet())
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.requires_grad_(False)
        if frozen:
            for m in model.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.eval()
        stream = iter([images(), others()] * 60)
        fit(model, lambda stream=stream: next(stream), 120)
        both = [b for _ in range(6) for b in (images(), others())]
        in_training = told(model, both, loss=F.cross_entropy)
        in_evaluation = told(model.eval(), several())
        if frozen:
            yield right("frozen, training", in_training)
        else:
            yield fault("training", in_training, Must("frozen-but-moving"))
            yield fault("the source", in_evaluation, Must(SHIFTED))


@CASES.add("the model stays in eval mode after the first validation", "joeynmt/joeynmt#184, tk-rusch/coRNN#1")
def stays_in_eval() -> Iterator[Look]:
    for back in (False, True):
        torch.manual_seed(0)
        model = fit(convnet())
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        with bnprobe.attach(model.train()) as probe:
            for i in range(24):
                x, y = images()
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                if i == 4:
                    model.eval()
                    with torch.no_grad():
                        model(images()[0])
                    model.train(back)
        report = bnprobe.report(probe)
        if back:
            yield right("train() again", report)
        else:
            says = Must(".*", words=(r"train\(\)", "eval mode"))
            yield fault("never back", report, says)


@CASES.add("validation in train mode", "princeton-vl/pytorch_stacked_hourglass#44")
def validation_in_train_mode() -> Iterator[Look]:
    for evaluates in (False, True):
        torch.manual_seed(0)
        model = fit(convnet())
        model.train(not evaluates)
        with torch.no_grad():
            report = told(model, several(others if not evaluates else images))
        if evaluates:
            yield right("eval()", report)
        else:
            yield fault("train()", report, Must("train-mode-in-evaluation"))


@CASES.add("track_running_stats is set to False to freeze the norms", "pytorch/pytorch#86590")
def no_tracking() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet())
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.track_running_stats = False
    fit(model, others, 60)
    in_training = told(model, several(others), loss=F.cross_entropy)
    yield fault(
        "training", in_training, Must(".*", words=("running statistics", "never|not updated|eval mode"))
    )
    yield fault("evaluation", told(model.eval(), several(others)), Must(SHIFTED))


@CASES.add("a discriminator or teacher is a copy in train mode", "CuriousAI/mean-teacher#9")
def mean_teacher() -> Iterator[Look]:
    class Consistency(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = convnet()
            self.ema = copy.deepcopy(self.student).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.ema(x + 0.2 * torch.randn_like(x))
            return self.student(x)

    for evaluates in (False, True):
        torch.manual_seed(0)
        model = Consistency().train()
        if evaluates:
            model.ema.eval()
        for _ in range(40):
            fit(model, steps=4)
            follow(model.ema, model.student, 0.8, evaluates)
        report = told(model, several(), loss=F.cross_entropy)
        if evaluates:
            yield right("ema in eval mode, with buffers", report)
        else:
            yield fault("training", report, Must("moving-without-gradient", "ema"))


@CASES.add("a checkpoint without buffers is loaded with strict=False", "pytorch/pytorch#110361")
def without_buffers() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet())
    other = convnet()
    other.load_state_dict({k: v for k, v in model.state_dict().items() if "running" not in k}, strict=False)
    yield fault(
        "evaluation", told(other.eval(), several()), Must("statistics-never-updated|statistics-young")
    )
    other = convnet()
    other.load_state_dict(dict(model.named_parameters()), strict=False)
    yield fault("parameters only", told(other.eval(), several()), Must("statistics-never-updated"))


@CASES.add("gradient accumulation over batches of 2", "open-mmlab/mmcv#1869, ultralytics/yolov5#1630")
def accumulation() -> Iterator[Look]:
    class Late(nn.Module):
        """Its last norm has one position."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*list(convnet())[:6])
            self.pool, self.conv = nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1, bias=False)
            self.norm, self.out = nn.BatchNorm2d(16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.relu(self.norm(self.conv(self.pool(self.body(x))))).flatten(1))

    for n in (2, 64):
        torch.manual_seed(0)
        model = Late()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)

        def step(model: nn.Module = model, optimizer: torch.optim.Optimizer = optimizer, n: int = n) -> None:
            optimizer.zero_grad()
            for _ in range(64 // n if n == 2 else 4):
                x, y = images(n)
                F.cross_entropy(model(x), y).backward()
            optimizer.step()

        for _ in range(20):
            step()
        with bnprobe.attach(model) as probe:
            step()
        report = bnprobe.report(probe)
        if n == 2:
            yield fault("32 x 2", report, Must("few-values", "norm", ("accumulation",)))
        else:
            yield right("4 x 64", report)


@CASES.add("evaluated one image at a time, in train mode", "soumith/dcgan.torch#19")
def one_at_a_time() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet())
    with torch.no_grad():
        yield fault("train()", told(model, several(lambda: images(1), 40)), Must("train-mode-in-evaluation"))
        yield right("eval()", told(model.eval(), several(lambda: images(1), 40)))


@CASES.add("one norm is shared by two inputs", "pytorch/pytorch#1738, keras-team/keras#8794")
def shared() -> Iterator[Look]:
    class Siamese(nn.Module):
        def __init__(self, apart: bool) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 16, 3, bias=False), nn.Conv2d(3, 16, 3, bias=False)
            self.norm = nn.BatchNorm2d(16)
            self.other = nn.BatchNorm2d(16) if apart else self.norm
            self.out = nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.norm(self.one(x)), self.other(self.two(x * 6 + 4))
            return self.out(torch.cat([a.relu().mean((2, 3)), b.relu().mean((2, 3))], 1))

    for apart in (False, True):
        torch.manual_seed(0)
        model = fit(Siamese(apart), steps=80)
        report = told(model.eval(), several())
        if apart:
            yield right("one each", report)
        else:
            yield fault("shared", report, Must("calls-differ|" + SHIFTED, "norm"))


@CASES.add(
    "one batch norm for all time steps of a recurrent cell", "Element-Research/rnn#252, google/flax#1250"
)
def over_steps() -> Iterator[Look]:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.back = nn.Linear(6, 24), nn.Linear(24, 24, bias=False)
            self.norm, self.out = nn.BatchNorm1d(24), nn.Linear(24, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.zeros(len(x), 24)
            for t in range(x.shape[1]):
                h = h + torch.relu(self.norm(self.into(x[:, t]) + self.back(h)))
            return self.out(h)

    def batch() -> Batch:
        y = torch.randint(0, 4, (32,))
        return torch.randn(32, 8, 6) + y[:, None, None] * 0.3, y

    torch.manual_seed(0)
    model = fit(Cell(), batch, 80)
    yield fault(
        "evaluation", told(model.eval(), several(batch)), Must("calls-differ", "norm", severities=ANY)
    )


@CASES.add("a backbone in train mode that the optimizer does not have")
def left_out() -> Iterator[Look]:
    for keep in (False, True):
        torch.manual_seed(0)
        model = Finetuned(backbone(), keep)
        model.backbone.requires_grad_(True)
        optimizer = torch.optim.SGD(model.head.parameters(), 0.1)
        with bnprobe.attach(model.train()) as probe:
            for x, y in several(others):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
        report = bnprobe.report(probe)
        if keep:
            yield right("in eval mode", report)
        else:
            left = Must("moving-without-gradient", "backbone", ("optimizer",))
            yield fault("in train mode", report, left)


@CASES.add("norms frozen on purpose, the rest trained on other images")
def frozen_on_purpose() -> Iterator[Look]:
    def frozen(model: nn.Module) -> nn.Module:
        for module in model.train().modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().requires_grad_(False)
        return model

    torch.manual_seed(0)
    model = fit(frozen(fit(convnet())), others, 60)
    yield right("training", told(model, several(others), loss=F.cross_entropy))
    report = told(model.eval(), several(others))
    named = Must("data-shifted|input-not-as-trained", "1", ("frozen", "accuracy"), ANY)
    yield fault("evaluation", report, named)
