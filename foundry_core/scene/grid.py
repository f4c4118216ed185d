# SPDX-License-Identifier: Apache-2.0
"""Cropping, thinning and grid kernels, compiled with numba; every function is one pass over the points."""

from __future__ import annotations

import numba
import numpy as np

from foundry_core.scene.config import Box

jit = numba.njit(cache=True, nogil=True)


@jit
def _inside(points, low, high, ego_low, ego_high):
    n = points.shape[0]
    out = np.empty(n, np.int64)
    kept = 0
    for i in range(n):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        inside = low[0] <= x <= high[0] and low[1] <= y <= high[1] and low[2] <= z <= high[2]
        ego = ego_low[0] < x < ego_high[0] and ego_low[1] < y < ego_high[1] and ego_low[2] < z < ego_high[2]
        if inside and not ego:
            out[kept] = i
            kept += 1
    return out[:kept]


def _corners(box: Box) -> tuple[np.ndarray, np.ndarray]:
    low = np.array([box.x_min, box.y_min, box.z_min], np.float32)
    return low, np.array([box.x_max, box.y_max, box.z_max], np.float32)


def crop(points: np.ndarray, box: Box, ego: Box) -> np.ndarray:
    """Indices int64 [n] of the points [N,3] inside ``box`` and not inside ``ego``."""
    return _inside(points, *_corners(box), *_corners(ego))


@jit
def bounds(points):
    """Lowest and highest x and y (float32) of points [N,3], N >= 1."""
    x_low = x_high = points[0, 0]
    y_low = y_high = points[0, 1]
    for i in range(points.shape[0]):
        x, y = points[i, 0], points[i, 1]
        x_low, x_high = min(x_low, x), max(x_high, x)
        y_low, y_high = min(y_low, y), max(y_high, y)
    return x_low, x_high, y_low, y_high


@jit
def _voxel_keys(points, scale):
    # 21 bits per axis; cells that far apart never share one cloud
    keys = np.empty(points.shape[0], np.int64)
    for i in range(points.shape[0]):
        key = np.int64(0)
        for k in range(3):
            key = (key << 21) | (np.int64(np.floor(points[i, k] * scale)) & 0x1FFFFF)
        keys[i] = key
    return keys


@jit
def _first_per_key(keys):
    # open addressing: the table is twice as large as the number of keys, a power of two
    bits = 4
    while (1 << bits) < 2 * len(keys):
        bits += 1
    mask = (1 << bits) - 1
    table = np.full(1 << bits, -1, np.int64)
    out = np.empty(len(keys), np.int64)
    kept = 0
    for i in range(len(keys)):
        slot = ((keys[i] ^ (keys[i] >> 19)) * 0x9E3779B1 >> 9) & mask
        while table[slot] >= 0 and keys[table[slot]] != keys[i]:
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot] = i
            out[kept] = i
            kept += 1
    return out[:kept]


def voxel_first(points: np.ndarray, edge: float) -> np.ndarray:
    """Indices int64 [n], in order, of the first point [N,3] in each cube of ``edge`` metres."""
    if len(points) == 0:
        return np.empty(0, np.int64)
    return _first_per_key(_voxel_keys(points, np.float32(1 / edge)))


@jit
def cell_minima(points, x_low, y_low, cell, nx, ny):
    """Lowest z float32 [nx,ny] of the points [N,3] in each cell; infinity where there is none."""
    out = np.full((nx, ny), np.float32(np.inf), np.float32)
    scale = np.float32(1.0 / cell)
    for i in range(points.shape[0]):
        a, b = int((points[i, 0] - x_low) * scale), int((points[i, 1] - y_low) * scale)
        if 0 <= a < nx and 0 <= b < ny and points[i, 2] < out[a, b]:
            out[a, b] = points[i, 2]
    return out


@jit
def drop_unsupported(minima, cell, slope, tolerance, deep):
    """A copy of minima [nx,ny] without stray echoes.

    A cell stays when two of its 24 neighbours agree with it; one below ``deep`` needs the agreement of half of them, as
    mirrored echoes under the ground come in small groups.
    """
    nx, ny = minima.shape
    out = minima.copy()
    for a in range(nx):
        for b in range(ny):
            if not np.isfinite(minima[a, b]):
                continue
            support, known = 0, 0
            for da in range(-2, 3):
                for db in range(-2, 3):
                    i, j = a + da, b + db
                    if (da or db) and 0 <= i < nx and 0 <= j < ny and np.isfinite(minima[i, j]):
                        known += 1
                        reach = tolerance + slope * cell * np.sqrt(da * da + db * db)
                        if abs(minima[i, j] - minima[a, b]) <= reach:
                            support += 1
            if support < 2 or (minima[a, b] < deep and 2 * support < known):
                out[a, b] = np.float32(np.inf)
    return out


@jit
def slope_envelope(minima, cell, slope):
    """Highest surface [nx,ny] below all minima whose slope is at most ``slope`` (a two-pass chamfer transform)."""
    nx, ny = minima.shape
    out = minima.copy()
    side, corner = np.float32(slope * cell), np.float32(slope * cell * np.sqrt(2.0))
    for turn in range(2):
        for s in range(nx):
            a = s if turn == 0 else nx - 1 - s
            before = a - 1 if turn == 0 else a + 1
            for t in range(ny):
                b = t if turn == 0 else ny - 1 - t
                best = out[a, b]
                beside = b - 1 if turn == 0 else b + 1
                if 0 <= beside < ny:
                    best = min(best, out[a, beside] + side)
                if 0 <= before < nx:
                    best = min(best, out[before, b] + side)
                    if b > 0:
                        best = min(best, out[before, b - 1] + corner)
                    if b < ny - 1:
                        best = min(best, out[before, b + 1] + corner)
                out[a, b] = best
    return out


@jit
def heights_above(points, surface, x_low, y_low, cell):
    """Height float32 [N] of points [N,3] above a surface [nx,ny] given at the cells' centres, bilinear."""
    nx, ny = surface.shape
    out = np.empty(points.shape[0], np.float32)
    scale = np.float32(1.0 / cell)
    for i in range(points.shape[0]):
        u = min(max((points[i, 0] - x_low) * scale - np.float32(0.5), np.float32(0.0)), np.float32(nx - 1))
        v = min(max((points[i, 1] - y_low) * scale - np.float32(0.5), np.float32(0.0)), np.float32(ny - 1))
        a, b = min(int(u), nx - 2), min(int(v), ny - 2)
        u, v = u - a, v - b
        low = surface[a, b] * (1 - v) + surface[a, b + 1] * v
        high = surface[a + 1, b] * (1 - v) + surface[a + 1, b + 1] * v
        out[i] = points[i, 2] - (low * (1 - u) + high * u)
    return out


@jit
def group_by_label(labels, count):
    """Counting sort: order int64 [N'] of the elements with label >= 0, and starts int64 [count+1] of each label."""
    starts = np.zeros(count + 1, np.int64)
    for label in labels:
        if label >= 0:
            starts[label + 1] += 1
    for k in range(count):
        starts[k + 1] += starts[k]
    order = np.empty(starts[count], np.int64)
    cursor = starts[:-1].copy()
    for i in range(len(labels)):
        if labels[i] >= 0:
            order[cursor[labels[i]]] = i
            cursor[labels[i]] += 1
    return order, starts
