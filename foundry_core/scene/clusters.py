# SPDX-License-Identifier: Apache-2.0
"""Clusters: connected components of occupied cells that grow gently with range."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from foundry_core.scene.config import ClusterConfig
from foundry_core.scene.grid import jit

_MAX_CELLS = 1 << 24


@jit
def _warp(points, dimensions, growth, scale, out):
    # radius r becomes ln(1 + growth r) / growth: a regular grid there has cells of cell * (1 + growth r) in space
    low, high = np.full(dimensions, np.inf), np.full(dimensions, -np.inf)
    for i in range(points.shape[0]):
        squared = 0.0
        for k in range(dimensions):
            squared += points[i, k] * points[i, k]
        radius = np.sqrt(squared)
        factor = scale
        if growth * radius > 1e-6:
            factor *= np.log(1.0 + growth * radius) / (growth * radius)
        for k in range(dimensions):
            out[i, k] = points[i, k] * factor
            low[k], high[k] = min(low[k], out[i, k]), max(high[k], out[i, k])
    return low, high


@jit
def _occupy(warped, dimensions, low, ny, nz, cells, occupied):
    for i in range(warped.shape[0]):
        cell = (int(warped[i, 0] - low[0]) * ny + int(warped[i, 1] - low[1])) * nz
        if dimensions == 3:
            cell += int(warped[i, 2] - low[2])
        cells[i] = cell
        occupied[cell] = 1


def connected_components(points: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, int]:
    """Label int32 [N], from 0, of each of the points [N,3] (z up), and the number of labels.

    Two points belong together when a chain of occupied cells that touch, corners included, joins them.
    """
    if len(points) == 0:
        return np.empty(0, np.int32), 0
    dimensions = 2 if config.method == "birdseye" else 3
    warped = np.empty((len(points), dimensions), np.float32)
    scale = 1.0 / config.cell
    while True:
        low, high = _warp(points, dimensions, config.growth, scale, warped)
        shape = ((high - low).astype(np.int64) + 2).tolist()
        if np.prod(shape, dtype=float) <= _MAX_CELLS:
            break
        scale /= 2
    cells = np.empty(len(points), np.int64)
    occupied = np.zeros(shape, np.uint8)
    _occupy(warped, dimensions, low, shape[1], shape[2] if dimensions == 3 else 1, cells, occupied.reshape(-1))
    labels, count = ndimage.label(occupied, np.ones((3,) * dimensions, bool))
    return labels.reshape(-1)[cells] - 1, count
