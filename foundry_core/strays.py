# SPDX-License-Identifier: Apache-2.0
"""Stray points: returns that have nothing near them.

Farthest-point sampling picks such points first, and the farthest sets the radius that a cloud is scaled by, so that a
few of them spoil the features of a whole object.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree


def stray_points(points: np.ndarray, neighbors: int = 4, ratio: float = 3.0, most: float = 0.1) -> np.ndarray:
    """Which points stand apart: a statistical outlier removal (as in PCL and Open3D) about the median.

    Args:
        points: [N,3], finite, in any unit.
        neighbors: a point's isolation is the mean distance to so many others, its nearest.
        ratio: isolation of a stray point, in medians of the isolation of all; mean and deviation would be those of the
            stray points themselves, where there are many.
        most: share of the points that may be called stray, the most isolated first. More are no strays, but a cloud
            that is sampled unevenly.

    Returns:
        bool [N]; all false where there are too few points to tell.
    """
    points = np.asarray(points, np.float64)
    if len(points) <= neighbors + 1:
        return np.zeros(len(points), bool)
    distances, _ = cKDTree(points).query(points, k=neighbors + 1)  # the nearest is the point itself
    isolation = distances[:, 1:].mean(axis=1)
    bound = max(ratio * np.median(isolation), np.quantile(isolation, 1 - most, method="higher"))
    return isolation > bound


def without_strays(points: np.ndarray) -> np.ndarray:
    """The points [M,3] of [N,3] that do not stand apart."""
    return points[~stray_points(points)]
