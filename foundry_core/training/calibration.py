# SPDX-License-Identifier: Apache-2.0
"""What is fitted on held-out sightings once the heads are trained: temperature, size likelihood, unknown threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from foundry_core.card import SizeLikelihood
from foundry_core.evaluation import uncertainty
from foundry_core.head_card import Calibration, Unknown
from foundry_core.runtime.fewshot import SHRINKAGE, Whitening, nearest_cosine
from foundry_core.runtime.sizes import log_likelihood
from foundry_core.runtime.transfer import energy
from foundry_core.training.config import TransferConfig

_EDGES = np.geomspace(0.05, 20.0, 25)
_FLOOR = 0.05  # share that is spread evenly: no size is impossible
_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """The temperature of least negative log-likelihood on held-out data (Guo et al., 2017)."""
    return round(uncertainty.fit_temperature(logits.numpy(), label.numpy()), 4)


def fit_threshold(log_probability: np.ndarray, reject: float) -> float:
    """The unknown threshold below which a share ``reject`` of these known objects [M,C] is, sizes weighed in."""
    return round(float(np.quantile(np.exp(log_probability.max(axis=1)), reject)), 4)


def size_likelihood(diagonal: np.ndarray, label: np.ndarray, classes: Sequence[str]) -> SizeLikelihood:
    """Smoothed histograms of the diagonals [M] (metres; NaN is left out) of each class, over even steps of the log.

    A class of which no size is known gets no table.
    """
    density = {}
    for number, name in enumerate(classes):
        seen = diagonal[(label == number) & np.isfinite(diagonal)]
        if len(seen):
            inside = np.clip(seen, _EDGES[0], np.nextafter(_EDGES[-1], 0))
            counts = np.histogram(inside, _EDGES)[0].astype(float)
            smooth = gaussian_filter1d(counts, 1.0, mode="nearest")
            smooth = (1 - _FLOOR) * smooth / smooth.sum() + _FLOOR / len(smooth)
            density[name] = [round(float(value), 6) for value in smooth]
    return SizeLikelihood(edges_m=[round(float(edge), 4) for edge in _EDGES], density=density)


def fit_size_weight(
    log_probability: np.ndarray, diagonal: np.ndarray, label: np.ndarray, sizes: SizeLikelihood, classes: Sequence[str]
) -> float:
    """The exponent of the likelihood with the least negative log-likelihood on held-out objects [M,C]."""
    losses = []
    for weight in _WEIGHTS:
        scores = log_probability + log_likelihood(sizes.model_copy(update={"weight": weight}), diagonal, classes)
        normal = np.logaddexp.reduce(scores, axis=1)
        losses.append(float((normal - scores[np.arange(len(label)), label]).mean()))
    return _WEIGHTS[int(np.argmin(losses))]


def calibrate(logits: np.ndarray, label: np.ndarray, group: np.ndarray, seed: int) -> Calibration:
    """Temperature and calibration errors from logits [J,C] and labels [J] of what a head has not learned from.

    Args:
        group: int [J], the shape of each row; the halves that judge each other are made of whole shapes.
    """
    shapes, inverse = np.unique(group, return_inverse=True)
    first = np.empty(len(shapes), int)
    first[inverse] = label  # a label of each shape, for even halves
    halves = (uncertainty.stratified_folds(first, 2, seed) == 0)[inverse]
    return Calibration(
        temperature=round(uncertainty.fit_temperature(logits, label), 4),
        shapes=len(shapes),
        ece_before=round(uncertainty.ece(logits, label), 4),
        ece_after=round(uncertainty.cross_fitted_ece(logits, label, halves), 4),
    )


def _exemplars(label: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Rows int [E] of labels [M], up to ``most`` of each class."""
    order = np.random.default_rng(seed).permutation(len(label))
    return np.sort(np.concatenate([order[label[order] == number][:most] for number in np.unique(label)]))


def fit_unknown(
    config: TransferConfig,
    pooled: np.ndarray,
    label: np.ndarray,
    fold: np.ndarray,
    judged: np.ndarray,
    logits: np.ndarray,
    shrinkage: float = SHRINKAGE,
) -> tuple[Unknown, dict[str, np.ndarray]]:
    """When a classification head says unknown, and the tensors that it needs for that.

    Args:
        pooled: [M,F] of the train shapes; label, fold: int [M].
        judged: bool [M], the shapes that the threshold is fitted on, each against those of the other folds.
        logits: [J,C] of these.
        shrinkage: of the whitening.
    """
    if config.unknown == "energy":
        score, tensors, count = energy(logits), {}, 0
    else:

        def space_of(rows: np.ndarray) -> tuple[Whitening, np.ndarray]:
            made = Whitening.fit(pooled[rows], label[rows], shrinkage)
            chosen = rows[_exemplars(label[rows], config.exemplars, config.loop.seed)]
            return made, made.units(pooled[chosen])

        score = np.empty(len(label))
        for number in np.unique(fold[judged]):
            own = judged & (fold == number)
            made, units = space_of(np.flatnonzero(fold != number))
            score[own] = 1 - nearest_cosine(made.units(pooled[own]), units)
        score = score[judged]
        made, units = space_of(np.arange(len(label)))
        tensors = {"space.center": made.center, "space.matrix": made.matrix, "space.exemplars": units}
        count = len(units)
    threshold = float(np.quantile(score, 1 - config.reject))
    return Unknown(score=config.unknown, threshold=threshold, rejected=config.reject, exemplars=count), tensors
