# SPDX-License-Identifier: Apache-2.0
"""Ray casting with Open3D (Embree), for those who have it: the same answers as :mod:`raycast`, up to rounding.

Its scenes cannot move a mesh, so every frame of a scene with moving objects builds them anew. Open3D's wheel needs
libusb, which a plain Debian lacks; the numba caster is therefore the default, and a recording says nothing of which.
"""

from __future__ import annotations

import numpy as np

from foundry_core.data.world.raycast import Hits, Mesh
from foundry_core.errors import InputError


class Open3dCaster:
    """A stand-in for :class:`foundry_core.data.world.raycast.Caster`.

    Raises:
        InputError: Open3D cannot be imported.
    """

    def __init__(self, meshes: list[Mesh]) -> None:
        try:
            import open3d
        except (ImportError, OSError) as error:
            raise InputError(
                f"raycaster open3d: cannot be imported ({error}); pip install open3d-cpu libusb-package, or take numba"
            ) from None
        self._open3d = open3d
        self.meshes = meshes
        self._corners = []
        for mesh in meshes:
            a, ab, ac = mesh.corners.reshape(-1, 3, 3).transpose(1, 0, 2)  # (T, 3) each
            self._corners.append(np.stack([a, a + ab, a + ac], axis=1).astype(np.float64))  # (T, 3, 3)

    def cast(
        self, directions: np.ndarray, sensor: np.ndarray, rotations: np.ndarray, translations: np.ndarray,
        max_range: float,
    ) -> Hits:  # fmt: skip
        """First surface along each ray, as :meth:`foundry_core.data.world.raycast.Caster.cast` gives it."""
        o3d, count = self._open3d, len(directions)
        scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        for corners, rotation, translation in zip(self._corners, rotations, translations, strict=True):
            # in the sensor's frame: coordinates are then small where rays are short
            placed = (corners @ np.asarray(rotation).T + translation - sensor[:3, 3]) @ sensor[:3, :3]
            vertices = np.ascontiguousarray(placed.reshape(-1, 3), np.float32)
            scene.add_triangles(vertices, np.arange(len(vertices), dtype=np.uint32).reshape(-1, 3))
        rays = np.zeros((count, 6), np.float32)
        rays[:, 3:] = directions
        answer = {name: values.numpy() for name, values in scene.cast_rays(o3d.core.Tensor(rays), nthreads=1).items()}
        found = answer["t_hit"] < max_range
        owner = np.where(found, answer["geometry_ids"].astype(np.int64), -1).astype(np.int32)
        triangle = np.full(count, -1, np.int32)
        for number, mesh in enumerate(self.meshes):
            mine = owner == number
            triangle[mine] = mesh.order[answer["primitive_ids"][mine]]
        normals = answer["primitive_normals"]
        cosine = np.where(found, np.abs((normals * directions).sum(axis=1)), 0).astype(np.float32)
        return Hits(np.where(found, answer["t_hit"], max_range).astype(np.float32), owner, triangle, cosine)
