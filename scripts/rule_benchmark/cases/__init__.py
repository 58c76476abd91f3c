"""Problems of real users, rebuilt in a few lines each: what bnprobe must say of them, and of the repaired version.

A case is a generator of looks. `fault(...)` is a finding table in which something must be found, `right(...)` one of a
script that is correct, where nothing may be said at warning or above.
"""

from scripts.rule_benchmark.cases import (
    averaging,
    axes,
    comparisons,
    correct,
    custom,
    fifth_round,
    files,
    fine_tuning,
    fourth_round_inputs,
    fourth_round_weights,
    gradients,
    inputs,
    second_files,
    second_round_live,
    several_uses,
    sixth_round,
    sixth_round_files,
    statistics,
    third_round_live,
    threads,
    variants,
    young,
)
from scripts.rule_benchmark.cases.case import Case, Look, Must

CASES: tuple[Case, ...] = (
    *gradients.CASES,
    *custom.CASES,
    *statistics.CASES,
    *comparisons.CASES,
    *files.CASES,
    *threads.CASES,
    *fine_tuning.CASES,
    *averaging.CASES,
    *axes.CASES,
    *variants.CASES,
    *several_uses.CASES,
    *young.CASES,
    *inputs.CASES,
    *second_files.CASES,
    *second_round_live.CASES,
    *third_round_live.CASES,
    *fourth_round_inputs.CASES,
    *fifth_round.CASES,
    *sixth_round.CASES,
    *sixth_round_files.CASES,
    *fourth_round_weights.CASES,
    *correct.CASES,
)

__all__ = ["CASES", "Case", "Look", "Must"]
