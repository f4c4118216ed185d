# SPDX-License-Identifier: Apache-2.0
"""Which points lie inside solids, compiled with numba: most of the work of a composition or a body."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from foundry_core.kernels import jit

#: canonical solids within [-1, 1]^3; their numbers are those of the kernel
KINDS = ("box", "ellipsoid", "cylinder", "cone", "torus", "prism")


class Solids(NamedTuple):
    """M solids: kind and sides int64 [M], ratio float64 [M], the inverse map float64 [M,3,3] and the offset [M,3]."""

    kind: np.ndarray
    sides: np.ndarray
    ratio: np.ndarray
    inverse: np.ndarray
    offset: np.ndarray


def inside_any(points: np.ndarray, solids: Solids, margin: float = 1e-3, without: int = -1) -> np.ndarray:
    """Whether points [n,3] lie strictly inside any of the solids but number ``without``; bool [n]."""
    out = np.zeros(len(points), np.bool_)
    _inside_any(np.ascontiguousarray(points, np.float64), *solids, without, 1.0 - margin, out)
    return out


@jit
def _depth(kind, sides, ratio, x, y, z):
    # 0 at the core of the solid, 1 on its surface
    if kind == 0:
        return max(abs(x), abs(y), abs(z))
    if kind == 1:
        return math.sqrt(x * x + y * y + z * z)
    radius = math.sqrt(x * x + y * y)
    if kind == 4:
        across = radius - (1.0 - ratio)
        return math.sqrt(across * across + z * z) / ratio
    if kind == 5:
        sector = 2.0 * math.pi / sides
        radius /= math.cos(sector / 2.0) / math.cos(math.atan2(y, x) % sector - sector / 2.0)
    at_height = 1.0 if kind == 2 else 1.0 + (ratio - 1.0) * (z + 1.0) / 2.0
    return max(radius / max(at_height, 1e-6), abs(z))


@jit
def _inside_any(points, kind, sides, ratio, inverse, offset, without, limit, out):
    for i in range(points.shape[0]):
        for j in range(kind.shape[0]):
            if j == without:
                continue
            u, v, w = points[i, 0] - offset[j, 0], points[i, 1] - offset[j, 1], points[i, 2] - offset[j, 2]
            z = inverse[j, 2, 0] * u + inverse[j, 2, 1] * v + inverse[j, 2, 2] * w
            if abs(z) >= 1.0:
                continue
            x = inverse[j, 0, 0] * u + inverse[j, 0, 1] * v + inverse[j, 0, 2] * w
            y = inverse[j, 1, 0] * u + inverse[j, 1, 1] * v + inverse[j, 1, 2] * w
            if abs(x) < 1.0 and abs(y) < 1.0 and _depth(kind[j], sides[j], ratio[j], x, y, z) < limit:
                out[i] = True
                break


def inside_chains(
    points: np.ndarray, centers: np.ndarray, normals: np.ndarray, radii: np.ndarray, flatness: np.ndarray, without: int
) -> np.ndarray:
    """Whether points [n,3] lie inside any of T chains of M ellipsoids but number ``without``; bool [n].

    Args:
        centers, normals: [T,M,3]; radii: [T,M]; flatness: [T]. An ellipsoid is a ball, flattened along its normal.
    """
    out = np.zeros(len(points), np.bool_)
    nodes = (array.reshape(-1, 3) for array in (centers, normals))
    arrays = (points, *nodes, radii.ravel(), np.repeat(flatness, centers.shape[1]))
    contiguous = (np.ascontiguousarray(array, np.float64) for array in arrays)
    _inside_chains(*contiguous, centers.shape[1], without, 0.97**2, out)
    return out


@jit
def _inside_chains(points, centers, normals, radii, flatness, length, without, limit, out):
    for i in range(points.shape[0]):
        for m in range(centers.shape[0]):
            if m // length == without:
                continue
            u = points[i, 0] - centers[m, 0]
            v = points[i, 1] - centers[m, 1]
            w = points[i, 2] - centers[m, 2]
            square = u * u + v * v + w * w
            most = limit * radii[m] * radii[m]
            if square < most:
                across = u * normals[m, 0] + v * normals[m, 1] + w * normals[m, 2]
                if square + (1.0 / (flatness[m] * flatness[m]) - 1.0) * across * across < most:
                    out[i] = True
                    break
