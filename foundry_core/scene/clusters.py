# SPDX-License-Identifier: Apache-2.0
"""Clusters: connected components of occupied cells that grow gently with range."""

from __future__ import annotations

import numpy as np

from foundry_core.kernels import jit
from foundry_core.scene.config import ClusterConfig

_MAX_CELLS = 1 << 24


@jit
def _warp(points, dimensions, growth, scale, out):
    # radius r becomes ln(1 + growth r) / growth: a regular grid there has cells of cell * (1 + growth r) in space. The
    # logarithm comes from a table; linear between 4096 steps it is exact to less than a float32 can tell. One short
    # loop for each step of the way: those without a table are vectorised
    count, steps, largest = points.shape[0], 4096, 0.0
    radius = np.zeros(count)
    for k in range(dimensions):
        for i in range(count):
            radius[i] += np.float64(points[i, k]) * points[i, k]
    for i in range(count):
        largest = max(largest, radius[i])
    step = max(np.sqrt(largest), 1e-3) * (1 + 1e-9) / steps  # the largest radius is below the last step
    table = np.empty(steps + 1)
    for k in range(steps + 1):
        reach = growth * step * k
        table[k] = scale * (np.log(1.0 + reach) / reach if reach > 1e-6 else 1.0)
    per_metre = 1.0 / step
    for i in range(count):
        radius[i] = np.sqrt(radius[i]) * per_metre
    for i in range(count):
        slot = np.int32(radius[i])
        radius[i] = table[slot] + (radius[i] - slot) * (table[slot + 1] - table[slot])  # now the factor
    low, high = np.empty(dimensions), np.empty(dimensions)
    for k in range(dimensions):
        least, most = np.float32(np.inf), np.float32(-np.inf)
        for i in range(count):
            value = np.float32(points[i, k] * radius[i])
            out[i, k] = value
            least, most = value if value < least else least, value if value > most else most
        low[k], high[k] = least, most
    return low, high


@jit
def _find(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@jit
def _components(warped, low, ny, nz, number, labels):
    # number [cells] is 0 or 1 + the number of an occupied cell, which is joined with the occupied cells around it when
    # its first point comes (union-find); the outermost cells are never occupied. A flat grid has nz = 1.
    n, dimensions = warped.shape
    parent = np.empty(n, np.int32)
    count = 0
    for i in range(n):
        cell = ((int(warped[i, 0] - low[0]) + 1) * ny + int(warped[i, 1] - low[1]) + 1) * nz
        if dimensions == 3:
            cell += int(warped[i, 2] - low[2]) + 1
        if number[cell] == 0:
            parent[count] = count
            count += 1
            number[cell] = count
            depth = 1 if dimensions == 3 else 0
            for a in range(-1, 2):
                for b in range(-1, 2):
                    for c in range(-depth, depth + 1):
                        other = number[cell + (a * ny + b) * nz + c]
                        if other and other != count:
                            one, two = _find(parent, count - 1), _find(parent, other - 1)
                            if one != two:
                                parent[max(one, two)] = min(one, two)
        labels[i] = number[cell] - 1
    numbered, found = np.empty(count, np.int32), 0
    for k in range(count):  # a root comes before its members
        root = _find(parent, k)
        if root == k:
            numbered[k] = found
            found += 1
        else:
            numbered[k] = numbered[root]
    for i in range(n):
        labels[i] = numbered[labels[i]]
    return found


def connected_components(points: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, int]:
    """Label int32 [N], from 0 in the order of first points, of each of the points [N,3] (z up), and their number.

    Two points belong together when a chain of occupied cells that touch, corners included, joins them.
    """
    if len(points) == 0:
        return np.empty(0, np.int32), 0
    dimensions = 2 if config.method == "birdseye" else 3
    warped = np.empty((len(points), dimensions), np.float32)
    scale = 1.0 / config.cell
    while True:
        low, high = _warp(points, dimensions, config.growth, scale, warped)
        shape = ((high - low).astype(np.int64) + 4).tolist()  # a border of one cell on each side
        if np.prod(shape, dtype=float) <= _MAX_CELLS:
            break
        scale /= 2
    labels = np.empty(len(points), np.int32)
    number = np.zeros(int(np.prod(shape)), np.int32)
    count = _components(warped, low, shape[1], shape[2] if dimensions == 3 else 1, number, labels)
    return labels, count
