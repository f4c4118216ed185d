# SPDX-License-Identifier: Apache-2.0
"""Triangle meshes that know the part of every triangle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabeledMesh:
    """A triangle mesh with one part label per triangle.

    Attributes:
        vertices: float32 [V,3], metres, finite.
        triangles: int32 [T,3], into ``vertices``, counter-clockwise seen from outside where the surface is closed.
        part: int16 [T], index into ``foundry_core.data.procedural.PART_NAMES``.

    Raises:
        ValueError: the arrays do not fit together (shape, range, or a vertex that is not finite).
    """

    vertices: np.ndarray
    triangles: np.ndarray
    part: np.ndarray

    def __post_init__(self) -> None:
        vertices = np.ascontiguousarray(self.vertices, np.float32)
        triangles = np.ascontiguousarray(self.triangles, np.int32)
        part = np.ascontiguousarray(self.part, np.int16)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or len(vertices) == 0:
            raise ValueError(f"expected vertices [V,3] with V >= 1, got shape {vertices.shape}")
        if triangles.ndim != 2 or triangles.shape[1] != 3 or len(triangles) == 0:
            raise ValueError(f"expected triangles [T,3] with T >= 1, got shape {triangles.shape}")
        if part.shape != (len(triangles),):
            raise ValueError(f"expected part [{len(triangles)}], one label per triangle, got shape {part.shape}")
        if triangles.min() < 0 or triangles.max() >= len(vertices):
            raise ValueError(f"a triangle refers to a vertex outside 0..{len(vertices) - 1}")
        if not np.isfinite(vertices).all():
            raise ValueError("a vertex is not finite")
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "triangles", triangles)
        object.__setattr__(self, "part", part)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner, float32 [3] each, metres."""
        return self.vertices.min(axis=0), self.vertices.max(axis=0)

    def areas(self) -> np.ndarray:
        """Area of every triangle, float64 [T], square metres."""
        a, b, c = self.vertices.astype(np.float64)[self.triangles.T]
        return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)

    def transformed(self, rotation, translation) -> LabeledMesh:
        """The mesh under x -> rotation @ x + translation, with rotation [3,3] and translation [3] in metres."""
        rotation = np.asarray(rotation, np.float64).reshape(3, 3)
        translation = np.asarray(translation, np.float64).reshape(3)
        return LabeledMesh(self.vertices @ rotation.T + translation, self.triangles, self.part)

    def scaled(self, factor) -> LabeledMesh:
        """The mesh with every coordinate multiplied by ``factor``, one positive number or three (per axis)."""
        factor = np.broadcast_to(np.asarray(factor, np.float64), (3,))
        if not (factor > 0).all():
            raise ValueError(f"scale factors must be positive, got {factor.tolist()}")
        return LabeledMesh(self.vertices * factor, self.triangles, self.part)


def merge(meshes: Sequence[LabeledMesh]) -> LabeledMesh:
    """One mesh of several, in their order."""
    if not meshes:
        raise ValueError("nothing to merge: give at least one mesh")
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    return LabeledMesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.triangles + start for mesh, start in zip(meshes, starts, strict=True)]),
        np.concatenate([mesh.part for mesh in meshes]),
    )


def sample_triangles(mesh: LabeledMesh, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points uniform over the surface area (Osada et al., 2002).

    Returns:
        points float32 [count,3] in metres, and the triangle each was drawn from, int64 [count].
    """
    cumulative = np.cumsum(mesh.areas())
    if not cumulative[-1] > 0:
        raise ValueError("the mesh has no area to sample")
    triangle = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    np.minimum(triangle, len(cumulative) - 1, out=triangle)
    root, along = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1.0 - root, root * (1.0 - along), root * along], axis=1)  # (count, 3)
    corners = mesh.vertices[mesh.triangles[triangle]]  # (count, 3 corners, 3)
    points = (corners * weights[:, :, None].astype(np.float32)).sum(axis=1)
    return points, triangle


def sample_surface(mesh: LabeledMesh, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points float32 [count,3] uniform over the surface area, in metres, and their parts int16 [count]."""
    points, triangle = sample_triangles(mesh, count, rng)
    return points, mesh.part[triangle]
