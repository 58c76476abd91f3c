"""Small residual streams, healthy or with one thing wrong, as recordings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.recording import Recording

C = 24


class Block(nn.Module):
    """Pre-norm: x + w(norm(x)), twice, with trained gains."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.RMSNorm(C), nn.RMSNorm(C)
        self.attention, self.mlp = nn.Linear(C, C), nn.Linear(C, C)
        for norm in (self.first, self.second):
            norm.weight.data = torch.linspace(0.5, 1.5, C)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.mlp(self.second(x))


class Stream(nn.Module):
    """Two blocks, a norm and a head."""

    def __init__(self, final: bool = True) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.final = nn.RMSNorm(C) if final else nn.Identity()
        self.head = nn.Linear(C, 7)
        if final:
            self.final.weight.data = torch.linspace(2.0, 0.5, C)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.final(self.blocks(x)))
        return y


def tokens() -> Tensor:
    """Tokens of like size: 6 sequences of 12."""
    return torch.randn((6, 12, C), generator=torch.Generator().manual_seed(0))


def recorded(
    change: Callable[[Stream], object] = lambda model: None, x: Tensor | None = None, final: bool = True
) -> Recording:
    """What a probe sees of a stream after a change."""
    torch.manual_seed(0)
    model = Stream(final).eval()
    with torch.no_grad():
        change(model)
        with bnprobe.attach(model) as probe:
            model(tokens() if x is None else x)
    return probe.recording


def loud(times: float, position: int = 0) -> Tensor:
    """The tokens with one position of every sequence so many times as loud, in one channel."""
    x = tokens()
    x[:, position, 5] = times
    return x


def faults() -> list[Recording]:
    """One recording for each rule about tokens and gains."""
    alike = torch.ones((6, 12, C)) + 0.05 * tokens()
    return [
        recorded(x=loud(2000.0)),
        recorded(lambda model: model.blocks[0].attention.weight.mul_(2000)),
        recorded(lambda model: (model.blocks[1].mlp.weight.zero_(), model.blocks[1].mlp.bias.zero_())),
        recorded(quiet, x=alike),
        recorded(final=False),
        recorded(
            lambda model: [
                p.sub_(1) for name, p in model.named_parameters() if "weight" in name and p.dim() == 1
            ]
        ),
        recorded(lambda model: model.final.weight[3:5].fill_(1e-9)),
        saturated(),
    ]


def saturated() -> Recording:
    """A stream whose first norm feeds attention that looks at one key."""
    recording = recorded()
    first, *others = recording.layers
    assert first.neighbours is not None
    sharp = {"role": "attention", "largest_logit": 150.0, "attention_evenness": 0.1, "attention_factor": 1.0}
    return replace(
        recording,
        layers=(replace(first, neighbours=replace(first.neighbours, **sharp)), *others),
    )


ATTENTION = {
    "norm_role": "attention",
    "largest_logit": 150.0,
    "attention_evenness": 0.2,
    "attention_factor": 1.0,
}
"""What the table of layers says of attention that saturates by its logits."""


def quiet(model: Stream) -> None:
    """Branches that hardly add to the stream."""
    for block in model.blocks:
        for layer in (block.attention, block.mlp):
            layer.weight.mul_(0.05)
            layer.bias.mul_(0.05)
