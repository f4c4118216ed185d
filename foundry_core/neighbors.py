# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours, compiled with numba; :mod:`foundry_core.buckets` says how such loops are written."""

from __future__ import annotations

import numpy as np

from foundry_core.buckets import HIGHEST, INFINITY, box_distances, buckets, split
from foundry_core.kernels import jit
from foundry_core.sampling import farthest

_RANKED = 512  # candidates that are ranked by counting; more are inserted one by one
_SAMPLES = 32  # samples per bucket where the nearest one is looked up
_NOTHING, _NUMBER = np.int64(2**63 - 1), np.int64(2**32 - 1)  # the key of no candidate; its lower half


@jit
def distances(x, y, z, qx, qy, qz, out):
    """Squared distances into out float32 [>=N] of points x, y, z [N] from q."""
    for j in range(x.shape[0]):
        dx, dy, dz = x[j] - qx, y[j] - qy, z[j] - qz
        out[j] = dx * dx + dy * dy + dz * dz


@jit
def _lane_minima(bits, low):
    for lane in range(bits.shape[1]):
        low[lane] = bits[0, lane]
    for row in range(1, bits.shape[0]):
        for lane in range(bits.shape[1]):
            low[lane] = min(low[lane], bits[row, lane])


@jit
def _below(bits, n, value):
    count = np.int32(0)
    for j in range(n):
        count += np.int32(bits[j] < value)
    return count


@jit
def _about_kth(values, k):
    # a number that k of the values, or a few more, are not above
    low, high = values[0], values[0]
    for i in range(values.shape[0]):
        low, high = min(low, values[i]), max(high, values[i])
    while low < high:
        middle = low + (high - low) // np.int32(2)
        count = _below(values, values.shape[0], middle + np.int32(1))
        if count < k:
            low = middle + np.int32(1)
        else:
            high = middle
            if count <= k + k // 8:
                break
    return high


@jit
def lanes_for(n, k):
    """Width of the rows in which :func:`smallest` looks at n distances; 0 where ranking all of them is as fast."""
    lanes = 16
    while lanes < 2 * k:
        lanes *= 2
    return lanes if n >= 2 * lanes else 0


