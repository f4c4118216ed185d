# SPDX-License-Identifier: Apache-2.0
"""Views of objects by a depth camera whose place is known: fixed above a table, say, or on a robot's mast.

:func:`foundry_core.data.views.sensor_view` knows nothing of the sensor's place, so it draws it widely, and goes the
farther away the larger an object is. Then the number of returns, their noise and the objects' proportions tell the
classes of a simulated set apart, and a head learns these. Here all classes are of the same sizes, proportions and
distances: only their form is left.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field, field_validator

from foundry_core import geometry
from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.stream import random_rotation
from foundry_core.data.views import look, pose_of, window_of
from foundry_core.data.world.raycast import Caster, Mesh
from foundry_core.data.world.sensors import RgbdConfig
from foundry_core.schema import Settings

Span = tuple[float, float]


class Mount(Settings):
    """`foundry shapes draw --mount FILE`: where a depth camera is, what it is, and what stands before it."""

    distance: Span = Field((0.6, 1.0), description="camera to the middle of an object, least and most, metres")
    elevation: Span = Field((35.0, 45.0), description="angle by which the camera looks down, degrees")
    size: Span = Field((0.1, 0.35), description="largest extent of an object, metres, whatever its class")
    proportion: Span | None = Field(
        None, description="height over width of an object, whatever its class; absent: as the category has it"
    )
    hidden: float = Field(0.3, ge=0, le=1, description="share of objects that another one stands in front of")
    random_points: bool = Field(
        False, description="views with too many returns are thinned by chance, not evenly in space: as the data is"
    )
    least: int = Field(100, ge=1, description="returns that a view has at least")
    camera: RgbdConfig = RgbdConfig(width=640, height=480)

    @field_validator("distance", "size", "proportion")
    @classmethod
    def _positive(cls, span: Span | None) -> Span | None:
        if span is not None and not 0 < span[0] <= span[1]:
            raise ValueError(f"{list(span)}: give two rising numbers above 0")
        return span

    @field_validator("elevation")
    @classmethod
    def _below_the_zenith(cls, span: Span) -> Span:
        if not -80 <= span[0] <= span[1] <= 80:
            raise ValueError(f"{list(span)}: give two rising angles in -80..80")
        return span

    def fit(self, mesh: LabeledMesh, rng: np.random.Generator) -> LabeledMesh:
        """The mesh in a proportion and a size that are drawn evenly in their logarithms."""
        extent = np.subtract(*mesh.bounds[::-1]).astype(float)
        factor = np.ones(3)
        if self.proportion is not None:
            wanted = np.exp(rng.uniform(*np.log(self.proportion)))
            factor[2] = wanted * np.sqrt(extent[0] * extent[1]) / max(extent[2], 1e-6)
        factor *= np.exp(rng.uniform(*np.log(self.size))) / float((extent * factor).max())
        return mesh.scaled(factor)


def mounted_view(
    mesh: LabeledMesh, mount: Mount, rng: np.random.Generator, other: LabeledMesh | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What a mounted camera returns of an object, seen from a random side.

    Args:
        mesh: metres, standing on z=0, already of its size.
        other: stands on the same plane between camera and object or beside that line; its returns are left out.

    Returns:
        points float32 [n,3] in the mesh's frame and their parts int16 [n]; n may be 0.
    """
    low, high = (corner.astype(float) for corner in mesh.bounds)
    center = (low + high) / 2
    distance, down = rng.uniform(*mount.distance), np.deg2rad(rng.uniform(*mount.elevation))
    side = rng.uniform(0, 2 * np.pi)
    level = np.array([np.cos(side), np.sin(side), 0.0])
    origin = center + distance * (np.cos(down) * level + np.array([0.0, 0.0, np.sin(down)]))
    slack = np.deg2rad(mount.camera.field_of_view_deg) / 2
    azimuth, elevation = look(origin, center)
    pose = pose_of(origin, azimuth + rng.uniform(-0.5, 0.5) * slack, elevation + rng.uniform(-0.35, 0.35) * slack)
    meshes, turns, places = [Mesh(mesh.vertices, mesh.triangles)], [np.eye(3)], [np.zeros(3)]
    if other is not None:
        turns.append(random_rotation(rng, "z"))
        places.append(_before(low, high, other, side, rng))
        meshes.append(Mesh(other.vertices, other.triangles))
    middle = pose[:3, :3].T @ (meshes[0].center - origin)
    top, bottom, left, right = window_of(mount.camera, middle, meshes[0].radius)
    if bottom - top < 2 or right - left < 2:
        return np.empty((0, 3), np.float32), np.empty(0, np.int16)
    directions = mount.camera.window(top, bottom, left, right)
    hits = Caster(meshes).cast(directions, pose, np.stack(turns), np.stack(places), 2 * mount.camera.max_range)
    kept, measured, _ = mount.camera.measure(
        hits.distance,
        hits.cosine,
        np.full(len(directions), 0.5, np.float32),
        rng,
        directions=directions,
        shape=(bottom - top, right - left),
    )
    own = hits.mesh[kept] == 0
    kept, measured = kept[own], measured[own]
    points = (directions[kept] * measured[:, None]) @ pose[:3, :3].T + pose[:3, 3]
    return points.astype(np.float32), mesh.part[hits.triangle[kept]]


def _before(low, high, other: LabeledMesh, side: float, rng: np.random.Generator) -> np.ndarray:
    """A place [3] for another object, up to 60 degrees from the line to the camera, next to the first one."""
    theirs = np.subtract(*other.bounds[::-1])
    reach = (np.hypot(*(high - low)[:2]) + np.hypot(*theirs[:2])) / 2
    angle = side + np.deg2rad(rng.uniform(-60, 60))
    away = reach * rng.uniform(0.75, 1.15)
    middle = (low + high) / 2
    return np.array([middle[0] + away * np.cos(angle), middle[1] + away * np.sin(angle), 0.0])


def thinned(points: np.ndarray, part: np.ndarray, count: int, rng: np.random.Generator, by_chance: bool):
    """``count`` of the points [n,3] and their parts [n]: drawn by chance where asked for and there are more, else as
    :func:`foundry_core.geometry.prepare` takes them, which also centres and scales."""
    if by_chance and len(points) > count:
        chosen = rng.permutation(len(points))[:count]
        points, part = points[chosen], part[chosen]
    points, index = geometry.prepare(points, count)
    return points, part[index]
