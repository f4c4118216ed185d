# SPDX-License-Identifier: Apache-2.0
"""What the size of a segment says of its class: the network sees every object in a unit sphere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foundry_core.card import SizeLikelihood


def log_likelihood(sizes: SizeLikelihood, diagonals, classes: Sequence[str]) -> np.ndarray:
    """Weighted log likelihood [M,C] of diagonals [M] in metres, to be added to log probabilities.

    0 for a diagonal that is not finite and for a class without a table: they say nothing.
    """
    diagonals = np.asarray(diagonals, np.float64)
    bins = np.clip(np.searchsorted(sizes.edges_m, diagonals, side="right") - 1, 0, len(sizes.edges_m) - 2)
    nothing = np.ones(len(sizes.edges_m) - 1)
    table = sizes.weight * np.log([sizes.density.get(name, nothing) for name in classes])  # (C, bins)
    return np.where(np.isfinite(diagonals)[:, None], table.T[bins], 0.0)
