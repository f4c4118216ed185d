# SPDX-License-Identifier: Apache-2.0
"""Calibration errors and AUROC against independent computations, and temperature scaling on known cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.evaluation.uncertainty import (
    auroc,
    calibration_error,
    cross_fitted_ece,
    ece,
    ece_of_perfect,
    fit_temperature,
    stratified_folds,
)

metrics = pytest.importorskip("sklearn.metrics")

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 200), st.integers(1, 30), st.sampled_from([None, 1, 2]))
def test_the_calibration_error_is_that_of_a_plain_count(seed, count, bins, decimals):
    rng = np.random.default_rng(seed)
    confidence = rng.random(count) if decimals is None else rng.random(count).round(decimals)  # also on the edges
    correct = rng.random(count) < confidence
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        members = [i for i in range(count) if (low < confidence[i] <= high) or (b == 0 and confidence[i] == 0)]
        if members:
            share = sum(bool(correct[i]) for i in members) / len(members)
            total += len(members) / count * abs(share - sum(confidence[i] for i in members) / len(members))
    assert calibration_error(confidence, correct, bins) == pytest.approx(total, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 100), st.sampled_from([None, 0, 1]))
def test_auroc_is_that_of_sklearn_ties_included(seed, count, decimals):
    rng = np.random.default_rng(seed)
    score = rng.normal(size=count) if decimals is None else rng.normal(size=count).round(decimals)
    positive = np.arange(count) < rng.integers(1, count)
    rng.shuffle(positive)
    assert auroc(score, positive) == pytest.approx(metrics.roc_auc_score(positive, score), abs=1e-12)


def test_one_sided_or_empty_input_is_refused():
    with pytest.raises(ValueError, match="one positive and one negative"):
        auroc(np.zeros(3), np.ones(3, bool))
    with pytest.raises(ValueError, match="M >= 1"):
        calibration_error(np.empty(0), np.empty(0, bool))


def test_temperature_undoes_what_made_probabilities_too_sure():
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.full(4, 0.7), 6000)
    label = np.array([rng.choice(4, p=row) for row in probability])
    for factor in (0.2, 1.0, 3.0):  # logits of that scale
        logits = factor * np.log(probability)
        assert fit_temperature(logits, label) == pytest.approx(factor, rel=0.06)
        halves = stratified_folds(label, 2) == 0
        assert cross_fitted_ece(logits, label, halves) < 0.02
        assert ece(logits, label, factor) < 0.02
    assert ece(3 * np.log(probability), label) > 0.1


def test_a_temperature_is_not_judged_on_what_it_was_fitted_on():
    """The two halves ask for different temperatures: judged honestly, neither helps the other."""
    rng = np.random.default_rng(1)
    probability = rng.dirichlet(np.full(3, 0.7), 4000)
    label = np.array([rng.choice(3, p=row) for row in probability])
    halves = np.arange(4000) < 2000
    logits = np.log(probability) * np.where(halves, 4.0, 0.25)[:, None]
    own = np.concatenate([logits[halves] / 4.0, logits[~halves] / 0.25])
    assert ece(own, np.concatenate([label[halves], label[~halves]])) < 0.03
    assert cross_fitted_ece(logits, label, halves) > 0.2


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 5), st.integers(2, 6))
def test_folds_are_even_in_every_class(seed, classes, folds):
    label = np.random.default_rng(seed).integers(0, classes, 83)
    fold = stratified_folds(label, folds, seed % 1000)
    counts = np.array([[(fold[label == c] == k).sum() for k in range(folds)] for c in range(classes)])
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()
    assert np.ptp(counts.sum(axis=0)) <= 1


def test_few_shapes_leave_an_error_to_chance():
    """Labels drawn from the probabilities themselves have the error that is said to be left to chance."""
    rng = np.random.default_rng(0)
    floors = []
    for count in (200, 5000):
        probability = rng.dirichlet(np.full(3, 0.7), count)
        logits = 2 * np.log(probability)
        label = [np.array([rng.choice(3, p=row) for row in probability]) for _ in range(5)]
        floors.append(ece_of_perfect(logits, 2.0))
        assert np.mean([ece(logits, each, 2.0) for each in label]) == pytest.approx(floors[-1], rel=0.4)
    assert floors[0] > 3 * floors[1]
