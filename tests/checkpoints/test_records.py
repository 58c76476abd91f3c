"""Records without a call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from measures.sites import running_stats_of, site, some_rows
from support.token_models import Gpt, tokens

import bnprobe
from bnprobe.checkpoints.records import without_calls
from bnprobe.stats.fields import RECORDED


@pytest.mark.parametrize("name", RECORDED)
def test_a_norm_that_was_not_called_has_no_sums(name: str) -> None:
    """Fails if a sum of `stats.fields` outlives the calls that it is of."""
    rows = some_rows()
    called = replace(site(rows, **running_stats_of(rows)), **{name: np.full(3, 7.0)})
    assert getattr(without_calls(called), name).tolist() == [0, 0, 0]
    assert without_calls(called).running_mean is called.running_mean


def test_nothing_of_the_tokens_of_a_blank_pass_is_kept() -> None:
    """Fails if tokens that are all alike, as those of a blank input are, come among what a file says."""
    model = Gpt().eval()
    for record in bnprobe.record(model, [tokens(6)]).layers:
        assert record.tokens is not None
        without = without_calls(record)
        assert without.tokens is None
        assert without.pre_folds is None
        assert without.neighbours is not None
        assert np.isnan([without.neighbours.largest_logit, without.neighbours.attention_evenness]).all()
        assert without.neighbours.role == record.neighbours.role
