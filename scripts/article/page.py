"""The article "What did Batch Normalization really learn about the data?", measured: seven claims, seven verdicts.

    python -m scripts.article --checkpoint cifar_resnet20.th --data cifar10_jpeg
    python -m scripts.article            # without these files: the last claim on digits alone
    python -m scripts.article --small    # the same verdicts from less computing

writes reports/article.html in some eight minutes on one core. The files, which only claim 7 uses, are those of
reports/README.md.

Everything random is seeded, so a second run gives the same page.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from bnprobe.files import write_output
from bnprobe.report.formats.html import to_html
from bnprobe.report.page.blocks import Facts, Page, Prose, Section
from scripts.article import affine, balance, depth, knowledge, pooling, shape, target, verdicts
from scripts.article.networks import SMALL, Laboratory, Photographs, Sizes
from scripts.article.verdicts import Verdict

Judged = tuple[Verdict, Section]


def shape_is_kept(laboratory: Laboratory) -> Judged:
    measured = shape.measure(laboratory)
    verdict = verdicts.shape(**shape.numbers(measured))
    return verdict, shape.section(measured, verdict)


def it_is_a_line(laboratory: Laboratory) -> Judged:
    measured = affine.measure(laboratory)
    verdict = verdicts.fold(**affine.numbers(measured))
    return verdict, affine.section(measured, verdict)


def depth_needs_it(laboratory: Laboratory) -> Judged:
    measured = depth.measure(laboratory)
    verdict = verdicts.drift(**depth.numbers(measured))
    return verdict, depth.section(measured, verdict)


def balance_is_best(laboratory: Laboratory) -> Judged:
    measured = balance.measure(laboratory)
    verdict = verdicts.balance(**balance.numbers(measured))
    return verdict, balance.section(measured, verdict)


def target_is_reached(laboratory: Laboratory) -> Judged:
    measured = target.measure(laboratory)
    verdict = verdicts.target(**target.numbers(measured))
    return verdict, target.section(measured, verdict)


def pooling_is_all(laboratory: Laboratory) -> Judged:
    measured = pooling.measure(laboratory)
    verdict = verdicts.pooling(**pooling.numbers(measured))
    return verdict, pooling.section(measured, verdict)


def statistics_know(laboratory: Laboratory) -> Judged:
    measured = knowledge.measure(laboratory)
    verdict = verdicts.knowledge(knowledge.numbers(measured))
    return verdict, knowledge.section(measured, verdict)


CLAIMS: tuple[Callable[[Laboratory], Judged], ...] = (
    shape_is_kept,
    it_is_a_line,
    depth_needs_it,
    balance_is_best,
    target_is_reached,
    pooling_is_all,
    statistics_know,
)


def run(sizes: Sizes, photographs: Photographs | None = None) -> list[Judged]:
    """Every claim, measured and judged; the last one also on photographs, where their files are given."""
    # the order of additions, and with it the last bits, must not depend on the machine's cores
    torch.set_num_threads(1)
    laboratory = Laboratory(sizes, photographs)
    return [claim(laboratory) for claim in tqdm(CLAIMS, desc="claims", unit="claim", disable=None)]


def page(judged: list[Judged]) -> Page:
    """The verdicts first, then the words one needs, then the claims."""
    answer = Facts(tuple((section.title, str(verdict)) for verdict, section in judged))
    return Page(
        title="What did Batch Normalization really learn about the data?",
        lead="Six claims of an article and the question of its title, put to the test with bnprobe: each an experiment, a "
        "picture, and a verdict.",
        sections=(
            Section("answer", "The seven verdicts", (Prose(OPENING), answer)),
            Section("words", "The words one needs", (Facts(WORDS), Prose(NOTATION))),
            *(section for _, section in judged),
            Section("again", "Do it again", (Prose(AGAIN),)),
        ),
        footer="Made by python -m scripts.article of bnprobe; every number on this page is computed when it is made.",
    )


OPENING = (
    "An article in Chinese asks what the most common building block of deep networks, Batch "
    "Normalization, learns from data. Its answer "
    "has six parts; a seventh claim takes its title at its word. Here each of them is an experiment that could "
    "have come out the other way; the "
    "verdict is computed from "
    "the measured numbers by a rule that is written down (scripts/article/verdicts.py), and is one of: "
    "holds, holds with a limit, does not hold as stated.",
)

WORDS = (
    (
        "network, layer, weights",
        "A network is a chain of layers; each turns many numbers into many others. What it multiplies by "
        "are its weights, which training changes.",
    ),
    (
        "channel",
        "One of the many outputs of a layer, computed by one filter. For a picture a channel is itself a "
        "small picture, with a value per position.",
    ),
    (
        "distribution",
        "How the values of one channel are spread when many images pass: where they lie, how wide, and in "
        "which shape.",
    ),
    (
        "mean, variance, standard deviation",
        "The mean is the average. The variance is the average squared distance from it (here always "
        "divided by the number of values), the standard deviation its square root.",
    ),
    ("Gaussian", "The bell-shaped distribution. N(m, s²) is the one with mean m and standard deviation s."),
    (
        "Z-score",
        "(x − mean) / standard deviation: how many standard deviations a value lies from the mean. Z-scores have mean 0 and "
        "standard deviation 1.",
    ),
    (
        "normalization, norm",
        "A layer that takes Z-scores of its input. Batch norm takes them per channel over a batch, that "
        "is the images that are processed together.",
    ),
    ("γ and β", "Two numbers per channel that a norm learns: it multiplies the Z-score by γ and adds β."),
    (
        "train mode, eval mode",
        "In training a batch norm uses the mean and standard deviation of the batch at hand, and keeps a running "
        "average of them, the running statistics. In use (eval mode) it uses these.",
    ),
    (
        "rounding",
        "Computers keep some 7 digits of a 32-bit number and 16 of a 64-bit one. Differences of 1e−7 or "
        "1e−16 (a 1 after so many zeros) are no differences.",
    ),
)

NOTATION = (
    "Numbers are given with two or three digits; 1.5e−7 means 0.00000015. Axes that are said to be "
    "logarithmic have the same distance from 1 to 10 as from 10 to 100.",
)

AGAIN = (
    "python -m scripts.article --checkpoint cifar_resnet20.th --data cifar10_jpeg makes this page again, in some eight "
    "minutes on one core, with the same numbers on the same versions of the libraries; "
    "tests/scripts/test_article.py plants the opposite of every claim (a layer that is no line, a wrong fold, a "
    "norm that pools wrongly, ...) and demands the opposite verdict. "
    "scripts/tour.py is the shortest way to ask such questions of a network of your own.",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="shorter training, fewer settings")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("reports/article.html"),
        metavar="FILE",
        help="default: %(default)s",
    )
    files = parser.add_argument_group("photographs, for the last claim")
    files.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of the CIFAR ResNet-20")
    files.add_argument("--data", type=Path, metavar="DIR", help="images of CIFAR-10, in train and test")
    files.add_argument("--judge", type=Path, metavar="FILE", help="keep the trained judge here")
    files.add_argument("--state", type=Path, metavar="FILE", help="keep the run here, and go on from it")
    options = parser.parse_args()
    if bool(options.checkpoint) != bool(options.data):
        parser.error("--checkpoint and --data go together")
    names = (options.checkpoint, options.data, options.judge, options.state)
    photographs = Photographs(*names) if options.data else None
    judged = run(SMALL if options.small else Sizes(), photographs)
    print(f"written: {write_output(options.output, to_html(page(judged)).encode())}")
    for verdict, section in judged:
        print(f"{section.title}: {verdict}")


if __name__ == "__main__":
    main()
