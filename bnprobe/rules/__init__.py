"""Rules in words: each looks at the tables and says what is wrong, why, and what to do. Never imports torch.

One family, one file, with a tuple RULES at its end; a new file is listed below:

- `preprocessing`: mistakes in how inputs were made, recognized by the first norm;
- `running_stats`: what is stored, and whether the data match it (`slight_shifts` of a little only);
- `single_channels`: a few channels whose statistics are off where the others match;
- `precision`: updates too small to be stored;
- `formula`: whether outputs are what the formula gives, and with how many digits;
- `groups`: samples that come in groups, which stored statistics do not know of;
- `values`: what passed through: not finite, too few, without effect;
- `unread`: norms that gave no numbers;
- `usage`: modes, freezing, processes, how much one call saw; `ranks`: processes that differ;
- `updates`: how many updates, momentum, what is left of the initial 0 and 1;
- `stale_statistics`: training that leaves the running statistics behind;
- `frozen_parts`: parts that learn nothing while the rest does;
- `common_factor`: one factor in all running statistics; `misfits`: statistics of other weights than those before them;
- `transformed`: a function of the statistics in their place; `swapped`: vectors in each other's place;
- `dead_channels`, `eps`, `weights` and `half_overflow`: what the vectors say alone (channels that pass nothing, variances
  below eps, initial values and copies, half precision); they need no data, so they serve `check`;
- `axes`: whether norms keep statistics for the dimension of the features;
- `gains`: γ of norms over features, which need no data; `tokens`: what these norms do to each token;
- `stream`: blocks without a residual connection, norms of norms;
- `structure`: what stands around a norm: shared, redundant, folded away;
- `gradient`: what backward passes did;
- `invariances`: what moves outputs and should not, where that was tried;
- `comparison`, `compared_weights`, `compared_resets`, `misplaced`, `compared_model` and `averaged`: two recordings, by what
  passed through them, by what their norms store, by what they have no longer, by what is elsewhere, and as wholes.

A rule needs its page in `docs/` and, if it has thresholds, their names in `thresholds`. `rule` has its form,
`remedies` lines of code that several recommend, `edits` what advice changes, as data, `by_hand`
why other advice is not carried out, `tried` what came of it, `merge_runs` and `wording` what several say; `settings` and
`baseline` are what a user leaves out.
"""

from __future__ import annotations

import pandas as pd

from bnprobe.rules import (
    averaged,
    axes,
    common_factor,
    compared_model,
    compared_resets,
    compared_weights,
    comparison,
    dead_channels,
    embeddings,
    eps,
    formula,
    frozen_parts,
    gains,
    gradient,
    groups,
    half_overflow,
    invariances,
    misfits,
    misplaced,
    precision,
    preprocessing,
    ranks,
    running_stats,
    single_channels,
    stale_statistics,
    stream,
    structure,
    swapped,
    tokens,
    transformed,
    unread,
    updates,
    usage,
    values,
    weights,
)
from bnprobe.rules.remedies import in_words
from bnprobe.rules.rule import Evidence, Finding, Measured, Rule
from bnprobe.rules.thresholds import DEFAULT, Limits
from bnprobe.severity import SEVERITIES

__all__ = ["COMPARED", "RULES", "Finding", "Limits", "Rule", "judge", "judge_invariances"]

RULES: tuple[Rule, ...] = (
    *preprocessing.RULES,
    *running_stats.RULES,
    *single_channels.RULES,
    *groups.RULES,
    *values.RULES,
    *unread.RULES,
    *formula.RULES,
    *usage.RULES,
    *ranks.RULES,
    *updates.RULES,
    *stale_statistics.RULES,
    *frozen_parts.RULES,
    *precision.RULES,
    *common_factor.RULES,
    *misfits.RULES,
    *transformed.RULES,
    *swapped.RULES,
    *dead_channels.RULES,
    *eps.RULES,
    *weights.RULES,
    *half_overflow.RULES,
    *axes.RULES,
    *gains.RULES,
    *tokens.RULES,
    *stream.RULES,
    *structure.RULES,
    *gradient.RULES,
    *invariances.RULES,
)
"""The rule book, in the order in which findings of one severity are shown."""

OF_NEW_NETWORKS = ("statistics-never-updated", "affine-untrained")
"""Rules that say that a whole network is new, before other remarks on it: these follow from that."""

COMPARED: tuple[Rule, ...] = (
    *averaged.RULES,
    *embeddings.RULES,
    *compared_model.RULES,
    *misplaced.RULES,
    *compared_weights.RULES,
    *compared_resets.RULES,
    *comparison.RULES,
)
"""The rules about two recordings, which read the tables of a comparison."""

COLUMNS = ("severity", "rule", "layer", "channels", "says", "because", "do", "source", "call", "remedy")


def judge(
    measured: Measured | Evidence, limits: Limits = DEFAULT, rules: tuple[Rule, ...] = RULES
) -> pd.DataFrame:
    """Every finding of these rules, the most severe first; a row per finding, with the columns of the contract.

    Evidence comes with its own limits.
    """
    evidence = measured if isinstance(measured, Evidence) else Evidence.of(measured, limits)
    rows = [
        {**vars(finding), "do": in_words(finding.do), "rule": rule.id, "source": rule.source}
        for rule in rules
        if not (rule.of_calls and evidence.weights_only)
        for finding in rule.find(evidence)
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    # what a norm stores is the same at each of its calls, and is said once
    table = table[~table.duplicated(["rule", "layer", "channels", "severity", "says", "because", "do"])]
    rank = table["severity"].map({severity: i for i, severity in enumerate(SEVERITIES)})
    first = table["rule"].isin(OF_NEW_NETWORKS)
    first &= bool(first.any()) and evidence.is_new  # tables of a comparison cannot be asked
    table = table.assign(rank=rank, later=~first).sort_values(["rank", "later"], kind="stable")
    return table.drop(columns=["rank", "later"]).reset_index(drop=True)


def judge_invariances(table: pd.DataFrame) -> pd.DataFrame:
    """Every finding about a table of invariances, without a recording."""
    nothing = pd.DataFrame()
    return judge(Evidence(nothing, nothing, nothing, invariances=table), rules=invariances.RULES)
