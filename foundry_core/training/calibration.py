# SPDX-License-Identifier: Apache-2.0
"""What is fitted on held-out sightings once the heads are trained: temperature, size likelihood, unknown threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from foundry_core.card import SizeLikelihood
from foundry_core.runtime.sizes import log_likelihood

_EDGES = np.geomspace(0.05, 20.0, 25)
_FLOOR = 0.05  # share that is spread evenly: no size is impossible
_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """The temperature of least negative log-likelihood on held-out data (Guo et al., 2017)."""
    grid = torch.exp(torch.linspace(-1.6, 1.6, 129))
    losses = torch.stack([F.cross_entropy(logits / t, label) for t in grid])
    return round(float(grid[losses.argmin()]), 4)


def fit_threshold(log_probability: np.ndarray, reject: float) -> float:
    """The unknown threshold at which a share ``reject`` of these known objects [M,C] is turned away."""
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
