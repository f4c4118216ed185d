# SPDX-License-Identifier: Apache-2.0
"""Labelled solids put together into a mesh, and the two draws that every category uses."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.primitives import Solid, loft
from foundry_core.data.procedural.vocabulary import part_id

_MIN_AREA = 1e-9  # square metres; what is smaller is a collapsed triangle, not a surface


class Assembly:
    """Collects labelled solids and becomes a mesh."""

    def __init__(self) -> None:
        self._vertices: list[np.ndarray] = []
        self._triangles: list[np.ndarray] = []
        self._parts: list[np.ndarray] = []
        self._count = 0

    def add(self, part, *solids: Solid) -> None:
        """Add solids as ``part``: a name, or a list of names with one per triangle of a single solid."""
        for vertices, triangles in solids:
            self._vertices.append(vertices)
            self._triangles.append(triangles + self._count)
            if isinstance(part, str):
                self._parts.append(np.full(len(triangles), part_id(part), np.int16))
            else:
                self._parts.append(np.array([part_id(name) for name in part], np.int16))
            self._count += len(vertices)

    def add_loft(self, rings, row_part, caps=("", ""), edge_part=None) -> None:
        """Add a loft of rings [R,N,3] with a part name per row (R-1), optionally overridden by ``edge_part``.

        ``caps`` names the parts of the two ends ('' leaves an end open); ``edge_part(row, edge)`` returns a part name
        or None for the quad between ring ``row`` and the next, at ``edge`` between ring points edge and edge + 1.
        """
        rings = np.asarray(rings, np.float64)
        rows, n = rings.shape[0] - 1, rings.shape[1]
        names = []
        for row in range(rows):
            for edge in range(n):
                name = (edge_part(row, edge) if edge_part else None) or row_part[row]
                names += [name, name]
        names += [caps[0]] * n if caps[0] else []
        names += [caps[1]] * n if caps[1] else []
        self.add(names, loft(rings, (bool(caps[0]), bool(caps[1]))))

    def mesh(self) -> LabeledMesh:
        """The mesh, standing on z=0 and centred on x=y=0, without collapsed triangles."""
        vertices = np.concatenate(self._vertices)
        triangles = np.concatenate(self._triangles)
        part = np.concatenate(self._parts)
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        vertices = (vertices - [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]).astype(np.float32)
        a, b, c = vertices[triangles.T]
        u, v = (b - a).astype(np.float64), (c - a).astype(np.float64)
        normal = u[:, [1, 2, 0]] * v[:, [2, 0, 1]] - u[:, [2, 0, 1]] * v[:, [1, 2, 0]]
        keep = np.einsum("ij,ij->i", normal, normal) > (2 * _MIN_AREA) ** 2
        return LabeledMesh(vertices, triangles[keep], part[keep])


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.random() < probability)


def pick(rng: np.random.Generator, *options):
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]