@jit
def _padded(n, lanes):
    return -(-n // lanes) * lanes if lanes else n


@jit
def smallest(bits, n, lanes, low, candidate, value, out):
    """Positions into out int64 [k] of the k smallest of n values, smallest first, equal ones by position.

    At least k values are not above the k-th smallest of the minima of 2 k or more lanes, nor above a number that is
    little more; few others are. These few are ranked by counting.

    Args:
        bits: int32 [rows * lanes], the bits of values >= 0, padded with infinity.
        lanes: of :func:`lanes_for`.
        low: int32 [lanes] of scratch; candidate, value: int32 [n+1] of scratch.
    """
    k, limit = out.shape[0], HIGHEST
    if lanes:
        _lane_minima(bits.reshape(bits.shape[0] // lanes, lanes), low)
        limit = _about_kth(low, k)
    count = 0
    for j in range(n):
        candidate[count], value[count] = j, bits[j]
        count += np.int64(bits[j] <= limit)
    if count > _RANKED:
        _insert_sorted(candidate, value, count, out)
        return
    for i in range(k):
        out[i] = -1
    for i in range(count):
        rank = np.int64(_below(value, count, value[i]))
        while rank < k and out[rank] >= 0:  # taken by an equal value with a lower position
            rank += 1
        if rank < k:
            out[rank] = candidate[i]


@jit
def _insert_sorted(candidate, value, count, out):
    # as `smallest`, from candidates in order of position: each is inserted where it belongs among the best so far
    k, filled = out.shape[0], 0
    best = np.empty(k, np.int32)
    for i in range(count):
        if filled == k and value[i] >= best[k - 1]:
            continue
        slot = min(filled, k - 1)
        filled = min(filled + 1, k)
        while slot > 0 and best[slot - 1] > value[i]:
            best[slot], out[slot] = best[slot - 1], out[slot - 1]
            slot -= 1
        best[slot], out[slot] = value[i], candidate[i]


@jit
def nearest(queries, points, out):
    """Indices into out int64 [Q,k] of the k points [N,3] nearest to each of queries [Q,3]; ties: the lowest index."""
    n, k = points.shape[0], out.shape[1]
    x, y, z = split(points, 1)
    lanes = lanes_for(n, k)
    squared = np.full(_padded(n, lanes), INFINITY, np.float32)
    bits, low = squared.view(np.int32), np.empty(max(lanes, 1), np.int32)
    candidate, value = np.empty(n + 1, np.int32), np.empty(n + 1, np.int32)
    for q in range(queries.shape[0]):
        distances(x, y, z, queries[q, 0], queries[q, 1], queries[q, 2], squared)
        smallest(bits, n, lanes, low, candidate, value, out[q])


@jit
def _insert(bits, number, first, second, third):
    # candidate `number`, at distances of these bits [N], into the three nearest, int64 [N] each: bits, then number
    for j in range(first.shape[0]):
        key = (np.int64(bits[j]) << 32) | number
        behind = max(first[j], key)
        first[j] = min(first[j], key)
        last = max(second[j], behind)
        second[j] = min(second[j], behind)
        third[j] = min(third[j], last)


@jit
def _repeat(order, bits, n, count, out):
    # the distinct points into out [k] that are nearest when all n repeat in order up to `count`, given the order of
    # the distinct ones: equal distances are ordered by row
    k, filled, start = out.shape[0], 0, 0
    while filled < k:
        end = start + 1
        while end < order.shape[0] and bits[order[end]] == bits[order[start]]:
            end += 1
        for turn in range(0, count, n):
            for i in range(start, end):
                if filled < k and order[i] + turn < count:
                    out[filled] = order[i]
                    filled += 1
        start = end


@jit
def patches(x, y, z, count, centers, neighborhoods, index, weight):
    """The input of the tokenizer, from a cloud of ``count`` points of which x, y, z [n] are the first.

    The rest repeats them in order. What is found is what all ``count`` points would give.

    Args:
        centers: float32 [G,3], by farthest-point sampling (out).
        neighborhoods: float32 [G,K,3], around each centre (out).
        index, weight: int64 and float32 [count,3], inverse-distance weights from the three nearest centres (out); not
            written if they have no rows.
    """
    n, groups, k = x.shape[0], centers.shape[0], neighborhoods.shape[1]
    chosen = np.empty(groups, np.int64)
    farthest(x, y, z, chosen)
    near, order = np.empty(min(k, n), np.int64), np.empty(k, np.int64)
    lanes = lanes_for(n, len(near))
    padded, low = np.full(_padded(n, lanes), INFINITY, np.float32), np.empty(max(lanes, 1), np.int32)
    bits, candidate, value = padded.view(np.int32), np.empty(n + 1, np.int32), np.empty(n + 1, np.int32)
    squared = padded[:n]
    upsampled = index.shape[0] > 0
    m = n if upsampled else 0
    first, second, third = np.full(m, _NOTHING), np.full(m, _NOTHING), np.full(m, _NOTHING)
    for g in range(groups):
        cx, cy, cz = x[chosen[g]], y[chosen[g]], z[chosen[g]]
        centers[g, 0], centers[g, 1], centers[g, 2] = cx, cy, cz
        distances(x, y, z, cx, cy, cz, squared)
        smallest(bits, n, lanes, low, candidate, value, near)
        if n < count:
            _repeat(near, bits, n, count, order)
        else:
            for i in range(k):
                order[i] = near[i]
        for i in range(k):
            j = order[i]
            neighborhoods[g, i, 0], neighborhoods[g, i, 1], neighborhoods[g, i, 2] = x[j] - cx, y[j] - cy, z[j] - cz
        if upsampled:
            _insert(bits, np.int64(g), first, second, third)
    if upsampled:
        _weigh(first, second, third, index, weight)


@jit
def _inverse(key):
    # of the distance in a key of `_insert`
    return np.float32(1.0) / (np.int32(key >> 32).view(np.float32) + np.float32(1e-8))


@jit
def _weigh(first, second, third, index, weight):
    n = first.shape[0]
    for j in range(n):
        a, b, c = _inverse(first[j]), _inverse(second[j]), _inverse(third[j])
        total = a + b + c
        weight[j, 0], weight[j, 1], weight[j, 2] = a / total, b / total, c / total
        index[j, 0], index[j, 1], index[j, 2] = first[j] & _NUMBER, second[j] & _NUMBER, third[j] & _NUMBER
    for j in range(n, index.shape[0]):
        for k in range(3):
            weight[j, k], index[j, k] = weight[j - n, k], index[j - n, k]


@jit
def nearest_three(points, centers, index, weight):
    """Of each of points [N,3] the three nearest centres [G,3] (ties: the lowest) and their inverse-distance weights."""
    n = points.shape[0]
    x, y, z = split(points, 1)
    squared = np.empty(n, np.float32)
    bits = squared.view(np.int32)
    first, second, third = np.full(n, _NOTHING), np.full(n, _NOTHING), np.full(n, _NOTHING)
    for g in range(centers.shape[0]):
        distances(x, y, z, centers[g, 0], centers[g, 1], centers[g, 2], squared)
        _insert(bits, np.int64(g), first, second, third)
    _weigh(first, second, third, index, weight)


@jit
def nearest_sample(points, samples, out):
    """Row into out int64 [N] of the sample [S,3] nearest to each of points [N,3]; ties: the lowest row.

    Points come in the order of a scan: the bucket of the one before is the first guess, and few others are looked at.
    """
    x, y, z = split(samples, 1)
    bx, by, bz, source, low, high = buckets(x, y, z, _SAMPLES)
    rows = bx.shape[0]
    near, bound = np.empty(_SAMPLES, np.float32), np.empty(rows, np.float32)
    bits, bound_bits, guess = near.view(np.int32), bound.view(np.int32), 0
    for i in range(points.shape[0]):
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        box_distances(low, high, px, py, pz, bound)
        best, row, home = HIGHEST, HIGHEST, guess
        for turn in range(-1, rows):
            b = home if turn < 0 else turn
            if turn == home or (turn >= 0 and bound_bits[b] > best):
                continue
            _row_distances(bx, by, bz, b, px, py, pz, near)
            lowest = _lowest(bits)
            if lowest > best:
                continue
            found = _source_of(bits, source, b, lowest)
            if lowest < best or found < row:
                best, row, guess = lowest, found, b
        out[i] = row


@jit
def _row_distances(x, y, z, b, px, py, pz, out):
    for j in range(out.shape[0]):
        dx, dy, dz = x[b, j] - px, y[b, j] - py, z[b, j] - pz
        out[j] = dx * dx + dy * dy + dz * dz


@jit
def _lowest(bits):
    best = HIGHEST
    for j in range(bits.shape[0]):
        best = min(best, bits[j])
    return best


@jit
def _source_of(bits, source, b, value):
    best = HIGHEST
    for j in range(bits.shape[0]):
        best = min(best, source[b, j] if bits[j] == value else HIGHEST)
    return best
