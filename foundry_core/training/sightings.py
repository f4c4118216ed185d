# SPDX-License-Identifier: Apache-2.0
"""Labelled objects as a robot meets them: whole shapes, single sensor views, and segments cut from simulated sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foundry_core import geometry
from foundry_core.clouds import Cloud
from foundry_core.data.compositions import compose
from foundry_core.data.mesh import LabeledMesh, sample_surface
from foundry_core.data.procedural import CATEGORIES, CATEGORY_PARTS, make_shape
from foundry_core.data.procedural.vocabulary import part_id
from foundry_core.data.stream import DENSE, random_rotation
from foundry_core.data.views import MIN_POINTS, foot_cut, sensor_view
from foundry_core.data.world.config import WorldConfig
from foundry_core.data.world.simulate import simulate
from foundry_core.scene.config import SceneConfig
from foundry_core.scene.segment import find_segments

OTHER = "other"
MAX_HEIGHT = SceneConfig().max_height  # metres above the ground
PURITY = 0.7  # share of a segment's points that one object must own to name the segment
PLATE = 0.05  # share of a sign's points that its plates must have to tell it from a pole
_POLE, _SIGN = CATEGORIES.index("pole"), CATEGORIES.index("sign")
_POLE_PARTS = [part_id(name) for name in CATEGORY_PARTS["pole"]]


@dataclass(frozen=True)
class Sighting:
    """One object as the network sees it.

    Attributes:
        points: float32 [N,3], normalised; label: class index; part: int16 [N], part index or -1.
        diagonal: of the box around the points seen, metres; NaN where they have no true size.
    """

    points: np.ndarray
    label: int
    part: np.ndarray
    diagonal: float


def as_seen(label: int, part: np.ndarray) -> tuple[int, np.ndarray]:
    """What can be told of an object's points: a sign whose plate is above the highest beam is a pole.

    A head that had to call such a bare post a sign would call other posts signs, too.

    Args:
        label: category index of the whole object; part: int16 [N], part index of each point seen, or -1.

    Returns:
        label and parts of what is seen; points of a part that the label does not have are -1.
    """
    if label != _SIGN or np.mean(part == part_id("plate")) >= PLATE:
        return label, part
    return _POLE, np.where(np.isin(part, _POLE_PARTS), part, -1)


def _sighting(points: np.ndarray, label: int, part: np.ndarray, count: int, diagonal: float) -> Sighting:
    label, part = as_seen(label, part)
    prepared, index = geometry.prepare(points, count)
    return Sighting(prepared, label, part[index].astype(np.int16), diagonal)


def _diagonal(points: np.ndarray) -> float:
    return float(np.linalg.norm(np.ptp(points, axis=0)))


def _look(mesh: LabeledMesh, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The whole shape, or (three times in four) one sensor view of it.

    Some views lose the foot to ground removal, and most of tall things end where the robot's segments do.
    """
    if rng.random() >= 0.25:
        points, part = sensor_view(mesh, rng, ground_cut=foot_cut(mesh, rng))
        if rng.random() < 0.7:
            below = points[:, 2] < MAX_HEIGHT
            points, part = points[below], part[below]
        if len(points) >= MIN_POINTS:
            return points, part
    return sample_surface(mesh, DENSE, rng)


def shape_sighting(index: int, seed: int, count: int) -> Sighting:
    """The ``index``-th object of an endless seeded sequence; one in ten is a composition, labelled ``other``."""
    rng = np.random.default_rng([seed, index])
    diagonal = np.nan
    if rng.random() < 0.1:
        points, label = compose(DENSE, rng), len(CATEGORIES)
        part = np.full(len(points), -1, np.int16)
        if rng.random() < 0.5:
            keep = np.argsort(points @ rng.normal(size=3))[: int(rng.integers(DENSE // 8, DENSE))]
            points, part = points[keep], part[keep]
    else:
        label = int(rng.integers(len(CATEGORIES)))
        mesh = make_shape(CATEGORIES[label], rng)
        points, part = _look(mesh, rng)
        diagonal = _diagonal(points)
    points = points @ random_rotation(rng, "z").T
    return _sighting(points, label, part, count, diagonal)


def scene_sightings(world: WorldConfig, scene: SceneConfig, count: int) -> Iterator[Sighting]:
    """Segments of simulated sweeps, cut as on the robot, with the label of the object that owns most of their points.

    A segment of background, or of several objects none of which owns :data:`PURITY` of it, is ``other``.
    """
    for frame in simulate(world):
        cloud = Cloud.from_points(frame.points)
        for segment in find_segments(cloud, scene).segments:
            owner = frame.object_id[segment.index]
            ids, counts = np.unique(owner, return_counts=True)
            main = ids[counts.argmax()]
            if main >= 0 and counts.max() >= PURITY * len(owner):
                label = int(frame.class_id[segment.index][owner == main][0])
                part = np.where(owner == main, frame.part_id[segment.index], -1)
            else:
                label, part = len(CATEGORIES), np.full(len(owner), -1, np.int16)
            yield _sighting(segment.points, label, part, count, _diagonal(segment.points))
