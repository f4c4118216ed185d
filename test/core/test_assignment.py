# SPDX-License-Identifier: Apache-2.0
"""The assignment against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from foundry_core.scene.assignment import assign


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 24), st.integers(0, 24), st.integers(0, 2**31), st.booleans(), st.floats(-3, 3))
def test_the_total_is_the_least(rows, columns, seed, gated, shift):
    cost = np.random.default_rng(seed).exponential(size=(rows, columns)) + shift
    if gated:  # as tracks use it: most pairs cost the same
        cost = np.minimum(cost, 0.3 + shift)
    found, expected = assign(cost), linear_sum_assignment(cost)
    assert cost[found].sum() == pytest.approx(cost[expected].sum(), abs=1e-9)
    assert len(found[0]) == len(found[1]) == min(rows, columns)
    assert (np.diff(found[0]) > 0).all() and len(set(found[1].tolist())) == len(found[1])


def test_the_same_pairs_where_there_is_one_answer():
    cost = np.random.default_rng(0).uniform(size=(64, 90))
    for matrix in (cost, cost.T):
        for ours, theirs in zip(assign(matrix), linear_sum_assignment(matrix), strict=True):
            np.testing.assert_array_equal(ours, theirs)
