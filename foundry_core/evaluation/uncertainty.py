# SPDX-License-Identifier: Apache-2.0
"""Whether probabilities can be trusted: calibration errors and ranking of the unknown, plain functions on numpy."""

from __future__ import annotations

import numpy as np

BINS = 15
#: temperatures that are tried: a thirtieth (cosines have small scales) to ten, 2 % apart
_TEMPERATURES = np.exp(np.arange(np.log(1 / 30), np.log(10.0), 0.02))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms float64 [...,C] of the probabilities of logits [...,C]."""
    logits = np.asarray(logits, np.float64)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error, 0 to 1 (Naeini et al., 2015; Guo et al., 2017).

    The mean over answers of the difference between the share of right ones and the mean confidence in their bin. Bins
    are of equal width and open below, the lowest one closed.

    Args:
        confidence: float [M] in 0..1, probability of the answer.
        correct: bool [M].
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if confidence.shape != correct.shape or confidence.ndim != 1 or not len(confidence):
        raise ValueError(f"confidence {confidence.shape} and correct {correct.shape}: give one of each, M >= 1")
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(number, correct - confidence, bins)
    return float(np.abs(gap).sum() / len(confidence))


def ece(logits: np.ndarray, label: np.ndarray, temperature: float = 1.0) -> float:
    """:func:`calibration_error` of the best class of logits [M,C] for labels int [M]."""
    probability = np.exp(log_softmax(np.asarray(logits) / temperature))
    return calibration_error(probability.max(axis=1), probability.argmax(axis=1) == label)


def ece_of_perfect(logits: np.ndarray, temperature: float = 1.0, draws: int = 200, seed: int = 0) -> float:
    """The :func:`ece` that logits [M,C] would have, on average, if their probabilities were exactly right.

    It is not 0, since a bin holds few answers: what a measured ECE has to be held against.
    """
    probability = np.exp(log_softmax(np.asarray(logits) / temperature)).max(axis=1)
    right = np.random.default_rng(seed).random((draws, len(probability))) < probability
    return float(np.mean([calibration_error(probability, row) for row in right]))


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a positive has a higher score than a negative, ties count half.

    Args:
        score: float [M]; positive: bool [M], both kinds present.
    """
    score, positive = np.asarray(score, np.float64), np.asarray(positive, bool)
    first, second = int(positive.sum()), int((~positive).sum())
    if score.shape != positive.shape or not first or not second:
        raise ValueError("give scores of at least one positive and one negative")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2)[inverse]  # 1 .. M, equal scores share their mean rank
    return float((rank[positive].sum() - first * (first + 1) / 2) / (first * second))


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """The temperature of least negative log-likelihood for logits [M,C] and labels int [M] (Guo et al., 2017)."""
    rows = np.arange(len(label))
    losses = [-log_softmax(np.asarray(logits) / t)[rows, label].mean() for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def cross_fitted_ece(logits: np.ndarray, label: np.ndarray, halves: np.ndarray) -> float:
    """ECE with temperature scaling, honest: each half is scaled by the temperature that the other one asks for.

    Args:
        logits: [M,C]; label: int [M].
        halves: bool [M], which half a row is of; both have members.
    """
    scaled = np.array(logits, np.float64)
    for half in (halves, ~halves):
        scaled[half] /= fit_temperature(logits[~half], label[~half])
    return ece(scaled, label)


def stratified_folds(label: np.ndarray, folds: int, seed: int = 0) -> np.ndarray:
    """int [M] in 0..folds-1: random parts of shapes with labels int [M], as even as it goes in every class."""
    label = np.asarray(label)
    order = np.random.default_rng(seed).permutation(len(label))
    order = order[np.argsort(label[order], kind="stable")]
    fold = np.empty(len(label), int)
    fold[order] = np.arange(len(label)) % folds
    return fold
