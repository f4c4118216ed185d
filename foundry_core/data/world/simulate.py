# SPDX-License-Identifier: Apache-2.0
"""Sweeps of a simulated sensor through a scene, with the object, class and part of every point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foundry_core.data.world.config import START_NS, WorldConfig
from foundry_core.data.world.raycast import Caster, Mesh
from foundry_core.data.world.scenes import Scene, build_scene


@dataclass(frozen=True)
class Frame:
    """One sweep.

    Attributes:
        stamp_ns: time of the sweep, ns.
        points: float32 [N,3] metres, in the sensor's frame (x forward, y left, z up, sensor at the origin).
        intensity: float32 [N], 0..1.
        object_id: int32 [N], index into ``Scene.objects``, -1 for the surroundings.
        class_id: int16 [N], index into ``CATEGORIES``, -1 for the surroundings.
        part_id: int16 [N], index into ``PART_NAMES``, -1 for the surroundings.
        pose_world_from_sensor: float64 [4,4].
    """

    stamp_ns: int
    points: np.ndarray
    intensity: np.ndarray
    object_id: np.ndarray
    class_id: np.ndarray
    part_id: np.ndarray
    pose_world_from_sensor: np.ndarray


class Simulator:
    """A scene and a sensor, ready to be sampled at any time."""

    def __init__(self, config: WorldConfig, scene: Scene | None = None) -> None:
        self.config = config
        self.sensor = config.sensor_config()
        self.scene = scene or build_scene(config.kind, config.seed, config.seconds, config.speed, config.sensor)
        objects = self.scene.objects
        background = self.scene.background
        # mesh 0 is all that stands still; each moving object follows with a pose of its own
        standing = [number for number, placed in enumerate(objects) if not placed.moving]
        self._moving = [number for number, placed in enumerate(objects) if placed.moving]
        vertices, triangles = [background.vertices], [background.triangles]
        nobody = np.full(len(background.triangles), -1)
        tables = [(nobody, nobody, background.reflectivity)]
        count = len(background.vertices)
        for number in standing:
            rotation, translation = self.object_pose(number, 0.0)
            mesh = objects[number].mesh
            vertices.append(mesh.vertices @ rotation.T + translation)
            triangles.append(mesh.triangles + count)
            count += len(mesh.vertices)
            tables.append(self._table(number))
        meshes = [Mesh(np.concatenate(vertices), np.concatenate(triangles))]
        for number in self._moving:
            meshes.append(Mesh(objects[number].mesh.vertices, objects[number].mesh.triangles))
            tables.append(self._table(number))
        self._caster = self._open_caster(meshes)
        self._base = np.cumsum([0] + [len(mesh.corners) for mesh in meshes[:-1]])
        owner, part, reflectivity = (np.concatenate(column) for column in zip(*tables, strict=True))
        self._owner, self._part = owner.astype(np.int32), part.astype(np.int16)
        self._reflectivity = reflectivity.astype(np.float32)
        self._class = np.array([placed.class_id for placed in objects] + [-1], np.int16)

    def _open_caster(self, meshes: list[Mesh]):
        if self.config.raycaster == "numba":
            return Caster(meshes)
        from foundry_core.data.world.raycast_open3d import Open3dCaster

        return Open3dCaster(meshes)

    def _table(self, number: int):
        placed = self.scene.objects[number]
        part = placed.mesh.part
        return np.full(len(part), number), part, placed.reflectivity[part]

    def object_pose(self, number: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """World from object: rotation [3,3] and translation [3] at a time."""
        placed = self.scene.objects[number]
        x, y = placed.at(seconds)
        return placed.rotation, np.array([x, y, float(self.scene.ground(x, y))])

    def frame(self, number: int) -> Frame:
        """The sweep of one frame number; a pure function of the configuration and the number."""
        seconds = number / self.config.rate_hz
        rng = np.random.default_rng([self.config.seed, 2, number])
        pose = self.scene.sensor_pose(seconds)
        poses = [(np.eye(3), np.zeros(3))] + [self.object_pose(moving, seconds) for moving in self._moving]
        rotations, translations = (np.stack(column) for column in zip(*poses, strict=True))
        directions = self.sensor.directions
        limit = 2.0 * self.sensor.max_range  # a depth is shorter than its ray
        hits = self._caster.cast(directions, pose, rotations, translations, limit)
        row = np.where(hits.mesh >= 0, self._base[hits.mesh] + hits.triangle, 0)
        kept, measured, intensity = self.sensor.measure(hits.distance, hits.cosine, self._reflectivity[row], rng)
        kept_row = row[kept]
        owner = self._owner[kept_row]
        return Frame(
            stamp_ns=START_NS + round(1e9 * seconds),
            points=directions[kept] * measured[:, None],
            intensity=intensity,
            object_id=owner,
            class_id=self._class[owner],
            part_id=self._part[kept_row],
            pose_world_from_sensor=pose,
        )


def simulate(config: WorldConfig) -> Iterator[Frame]:
    """The frames of a recording, in order; the same configuration gives the same frames, bit for bit."""
    simulator = Simulator(config)
    for number in range(config.frames):
        yield simulator.frame(number)
