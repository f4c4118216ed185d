# SPDX-License-Identifier: Apache-2.0
"""Farthest-point sampling, compiled with numba; :mod:`foundry_core.buckets` says how such loops are written.

Many samples of many points are found with the pruning of QuickFPS (Han et al., 2023): a bucket of points whose box is
farther from a new sample than all its points are from the samples before is left alone. The picks are the same.
"""

from __future__ import annotations

import numpy as np

from foundry_core.buckets import HIGHEST, INFINITY, box_distances, buckets
from foundry_core.kernels import jit

_BUCKET = 128  # points


@jit
def _relax(x, y, z, bits, b, cx, cy, cz):
    # row b: the distance to the nearest of the samples, now that there is one more at c; the largest that is left
    best = np.int32(-1)
    for j in range(x.shape[1]):
        dx, dy, dz = x[b, j] - cx, y[b, j] - cy, z[b, j] - cz
        distance = dx * dx + dy * dy + dz * dz
        nearest = min(bits[b, j], np.float32(distance).view(np.int32))
        bits[b, j] = nearest
        best = max(best, nearest)
    return best


@jit
def _lowest_source(bits, source, b, value):
    best = HIGHEST
    for j in range(bits.shape[1]):
        best = min(best, source[b, j] if bits[b, j] == value else HIGHEST)
    return best


@jit
def _absent(bits, start, end, value):
    part = bits[0, start:end]
    hits = np.int32(0)
    for j in range(part.shape[0]):
        hits += np.int32(part[j] == value)
    return hits == 0


@jit
def _farthest_pruned(x, y, z, chosen):
    n = x.shape[0]
    bx, by, bz, source, low, high = buckets(x, y, z, _BUCKET)
    rows = bx.shape[0]
    near = np.full((rows, _BUCKET), INFINITY, np.float32)
    for j in range(n - (rows - 1) * _BUCKET, _BUCKET):
        near[rows - 1, j] = np.float32(-1.0)
    top = np.full(rows, INFINITY, np.float32)
    bound = np.empty(rows, np.float32)
    bits, top_bits = near.view(np.int32), top.view(np.int32)
    current = 0
    for i in range(chosen.shape[0]):
        chosen[i] = current
        cx, cy, cz = x[current], y[current], z[current]
        box_distances(low, high, cx, cy, cz, bound)
        for b in range(rows):
            if bound[b] < top[b]:
                top_bits[b] = _relax(bx, by, bz, bits, b, cx, cy, cz)
        best = np.int32(-1)
        for b in range(rows):
            best = max(best, top_bits[b])
        if best <= 0:
            for k in range(i + 1, chosen.shape[0]):
                chosen[k] = 0
            return
        current = n
        for b in range(rows):
            if top_bits[b] == best:
                current = min(current, np.int64(_lowest_source(bits, source, b, best)))


@jit
def farthest(x, y, z, chosen):
    """Farthest-point sampling of points x, y, z [N] from index 0 into chosen int64 [count]; ties: the lowest index."""
    n, count = x.shape[0], chosen.shape[0]
    if n >= 512 and count >= 128:
        _farthest_pruned(x, y, z, chosen)
        return
    x, y, z = x.reshape(1, n), y.reshape(1, n), z.reshape(1, n)
    near = np.full((1, n), INFINITY, np.float32)
    bits = near.view(np.int32)
    current = 0
    for i in range(count):
        chosen[i] = current
        best = _relax(x, y, z, bits, 0, x[0, current], y[0, current], z[0, current])
        if best <= 0:  # every point coincides with a sample: the first of equals is index 0
            for k in range(i + 1, chosen.shape[0]):
                chosen[k] = 0
            return
        start = 0
        while _absent(bits, start, min(start + 64, n), best):
            start += 64
        while bits[0, start] != best:
            start += 1
        current = start
