"""A network that judges images: who may be one, and at which rank it puts the class that was intended."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np
import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, class_name
from bnprobe.experiments.outputs import deciding
from bnprobe.experiments.put_back import in_eval_mode
from bnprobe.experiments.snapshot import all_put_back
from bnprobe.experiments.synthesize.inputs import Constants, Inputs, n_classes, refusal
from bnprobe.norms import ModuleTree
from bnprobe.probe.integrity.checksums import digests
from bnprobe.probe.survey.unwrap import unwrap
from bnprobe.stats.significance import mostly_above

AT_ONCE = 64
"""Images of one pass that needs no statistics."""

CONFIDENCE = 1.959964
"""Standard deviations on each side of a 95% interval."""


@dataclass(frozen=True)
class Verdicts:
    """Of each image the rank of its class among all, 1 for the largest score, and the class of the largest score; (n,)."""

    ranks: Tensor
    guesses: Tensor

    @property
    def right(self) -> float:
        """Share of images whose class comes first."""
        return float((self.ranks == 1).double().mean())

    @property
    def median_rank(self) -> float:
        """Half of the images have a smaller rank, or this one."""
        return float(self.ranks.double().quantile(0.5))

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the share (Wilson): also where all or none are right."""
        n, p, z2 = len(self.ranks), self.right, CONFIDENCE**2
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = CONFIDENCE * (p * (1 - p) / n + z2 / (4 * n**2)) ** 0.5 / (1 + z2 / n)
        return max(middle - half, 0.0), min(middle + half, 1.0)

    @property
    def rank_interval(self) -> tuple[float, float]:
        """95% interval of the median rank, by order statistics; of fewer than six images all that there is."""
        n, ranks = len(self.ranks), self.ranks.sort().values
        outside = max(floor((n - CONFIDENCE * n**0.5) / 2), 1)
        return float(ranks[outside - 1]), float(ranks[n - outside])

    def worse_than(self, other: Verdicts) -> float:
        """How probable it is by chance that these ranks are as much worse than those of `other`: of their ratios, image by
        image, as a class is hard or easy in both."""
        return mostly_above(np.asarray((self.ranks.double() / other.ranks.double()).log()))


def verdicts(scores: Tensor, targets: Tensor) -> Verdicts:
    """Of scores (n, K) and classes (n,). Scores that are not finite are no verdict: such a class comes last."""
    scores, targets = scores.detach().double().cpu(), targets.cpu()
    own = scores.gather(1, targets[:, None])
    ranks = 1 + (scores > own).sum(1)
    ranks = torch.where(scores.isfinite().all(1), ranks, torch.full_like(ranks, scores.shape[1]))
    return Verdicts(ranks, scores.nan_to_num(-torch.inf).argmax(1))


@dataclass(frozen=True)
class Judge:
    """A network other than the one that images were made from, and its inputs."""

    model: nn.Module
    inputs: Inputs
    name: str

    def verdicts(self, pixels: Tensor, targets: Tensor) -> Verdicts:
        """Of images (n, *shape), 0 to 1. The network is afterwards as it was."""
        with all_put_back(self.model):
            in_eval_mode(self.model)
            return verdicts(scored(self.model, self.inputs, pixels), targets)


def scored(model: nn.Module, inputs: Inputs, pixels: Tensor) -> Tensor:
    """The scores of a model, (n, K)."""
    found = []
    with torch.no_grad():
        for part in torch.split(pixels, AT_ONCE):
            scores = deciding(model(inputs.of(part.to(inputs.device))))
            assert scores is not None
            found.append(scores.detach())
    return torch.cat(found)


def judge_of(
    judge: nn.Module | None,
    model: nn.Module,
    inputs: Inputs,
    classes: int | None,
    normalize: Constants | None = None,
) -> Judge | None:
    """The judge, tried by a pass. Raises BnprobeError where it is the network itself, or cannot judge its images."""
    if judge is None:
        return None
    if not isinstance(judge, nn.Module):
        raise BnprobeError(
            f"judge must be a network, got {class_name(judge)}. Pass a torch.nn.Module of the same classes."
        )
    name = class_name(judge)
    if is_same(judge, model):
        raise BnprobeError(
            "the judge is the network itself: it recognizes whatever was optimized for it, data or not. Pass a network of "
            "another architecture, or from another training run."
        )
    if classes is None:
        raise BnprobeError("the model scores no classes, so there is nothing to judge. Leave the judge out.")
    parameter = next(iter(ModuleTree.of(judge).parameters().values()), None)
    own = inputs.like(parameter, normalize)
    with all_put_back(judge):
        in_eval_mode(judge)
        if why := refusal(judge, own):
            raise BnprobeError(
                f"the judge {name} does not take images of shape {inputs.shape} ({why}). Pass one that does, or "
                "another shape=."
            )
        theirs = n_classes(judge, own)
    if theirs != classes:
        raise BnprobeError(
            f"the judge {name} scores {theirs or 'no'} classes and the network {classes:,}. Pass one with the same classes."
        )
    return Judge(judge, own, name)


def is_same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models are one, or have the same weights to the last bit."""
    a, b = unwrap(one)[0], unwrap(other)[0]
    if a is b:
        return True
    ours, theirs = (list(ModuleTree.of(m).parameters().values()) for m in (a, b))
    shapes = [[t.shape for t in tensors] for tensors in (ours, theirs)]
    return (
        bool(ours)
        and shapes[0] == shapes[1]
        and digests(ours) == digests([t.to(o) for t, o in zip(theirs, ours, strict=True)])
    )
