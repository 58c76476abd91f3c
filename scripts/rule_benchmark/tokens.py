"""What is said of small transformers that were trained with a mistake, and of those that were trained as they should be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

import bnprobe
from scripts.rule_benchmark.cases.case import ANY, SEVERE, Must
from scripts.rule_benchmark.token_networks import RATE, Recipe, sequences, trained

SEEDS = (0, 1, 2)
N_SEQUENCES, AT_A_TIME = 32, 8


@dataclass(frozen=True)
class Mistake:
    """A way to train wrongly, and the finding that must name it, cause included."""

    name: str
    recipe: Recipe
    must: Must


MISTAKES = (
    Mistake(
        "learning rate × 15, no warm-up, no clipping",
        Recipe(rate=15 * RATE, warm_up=False, clip=False),
        Must("attention-saturates|first-block-overwrites", words=("learning rate|warm",)),
    ),
    Mistake(
        "attention logits × 16",
        Recipe(attention_scale=16.0),
        Must("attention-saturates", words=("√d",)),
    ),
    Mistake(
        "trained in bfloat16 alone",
        Recipe(dtype="bfloat16"),
        Must("updates-below-step", words=("bfloat16", "float32")),
    ),
    Mistake(
        "first norm over positions",
        Recipe(over_time=True),
        Must("future-leaks", "blocks.0", ("norm",)),
    ),
    Mistake(
        "branches × 6",
        Recipe(branch_scale=6.0),
        Must("first-block-overwrites", words=("branch",)),
    ),
    Mistake("no final norm", Recipe(final_norm=False), Must("no-final-norm", severities=ANY)),
    Mistake(
        "first norm of whole sequences",
        Recipe(norm="rms", of_sequence=True),
        Must("future-leaks", "blocks.0", ("norm",)),
    ),
    Mistake(
        "mask of padding in place of the causal one",
        Recipe(sees_all=True),
        Must("future-leaks", "blocks.0", ("attention", "mask")),
    ),
    Mistake(
        "softmax over queries",
        Recipe(softmax_over="queries"),
        Must("future-leaks", "blocks.0", ("attention", "softmax")),
    ),
    Mistake(
        "no residual connections",
        Recipe(residual=False),
        Must("no-residual", words=("residual|skip",)),
    ),
    Mistake(
        "two norms in a row", Recipe(twice=True), Must("norm-repeated", "again", ("norm",), severities=ANY)
    ),
    Mistake(
        "gate and last weights both begin at 0",
        Recipe(stuck=True),
        Must("block-off", words=("gate|both", "gradient")),
    ),
    Mistake(
        "one vector added to every token",
        Recipe(offset=30.0),
        Must("tokens-alike", words=("constant|one vector|same vector|offset",)),
    ),
    Mistake("eps of .1", Recipe(eps=0.1), Must("variance-below-eps", words=("eps",), severities=ANY)),
)

HEALTHY = {
    "layer norm": Recipe(),
    "RMS norm": Recipe(norm="rms"),
    "QK norm": Recipe(norm="rms", qk_norm=True),
    "norms before and after branches": Recipe(after_branch=True),
    "post-norm": Recipe(post_norm=True),
    "branches × .05": Recipe(branch_scale=0.05),
    # its loss is that of the others: 16 channels per head are few
    "logits not divided by √d": Recipe(attention_scale=4.0),
}


def tokens(models: Path, only: str = "", seeds: tuple[int, ...] = SEEDS) -> pd.DataFrame:
    """A row per network and seed: its loss, what had to be said, what is missing, and what else is said.

    `only` is a word that names of networks must hold.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: what is trained is the same every time
    wanted = [(one.name, one.recipe, (one.must,)) for one in MISTAKES]
    wanted += [(f"healthy: {name}", recipe, ()) for name, recipe in HEALTHY.items()]
    wanted = [one for one in wanted if only in one[0]]
    rows = []
    for seed in seeds:
        for name, recipe, musts in tqdm(wanted, desc=f"transformers, seed {seed}", disable=None):
            model, loss = trained(recipe, seed, models)
            found = look(model)
            severe = found[found["severity"].isin(SEVERE)]
            asked = found["rule"].str.fullmatch("|".join(must.rule for must in musts) or "$^")
            rows.append(
                {
                    "network": name,
                    "seed": seed,
                    "loss": round(loss, 3),
                    "expected": "; ".join(must.rule for must in musts),
                    "missing": "; ".join(filter(None, (must.missing(found) for must in musts))),
                    "others": ", ".join(sorted(set(severe["rule"][~asked[severe.index]]))),
                }
            )
    torch.set_num_threads(threads)
    return pd.DataFrame(rows)


def look(model: torch.nn.Module) -> pd.DataFrame:
    """The findings of a page of the network on held-out text, with what must not move its outputs."""
    batches = sequences(N_SEQUENCES).split(AT_A_TIME)
    recording = bnprobe.record(model, batches)
    tried = bnprobe.invariances(model, [batches[0]])
    return bnprobe.report(recording, invariances=tried).findings
