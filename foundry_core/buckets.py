# SPDX-License-Identifier: Apache-2.0
"""Points in small boxes along a Morton curve, and bounds on the distance to them, compiled with numba.

Coordinates are one array per axis. Squared distances are never negative, so their bits, read as int32, have their
order: reductions run on the bits, since only integer ones are vectorised without reassociation. Nothing is compiled
with fast-math: every distance is the float32 sum in x, y, z order.
"""

from __future__ import annotations

import numpy as np

from foundry_core.kernels import jit

INFINITY = np.float32(np.inf)
HIGHEST = np.int32(2**31 - 1)


@jit
def split(points, step=1):
    """Columns x, y, z float32 [N] of every step-th of points [N * step,3]."""
    n = (points.shape[0] + step - 1) // step
    x, y, z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(n):
        x[i], y[i], z[i] = points[i * step, 0], points[i * step, 1], points[i * step, 2]
    return x, y, z


@jit
def box_distances(low, high, cx, cy, cz, out):
    """Bounds into out float32 [B] on the squared distances from c to the points of each box, low and high [3,B].

    Rounding is monotonic, so computed like this the bound holds for every computed distance, not only the true ones.
    """
    zero = np.float32(0.0)
    for b in range(out.shape[0]):
        u, v = low[0, b] - cx, cx - high[0, b]
        u = u if u > v else v
        u = u if u > zero else zero
        squared = u * u
        u, v = low[1, b] - cy, cy - high[1, b]
        u = u if u > v else v
        u = u if u > zero else zero
        squared += u * u
        u, v = low[2, b] - cz, cz - high[2, b]
        u = u if u > v else v
        u = u if u > zero else zero
        out[b] = squared + u * u


@jit
def _spread(value):
    value = (value | (value << 8)) & 0x100F
    value = (value | (value << 4)) & 0x10C3
    return (value | (value << 2)) & 0x1249


@jit
def morton_order(x, y, z):
    """Indices int32 [N] along a Morton curve through 32 cells of the longest side: a radix sort in two passes."""
    n = x.shape[0]
    x_low, x_high, y_low, y_high, z_low, z_high = x[0], x[0], y[0], y[0], z[0], z[0]
    for i in range(n):
        x_low, x_high = min(x_low, x[i]), max(x_high, x[i])
        y_low, y_high = min(y_low, y[i]), max(y_high, y[i])
        z_low, z_high = min(z_low, z[i]), max(z_high, z[i])
    extent = max(x_high - x_low, y_high - y_low, z_high - z_low)
    scale = np.float32(31.99) / extent if extent > 0 else np.float32(0.0)
    key = np.empty(n, np.int32)
    for i in range(n):
        a, b, c = np.int32((x[i] - x_low) * scale), np.int32((y[i] - y_low) * scale), np.int32((z[i] - z_low) * scale)
        key[i] = _spread(a) | (_spread(b) << 1) | (_spread(c) << 2)
    first, second = np.zeros(257, np.int32), np.zeros(257, np.int32)
    for i in range(n):
        first[(key[i] & 255) + 1] += 1
        second[(key[i] >> 8) + 1] += 1
    for k in range(256):
        first[k + 1] += first[k]
        second[k + 1] += second[k]
    half, order = np.empty(n, np.int32), np.empty(n, np.int32)
    for i in range(n):
        digit = key[i] & 255
        half[first[digit]] = i
        first[digit] += 1
    for i in range(n):
        digit = key[half[i]] >> 8
        order[second[digit]] = half[i]
        second[digit] += 1
    return order


@jit
def buckets(x, y, z, width):
    """Points along a Morton curve in rows of ``width``, with the box of each row.

    Returns:
        x, y, z float32 [B,width] (infinite where a row is not full), source int32 [B,width] (index of the point, or the
        highest int32), low and high float32 [3,B].
    """
    n = x.shape[0]
    rows = (n + width - 1) // width
    order = morton_order(x, y, z)
    bx, by = np.full((rows, width), INFINITY, np.float32), np.full((rows, width), INFINITY, np.float32)
    bz = np.full((rows, width), INFINITY, np.float32)
    source = np.full((rows, width), HIGHEST, np.int32)
    low, high = np.full((3, rows), INFINITY, np.float32), np.full((3, rows), -INFINITY, np.float32)
    for b in range(rows):
        for j in range(min(width, n - b * width)):
            i = order[b * width + j]
            source[b, j], bx[b, j], by[b, j], bz[b, j] = i, x[i], y[i], z[i]
            low[0, b], high[0, b] = min(low[0, b], x[i]), max(high[0, b], x[i])
            low[1, b], high[1, b] = min(low[1, b], y[i]), max(high[1, b], y[i])
            low[2, b], high[2, b] = min(low[2, b], z[i]), max(high[2, b], z[i])
    return bx, by, bz, source, low, high
