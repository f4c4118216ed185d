# SPDX-License-Identifier: Apache-2.0
"""Cropping, thinning and grid kernels, compiled with numba; every function is one pass over the points."""

from __future__ import annotations

import numpy as np

from foundry_core.kernels import jit
from foundry_core.scene.config import Box


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
def take(points, index):
    """Rows ``index`` [n] of points float32 [N,3]; numpy takes five times as long for rows this short."""
    out = np.empty((index.shape[0], 3), np.float32)
    for i in range(index.shape[0]):
        k = index[i]
        out[i, 0], out[i, 1], out[i, 2] = points[k, 0], points[k, 1], points[k, 2]
    return out


@jit
def rotate(points, rotation):
    """Points float32 [N,3] turned by rotation float32 [3,3]; numpy's product takes nearly three times as long."""
    out = np.empty((points.shape[0], 3), np.float32)
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for k in range(3):
            out[i, k] = rotation[k, 0] * x + rotation[k, 1] * y + rotation[k, 2] * z
    return out


@jit
def divide(height, kept, clearance, highest, is_ground):
    """Mark ground points and find those that may be of an object.

    Args:
        height: float32 [n] above the ground, of the points ``kept`` [n].
        clearance, highest: metres; at most ``clearance`` is ground, at most ``highest`` an object.
        is_ground: bool [N], set for the ground points of ``kept`` (out).

    Returns:
        positions int64 [n'] in ``kept`` of the rest.
    """
    out = np.empty(height.shape[0], np.int64)
    count = 0
    for i in range(height.shape[0]):
        on_ground = height[i] <= clearance
        is_ground[kept[i]] = on_ground
        out[count] = i
        count += np.int64((not on_ground) and height[i] <= highest)
    return out[:count]


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
    scale, x_low, y_low = np.float32(1.0 / cell), np.float32(x_low), np.float32(y_low)
    for i in range(points.shape[0]):
        a, b = int((points[i, 0] - x_low) * scale), int((points[i, 1] - y_low) * scale)
        if 0 <= a < nx and 0 <= b < ny:
            out[a, b] = min(out[a, b], points[i, 2])
    return out


def drop_unsupported(minima, cell, slope, tolerance, deep):
    """A copy of minima float32 [nx,ny] without stray echoes.

    A cell stays when two of its 24 neighbours agree with it; one below ``deep`` needs the agreement of half of them, as
    mirrored echoes under the ground come in small groups.
    """
    steps = np.arange(-2, 3)
    reach = tolerance + slope * cell * np.hypot(steps[:, None], steps[None, :])  # (5, 5)
    rounded = reach.astype(np.float32)
    rounded = np.where(rounded > reach, np.nextafter(rounded, np.float32(0)), rounded)  # float32 <= reach, the same
    return _drop_unsupported(minima, rounded, np.float32(max(deep, -3e38)))


@jit
def _drop_unsupported(minima, reach, deep):
    nx, ny = minima.shape
    unseen = np.float32(np.inf)
    padded = np.full((nx + 4, ny + 4), unseen, np.float32)
    padded[2:-2, 2:-2] = minima
    out = minima.copy()
    for a in range(nx):
        support, known, own = np.zeros(ny, np.int32), np.zeros(ny, np.int32), minima[a]
        for i in range(5):
            for k in range(5):
                if i == 2 and k == 2:
                    continue
                other, limit = padded[a + i, k : k + ny], reach[i, k]
                for b in range(ny):
                    support[b] += np.int32(abs(other[b] - own[b]) <= limit)
                    known[b] += np.int32(other[b] < unseen)
        for b in range(ny):
            if support[b] < 2 or (own[b] < deep and 2 * support[b] < known[b]):
                out[a, b] = unseen
    return out


@jit
def smooth_pair(first, second, taps):
    """Both float32 [nx,ny], convolved with the symmetric taps float32 [2r+1] along both axes, zero outside."""
    return _smooth(_smooth(first, taps).T.copy(), taps).T.copy(), _smooth(_smooth(second, taps).T.copy(), taps).T.copy()


@jit
def _smooth(values, taps):
    # along axis 0; the rows are what is vectorised
    nx, ny = values.shape
    reach = taps.shape[0] // 2
    out = np.zeros((nx, ny), np.float32)
    for a in range(nx):
        to = out[a]
        for t in range(max(0, reach - a), min(taps.shape[0], nx + reach - a)):
            row, weight = values[a + t - reach], taps[t]
            for b in range(ny):
                to[b] += weight * row[b]
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
    flat = surface.reshape(-1)
    out = np.empty(points.shape[0], np.float32)
    scale, x_low, y_low = np.float32(1.0 / cell), np.float32(x_low), np.float32(y_low)
    zero, half, one = np.float32(0.0), np.float32(0.5), np.float32(1.0)
    u_high, v_high, a_high, b_high = np.float32(nx - 1), np.float32(ny - 1), np.int32(nx - 2), np.int32(ny - 2)
    for i in range(points.shape[0]):
        u, v = (points[i, 0] - x_low) * scale - half, (points[i, 1] - y_low) * scale - half
        u, v = u if u > zero else zero, v if v > zero else zero
        u, v = u if u < u_high else u_high, v if v < v_high else v_high
        a, b = min(np.int32(u), a_high), min(np.int32(v), b_high)
        u, v = u - np.float32(a), v - np.float32(b)
        k = np.uint32(a * np.int32(ny) + b)
        low = flat[k] * (one - v) + flat[k + np.uint32(1)] * v
        k += np.uint32(ny)
        high = flat[k] * (one - v) + flat[k + np.uint32(1)] * v
        out[i] = points[i, 2] - (low * (one - u) + high * u)
    return out


@jit
def group_by_label(labels, count, least):
    """Counting sort of labels [n] < count, without the labels that fewer than ``least`` elements have.

    Returns:
        order int64 [n'] of the elements, and starts int64 [C+1] of each label that is left in it.
    """
    sizes = np.zeros(count, np.int64)
    for label in labels:
        sizes[label] += 1
    starts, cursor, left = np.zeros(count + 1, np.int64), np.full(count, -1, np.int64), 0
    for k in range(count):
        if sizes[k] >= least:
            cursor[k] = starts[left]
            left += 1
            starts[left] = starts[left - 1] + sizes[k]
    order = np.empty(starts[left], np.int64)
    for i in range(len(labels)):
        at = cursor[labels[i]]
        if at >= 0:
            order[at] = i
            cursor[labels[i]] = at + 1
    return order, starts[: left + 1].copy()
