# SPDX-License-Identifier: Apache-2.0
"""Sampling, neighbours, grouping and normalisation of point clouds, compiled with numba.

One function for each operation, the same for training, export and the robot: farthest-point sampling starts at index 0
and breaks ties by the lowest index, neighbours are sorted by distance and then by index, so the result is a pure
function of the points. Distances are squared float32 sums in x, y, z order, as in the published implementations.
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(cache=True, nogil=True)


@_jit
def _farthest(points, count):
    n = points.shape[0]
    chosen = np.empty(count, np.int64)
    nearest = np.full(n, np.float32(np.inf), np.float32)
    current = 0
    for i in range(count):
        chosen[i] = current
        cx, cy, cz = points[current, 0], points[current, 1], points[current, 2]
        best, best_distance = 0, np.float32(-1.0)
        for j in range(n):
            dx, dy, dz = points[j, 0] - cx, points[j, 1] - cy, points[j, 2] - cz
            distance = dx * dx + dy * dy + dz * dz
            if distance < nearest[j]:
                nearest[j] = distance
            if nearest[j] > best_distance:
                best, best_distance = j, nearest[j]
        current = best
    return chosen


@_jit
def _nearest(queries, points, k, out):
    # a sorted list of the k best per query. The points are visited with a stride: in farthest-point order every next
    # point would be nearer than those before, and each would be inserted.
    n, stride = points.shape[0], 32
    near = np.empty(k, np.float32)
    for q in range(queries.shape[0]):
        qx, qy, qz = queries[q, 0], queries[q, 1], queries[q, 2]
        filled = 0
        for start in range(min(stride, n)):
            for j in range(start, n, stride):
                dx, dy, dz = points[j, 0] - qx, points[j, 1] - qy, points[j, 2] - qz
                distance = dx * dx + dy * dy + dz * dz
                if filled < k:
                    slot = filled
                    filled += 1
                elif distance < near[k - 1] or (distance == near[k - 1] and j < out[q, k - 1]):
                    slot = k - 1
                else:
                    continue
                while slot > 0 and (near[slot - 1] > distance or (near[slot - 1] == distance and out[q, slot - 1] > j)):
                    near[slot] = near[slot - 1]
                    out[q, slot] = out[q, slot - 1]
                    slot -= 1
                near[slot] = distance
                out[q, slot] = j


def _as_points(points) -> np.ndarray:
    points = np.ascontiguousarray(points, np.float32)
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise ValueError(f"expected points [N,3] with N >= 1, got shape {points.shape}")
    return points


def farthest_point_sampling(points, count: int) -> np.ndarray:
    """Indices int64 [count] of points [N,3] that spread as far as possible, from index 0 on (Eldar et al., 1997).

    When ``count`` exceeds the number of distinct points the remaining picks repeat index 0, as in the published code.
    """
    points = _as_points(points)
    if not 1 <= count:
        raise ValueError(f"count must be at least 1, got {count}")
    return _farthest(points, count)


def nearest_neighbors(queries, points, k: int) -> np.ndarray:
    """Indices int64 [Q,k] of the k points [N,3] nearest to each query [Q,3], nearest first."""
    queries, points = _as_points(queries), _as_points(points)
    if not 1 <= k <= len(points):
        raise ValueError(f"k must be in 1..{len(points)}, got {k}")
    out = np.empty((len(queries), k), np.int64)
    _nearest(queries, points, k, out)
    return out


def normalize(points) -> tuple[np.ndarray, np.ndarray, float]:
    """Centre points [N,3] on their mean and scale them into the unit sphere.

    Returns:
        points float32 [N,3], centre float32 [3], radius (in the input's unit); ``normalized * radius + centre`` is the
        input. A cloud whose points coincide keeps radius 1.
    """
    points = _as_points(points)
    center = points.mean(axis=0, dtype=np.float64).astype(np.float32)
    centered = points - center
    radius = float(np.sqrt((centered.astype(np.float64) ** 2).sum(axis=1).max()))
    if not radius > 1e-12:
        radius = 1.0
    return (centered / np.float32(radius)).astype(np.float32), center, radius


def resample(points, count: int) -> np.ndarray:
    """Indices int64 [count] that give a cloud the model's size.

    More points than ``count`` are reduced by farthest-point sampling from index 0, fewer are repeated in order; both
    are deterministic, and every user of the project goes through this function.
    """
    n = len(points)
    if n > count:
        return farthest_point_sampling(points, count)
    return np.arange(count, dtype=np.int64) % n


def prepare(points, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The model's input from points [n,3] of one object: resampled to ``count``, then centred in the unit sphere.

    Returns:
        points float32 [count,3], and the index int64 [count] of each into the input.
    """
    points = _as_points(points)
    index = resample(points, count)
    return normalize(points[index])[0], index


def group(points, groups: int, neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut points [N,3] into local patches, the input of the tokenizer.

    Returns:
        centers float32 [G,3], by farthest-point sampling; neighborhoods float32 [G,K,3], the K nearest points of each
        centre with the centre subtracted.
    """
    points = _as_points(points)
    centers = points[farthest_point_sampling(points, groups)]  # (G, 3)
    index = nearest_neighbors(centers, points, neighbors)  # (G, K)
    return centers, points[index] - centers[:, None, :]


def group_batch(clouds, groups: int, neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """:func:`group` for clouds [B,N,3]: centers float32 [B,G,3], neighborhoods float32 [B,G,K,3]."""
    clouds = np.asarray(clouds, np.float32)
    centers = np.empty((len(clouds), groups, 3), np.float32)
    neighborhoods = np.empty((len(clouds), groups, neighbors, 3), np.float32)
    for row, cloud in enumerate(clouds):
        centers[row], neighborhoods[row] = group(cloud, groups, neighbors)
    return centers, neighborhoods


def interpolation(points, centers, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Inverse-distance weights that carry features from centres [G,3] to points [N,3] (PointNet++, Qi et al., 2017).

    Returns:
        index int64 [N,k] into the centres and weights float32 [N,k] that sum to 1.
    """
    points, centers = _as_points(points), _as_points(centers)
    index = nearest_neighbors(points, centers, k)
    squared = ((points[:, None, :] - centers[index]) ** 2).sum(axis=-1)
    weights = 1.0 / (squared + np.float32(1e-8))
    return index, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def warm_up() -> None:
    """Compile (or load from numba's cache) every kernel, so that the first frame is not the slow one."""
    points = np.linspace(0.0, 1.0, 24, dtype=np.float32).reshape(8, 3)
    centers, _ = group(points, 4, 2)
    interpolation(points, centers)
