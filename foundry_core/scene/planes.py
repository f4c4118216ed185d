# SPDX-License-Identifier: Apache-2.0
"""Planes by random sampling (RANSAC, Fischler and Bolles, 1981), seeded: the same points give the same plane."""

from __future__ import annotations

import numpy as np

from foundry_core.kernels import jit
from foundry_core.scene.config import PlaneConfig

_TRIES = 200
_SAMPLE = 1500  # points that a hypothesis is judged on


@jit
def _search(x, y, z, triples, tolerance, axis_low, axis_high, below_penalty):
    best, best_score = np.zeros(4, np.float64), -1.0
    for t in range(triples.shape[0]):
        p, q, r = triples[t, 0], triples[t, 1], triples[t, 2]
        ux, uy, uz = x[q] - x[p], y[q] - y[p], z[q] - z[p]
        vx, vy, vz = x[r] - x[p], y[r] - y[p], z[r] - z[p]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        length = np.sqrt(nx * nx + ny * ny + nz * nz)
        if length < 1e-9:
            continue
        if nz < 0:
            length = -length
        nx, ny, nz = nx / length, ny / length, nz / length
        if not axis_low <= nz <= axis_high:
            continue
        offset = -(nx * x[p] + ny * y[p] + nz * z[p])
        inliers, below = np.int64(0), np.int64(0)
        for i in range(x.shape[0]):
            distance = x[i] * nx + y[i] * ny + z[i] * nz + offset
            inliers += np.int64(abs(distance) <= tolerance)
            below += np.int64(distance < -3 * tolerance)
        score = inliers - below_penalty * below
        if score > best_score:
            best[0], best[1], best[2], best[3], best_score = nx, ny, nz, offset, score
    return best, best_score


def fit_plane(points: np.ndarray, tolerance: float, axis: tuple[float, float], below_penalty: float = 0.0):
    """The plane with most points within ``tolerance``.

    Args:
        points: [N,3] metres.
        axis: range of the normal's z component, which is never negative.
        below_penalty: what a point far below the plane costs, in inliers: with it the lowest of several planes wins.

    Returns:
        float64 [4] (unit normal n and offset d, n . p + d = 0) and the share of inliers; None where there is no plane.
    """
    if len(points) < 3:
        return None
    rng = np.random.default_rng(0)
    judged = points[:: -(-len(points) // _SAMPLE)].astype(np.float64)
    triples = rng.integers(0, len(judged), (_TRIES, 3))
    plane, score = _search(*np.ascontiguousarray(judged.T), triples, tolerance, *axis, float(below_penalty))
    if score < 3:
        return None
    for _ in range(3):  # least squares on the inliers
        near = judged[np.abs(judged @ plane[:3] + plane[3]) <= tolerance]
        if len(near) < 3:
            break
        center = near.mean(axis=0)
        normal = np.linalg.eigh((near - center).T @ (near - center))[1][:, 0]  # of least variance
        normal = -normal if normal[2] < 0 else normal
        if not axis[0] - 0.05 <= normal[2] <= axis[1] + 0.05:
            break
        plane = np.append(normal, -normal @ center)
    share = float((np.abs(judged @ plane[:3] + plane[3]) <= tolerance).mean())
    return plane, share


_AXES = {"horizontal": (0.966, 1.0), "vertical": (0.0, 0.26), "any": (0.0, 1.0)}  # 15 degrees of play


def remove_planes(points: np.ndarray, config: PlaneConfig) -> np.ndarray:
    """Whether each of the points [N,3] (level: z up) remains, bool [N], once the dominant planes are gone."""
    left = np.ones(len(points), bool)
    for _ in range(config.count):
        index = np.flatnonzero(left)
        found = fit_plane(points[index], config.tolerance, _AXES[config.orientation])
        if found is None or found[1] < config.min_share:
            break
        plane = found[0].astype(np.float32)
        distance = points @ plane[:3] + plane[3]
        left &= np.abs(distance) > config.tolerance
        if config.only_above and plane[2] > _AXES["horizontal"][0]:
            left &= distance > 0
    return left
