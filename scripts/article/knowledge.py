"""Claim 7, the question of the title: images that nobody gave a network, drawn from what its batch norms store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe import models
from bnprobe.models import image_folder
from bnprobe.report.chapters.made import page as page_of
from bnprobe.report.numbers import share
from bnprobe.report.page.blocks import Block, Prose, Section
from scripts.article import words
from scripts.article.networks import Laboratory, Photographs, Sizes, train
from scripts.article.verdicts import Drawn, Recognized, Verdict
from scripts.gradient_balance import NORMS, network
from scripts.made_images import cifar_judge, made_of_cifar
from scripts.recalibration_study import batches, images

TITLE = "What the statistics know"
CLAIM = (
    "The means and variances that batch norm stores say what the data look like: with them, and with the weights, images "
    "can be drawn that another network recognizes."
)
CHINESE = "BatchNorm 存下的均值和方差记录了数据的样子：凭它们和权重，可以画出另一个网络认得的图像。"

ROWS = ("statistics and classes", "classes only", "statistics only", "permuted statistics")
"""Of `made.table`, in the order of the fields of `Drawn`."""

PIXELS = ((0.5,), (0.5,))
"""Mean and std by which pixels of 0 to 1 became the judge's inputs of −1 to 1."""

SIDE = 4
"""Pixels of an image of the demo, by side, for one of the digits as the judge has learned them."""


@dataclass(frozen=True)
class Measured:
    made: bnprobe.Made
    judge_reads: float


class Judge(nn.Module):
    """Reads images of 32 x 32 in color as what they show in gray at 8 x 8: single pixels and colors change nothing."""

    def __init__(self, reader: nn.Module) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.reader(nn.functional.avg_pool2d(x.mean(1, keepdim=True), SIDE))
        return found


def judge(sizes: Sizes) -> nn.Module:
    """Another network: another architecture with layer norm instead of batch norm, from other weights and other inputs."""
    torch.manual_seed(1)
    reader = network(NORMS["layer"], sizes.judge_depth).train()
    train(reader, sizes.judge_steps, "judge")
    return Judge(reader).eval()


def held_out() -> list[tuple[Tensor, Tensor]]:
    """The demo's digits, as its network takes them."""
    subject = models.demo()
    source = image_folder.demo_images().batches(subject.preprocess, 90)
    return [(subject.to_inputs(batch.images)[0], torch.tensor(batch.labels)) for batch in source]


def measure(laboratory: Laboratory) -> dict[str, Measured]:
    """By what the images show: of digits always, of photographs where their files are known."""
    found = {"digits": of_digits(laboratory.sizes)}
    if laboratory.photographs:
        found["photographs"] = of_photographs(laboratory.photographs)
    return found


def of_digits(sizes: Sizes) -> Measured:
    """From the demo network."""
    subject, data, other = models.demo(), held_out(), judge(sizes)
    normalize = subject.normalize
    assert normalize is not None
    made = bnprobe.synthesize(
        subject.model,
        n=sizes.n_made,
        steps=sizes.made_steps,
        judge=other,
        shape=tuple(data[0][0].shape[1:]),
        normalize=normalize,
        judge_normalize=PIXELS,
        data=data,
    )
    named = replace(made, judge="the plain network")
    return Measured(named, reads(other, [(inputs(x, normalize), y) for x, y in data]))


def of_photographs(files: Photographs) -> Measured:
    """From the CIFAR ResNet-20."""
    other = cifar_judge(files.judge, files.data)
    made = made_of_cifar(files.checkpoint, files.data, other, state=files.state)
    named = replace(made, judge="the linear layer")
    return Measured(named, reads(other, batches(images(files.data / "test"), 100)))


def inputs(x: Tensor, normalize: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    """What the judge of digits takes, of what the demo network takes."""
    mean, std = (torch.tensor(values)[:, None, None] for values in normalize)
    return (x * std + mean - 0.5) / 0.5


@torch.no_grad()
def reads(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> float:
    """Share (0..1) of real images that a judge recognizes."""
    return float(torch.cat([model(x).argmax(1) == y for x, y in data]).float().mean())


def numbers(measured: dict[str, Measured]) -> dict[str, Drawn]:
    """How many of each row the judge recognizes."""
    return {kind: drawn(m.made.table.set_index("images")) for kind, m in measured.items()}


def drawn(rows: pd.DataFrame) -> Drawn:
    """Of the rows of `made.table`."""
    both, *controls = (
        Recognized(*(float(rows.loc[row, f"judge{end}"]) for end in ("", "_low", "_high"))) for row in ROWS
    )
    return Drawn(both, *controls)


def section(measured: dict[str, Measured], verdict: Verdict) -> Section:
    blocks: list[Block] = [Prose((HOW, CONTROLS))]
    for kind, m in measured.items():
        shown = {part.id: part.blocks for part in page_of(m.made).sections}
        blocks += [
            Prose((f"{WHO[kind]} On real images it is right in {share(m.judge_reads)}.",)),
            *shown["answer"][1:],
            *shown["controls"],
        ]
    return words.section(7, TITLE, CLAIM, CHINESE, verdict, (*blocks, Prose((LIMITS,))))


HOW = (
    "What does a network know about the images that it was trained on? Nobody gives it any now. Pixels, noise at first, are "
    "changed step by step until two things hold: each batch norm receives the mean and the variance that it stored in "
    "training, and the network gives each image the class that was asked for. Another network, which took no part, then "
    "says what it sees."
)
CONTROLS = (
    "Three controls say where the knowledge lies: images for which only the class was asked for, images for which only the "
    "statistics were, and images for which each channel was asked for the statistics of another channel. The network itself "
    "is no witness: it recognizes whatever was drawn for it. The claim holds for a network if the other one recognizes more "
    "of the images than of those with exchanged statistics and of those from the classes alone, and neither difference may "
    "be chance (95% intervals)."
)
WHO = {
    "digits": "Digits are drawn from the demo network, a narrow mobilenet_v2 with 52 batch norms. The judge is a plain "
    "network of 6 layers with layer norm, which sees each image in gray at 8 x 8 pixels.",
    "photographs": "Photographs are drawn from a ResNet-20 with 19 batch norms, trained on CIFAR-10. The judge is a linear "
    "layer on the features of an ImageNet network, trained on 1,000 photographs.",
}
LIMITS = (
    "How much the weights alone give depends on how hard the class is asked for. Here it is asked for until the network is "
    "certain. Pushed further, classes alone draw images that a judge recognizes almost as often: the shape of a class is in "
    "the weights, and the statistics say what else an image must have to pass for one of the data."
)
