# SPDX-License-Identifier: Apache-2.0
"""What can be seen of a point set from one side, without a surface (Katz et al., Direct visibility of points, 2007)."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull, QhullError


def hidden_point_removal(points: np.ndarray, viewpoint: np.ndarray, radius_factor: float = 30.0) -> np.ndarray:
    """Indices int64 [m] of the points [n,3] that are visible from ``viewpoint`` [3], same frame and unit.

    The points are flipped about a sphere of ``radius_factor`` times the largest distance; those on the convex hull of
    the flipped set and the viewpoint are visible. A flat or tiny set is visible as a whole.
    """
    relative = np.asarray(points, np.float64) - viewpoint
    distance = np.maximum(np.linalg.norm(relative, axis=1, keepdims=True), 1e-12)
    flipped = relative + 2 * (radius_factor * distance.max() - distance) * relative / distance
    try:
        hull = ConvexHull(np.vstack([flipped, np.zeros(3)]))
    except QhullError:
        return np.arange(len(points))
    return np.sort(hull.vertices[hull.vertices < len(points)]).astype(np.int64)
