# SPDX-License-Identifier: Apache-2.0
"""Sampling, neighbours, grouping and normalisation of point clouds, compiled with numba.

One function for each operation, the same for training, export and the robot: farthest-point sampling starts at index 0
and breaks ties by the lowest index, neighbours are sorted by distance and then by index, so the result is a pure
function of the points. Distances are squared float32 sums in x, y, z order, as in the published implementations. What
:func:`prepare_batch` does for many objects at once is bit for bit what the other functions do one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foundry_core.buckets import split
from foundry_core.kernels import jit
from foundry_core.neighbors import nearest, nearest_sample, nearest_three, patches
from foundry_core.sampling import farthest


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
    chosen = np.empty(count, np.int64)
    farthest(*split(points, 1), chosen)
    return chosen


def nearest_neighbors(queries, points, k: int) -> np.ndarray:
    """Indices int64 [Q,k] of the k points [N,3] nearest to each query [Q,3], nearest first."""
    queries, points = _as_points(queries), _as_points(points)
    if not 1 <= k <= len(points):
        raise ValueError(f"k must be in 1..{len(points)}, got {k}")
    out = np.empty((len(queries), k), np.int64)
    nearest(queries, points, out)
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
    centers, neighborhoods = group_batch(_as_points(points)[None], groups, neighbors)
    return centers[0], neighborhoods[0]


def group_batch(clouds, groups: int, neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """:func:`group` for clouds [B,N,3]: centers float32 [B,G,3], neighborhoods float32 [B,G,K,3]."""
    clouds = np.ascontiguousarray(clouds, np.float32)
    if clouds.ndim != 3 or clouds.shape[2] != 3 or clouds.shape[1] == 0:
        raise ValueError(f"expected clouds [B,N,3] with N >= 1, got shape {clouds.shape}")
    if not 1 <= groups:
        raise ValueError(f"count must be at least 1, got {groups}")
    if not 1 <= neighbors <= clouds.shape[1]:
        raise ValueError(f"k must be in 1..{clouds.shape[1]}, got {neighbors}")
    centers = np.empty((len(clouds), groups, 3), np.float32)
    neighborhoods = np.empty((len(clouds), groups, neighbors, 3), np.float32)
    _group(clouds, centers, neighborhoods)
    return centers, neighborhoods


def interpolation(points, centers) -> tuple[np.ndarray, np.ndarray]:
    """Inverse-distance weights that carry features from centres [G,3] to points [N,3] (PointNet++, Qi et al., 2017).

    Returns:
        index int64 [N,3] of the nearest of the centres, G >= 3, and weights float32 [N,3] that sum to 1.
    """
    points, centers = _as_points(points), _as_points(centers)
    if len(centers) < 3:
        raise ValueError(f"expected at least 3 centres, got {len(centers)}")
    index, weight = np.empty((len(points), 3), np.int64), np.empty((len(points), 3), np.float32)
    nearest_three(points, centers, index, weight)
    return index, weight


def nearest_samples(points, sampled) -> np.ndarray:
    """For each of points [N,3] the position int64 [N] in ``sampled`` [S], indices of points, of the nearest one.

    Of equally near samples the first counts. Points that follow each other should be near each other, as in a scan.
    """
    points = _as_points(points)
    out = np.empty(len(points), np.int64)
    nearest_sample(points, points[sampled], out)
    return out


class Batch(NamedTuple):
    """The network's input for B objects.

    Attributes:
        points: float32 [B,N,3] of :func:`prepare`.
        index: int64 [B,N], of each of the points into those of its object.
        centers, neighborhoods: float32 [B,G,3] and [B,G,K,3] of :func:`group`.
        interpolation_index, interpolation_weight: int64 and float32 [B,N,3] of :func:`interpolation`; [B,0,3] where
            they were not asked for.
    """

    points: np.ndarray
    index: np.ndarray
    centers: np.ndarray
    neighborhoods: np.ndarray
    interpolation_index: np.ndarray
    interpolation_weight: np.ndarray


def prepare_batch(
    clouds: Sequence[np.ndarray], count: int, groups: int, neighbors: int, limit: int, upsample: bool = True
) -> Batch:
    """:func:`prepare`, :func:`group` and, with ``upsample``, :func:`interpolation` of many objects, points [n,3] each.

    All of it runs in one call without the interpreter's lock.

    Args:
        limit: an object of more points is thinned evenly before it is resampled; at least ``count``.
    """
    clouds = [_as_points(cloud) for cloud in clouds]
    if groups < (3 if upsample else 1) or not 1 <= neighbors <= count or limit < count:
        raise ValueError(f"{groups} groups of {neighbors} of {count} points, limit {limit}: impossible")
    starts = np.zeros(len(clouds) + 1, np.int64)
    np.cumsum([len(cloud) for cloud in clouds], out=starts[1:])
    size, upsampled = len(clouds), count if upsample else 0
    batch = Batch(
        np.empty((size, count, 3), np.float32),
        np.empty((size, count), np.int64),
        np.empty((size, groups, 3), np.float32),
        np.empty((size, groups, neighbors, 3), np.float32),
        np.empty((size, upsampled, 3), np.int64),
        np.empty((size, upsampled, 3), np.float32),
    )
    _prepare(np.concatenate(clouds or [np.empty((0, 3), np.float32)]), starts, limit, *batch)
    return batch


@jit
def _group(clouds, centers, neighborhoods):
    index, weight = np.empty((0, 3), np.int64), np.empty((0, 3), np.float32)
    for row in range(clouds.shape[0]):
        x, y, z = split(clouds[row], 1)
        patches(x, y, z, clouds.shape[1], centers[row], neighborhoods[row], index, weight)


@jit
def _prepare(flat, starts, limit, points, index, centers, neighborhoods, upsampling, weight):
    count = points.shape[1]
    for row in range(points.shape[0]):
        source = flat[starts[row] : starts[row + 1]]
        step = -(-source.shape[0] // limit)
        x, y, z = split(source, step)
        n = min(x.shape[0], count)
        if n < x.shape[0]:
            farthest(x, y, z, index[row])
            for i in range(count):
                index[row, i] *= step
            x, y, z = _rows(source, index[row])
        else:
            for i in range(n):
                index[row, i] = i * step
            for i in range(n, count):
                index[row, i] = index[row, i - n]
        _normalize(x, y, z, count)
        for i in range(n):
            points[row, i, 0], points[row, i, 1], points[row, i, 2] = x[i], y[i], z[i]
        for i in range(n, count):
            for k in range(3):
                points[row, i, k] = points[row, i - n, k]
        patches(x, y, z, count, centers[row], neighborhoods[row], upsampling[row], weight[row])


@jit
def _rows(points, index):
    n = index.shape[0]
    x, y, z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for i in range(n):
        k = index[i]
        x[i], y[i], z[i] = points[k, 0], points[k, 1], points[k, 2]
    return x, y, z


@jit
def _normalize(x, y, z, count):
    # `normalize` in place, of the points repeated in order to `count`
    n = x.shape[0]
    sx, sy, sz, largest = 0.0, 0.0, 0.0, 0.0
    for start in range(0, count, n):
        for i in range(min(n, count - start)):
            sx, sy, sz = sx + x[i], sy + y[i], sz + z[i]
    cx, cy, cz = np.float32(sx / count), np.float32(sy / count), np.float32(sz / count)
    for i in range(n):
        x[i], y[i], z[i] = x[i] - cx, y[i] - cy, z[i] - cz
        dx, dy, dz = np.float64(x[i]), np.float64(y[i]), np.float64(z[i])
        largest = max(largest, dx * dx + dy * dy + dz * dz)
    radius = np.sqrt(largest)
    if not radius > 1e-12:
        radius = 1.0
    scale = np.float32(radius)
    for i in range(n):
        x[i], y[i], z[i] = x[i] / scale, y[i] / scale, z[i] / scale


def warm_up() -> None:
    """Compile (or load from numba's cache) every kernel, so that the first frame is not the slow one."""
    points = np.linspace(0.0, 1.0, 24, dtype=np.float32).reshape(8, 3)
    prepare_batch([points], 4, 3, 2, 4)
    nearest_samples(points, np.arange(4))
