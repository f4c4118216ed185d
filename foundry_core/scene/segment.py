# SPDX-License-Identifier: Apache-2.0
"""A sweep becomes segments: crop, ground, clusters, limits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from foundry_core.clouds import Cloud
from foundry_core.scene import grid
from foundry_core.scene.boxes import oriented_boxes
from foundry_core.scene.clusters import connected_components
from foundry_core.scene.config import SceneConfig
from foundry_core.scene.ground import find_ground
from foundry_core.scene.planes import remove_planes


@dataclass(frozen=True)
class Segment:
    """Points that may be one object.

    Attributes:
        index: int64 [n], into the points of the cloud.
        points: float32 [n,3], metres, with the axes of the sensor frame made level (z against gravity, as far as the
            ground tells) about the sensor's origin: what a network looks at. Equal to the cloud's points for a sensor
            that is level.
        center: float32 [3], metres, of the oriented box, in the frame of the cloud.
        size: float32 [3], metres: length along yaw, breadth, height; length >= breadth.
        yaw: radians about z, in (-pi/2, pi/2].
    """

    index: np.ndarray
    points: np.ndarray
    center: np.ndarray
    size: np.ndarray
    yaw: float


@dataclass(frozen=True)
class SceneResult:
    """What was found in a cloud of N points.

    Attributes:
        segments: nearest (or largest) first.
        ground: bool [N], points on the ground.
        segment_id: int32 [N], index into ``segments`` or -1.
        rotation: float32 [3,3], level from sensor.
        dropped: clusters left out, by reason: few_points, low, small, large, beyond_limit.
        phases_ms: milliseconds for crop, ground and clusters.
    """

    segments: list[Segment]
    ground: np.ndarray
    segment_id: np.ndarray
    rotation: np.ndarray
    dropped: dict[str, int] = field(default_factory=dict)
    phases_ms: dict[str, float] = field(default_factory=dict)


def crop_and_thin(points: np.ndarray, config: SceneConfig) -> np.ndarray:
    """Indices int64 [n] of the points [N,3] that the crop box, the ego box and the thinning leave."""
    kept = grid.crop(points, config.crop, config.ego)
    if config.voxel > 0:
        kept = kept[grid.voxel_first(points[kept], config.voxel)]
    if len(kept) > config.max_points:
        kept = kept[:: -(-len(kept) // config.max_points)]
    return kept


def find_segments(cloud: Cloud, config: SceneConfig) -> SceneResult:
    """Segments of a sweep, in the frame of the cloud (REP-103 sensor axes: x forward, y left, z up).

    A cloud without any point, or without any object, has no segments.
    """
    marks = [time.perf_counter()]
    points = cloud.points
    kept = crop_and_thin(points, config)  # (n)
    cropped = grid.take(points, kept) if len(kept) < len(points) else points
    marks.append(time.perf_counter())

    ground, level = find_ground(cropped, config.ground)
    is_ground = np.zeros(len(points), bool)
    highest = config.max_height if ground.found else np.inf
    free = grid.divide(ground.height, kept, config.ground.clearance, highest, is_ground)
    marks.append(time.perf_counter())

    above = grid.take(level, free)  # (n', 3)
    if config.planes.count and len(free):
        left = remove_planes(above, config.planes)
        free, above = free[left], above[left]
    labels, count = connected_components(above, config.clusters)
    height = ground.height[free] if ground.found else None
    clusters, dropped = _choose(above, height, labels, count, config)
    segments = _segments(points, kept[free], above, clusters, level is cropped)
    segment_id = np.full(len(points), -1, np.int32)
    for number, segment in enumerate(segments):
        segment_id[segment.index] = number
    marks.append(time.perf_counter())
    phases = {name: 1e3 * (marks[k + 1] - marks[k]) for k, name in enumerate(("crop", "ground", "clusters"))}
    return SceneResult(segments, is_ground, segment_id, ground.rotation, dropped, phases)


class _Clusters(NamedTuple):
    """Chosen clusters: order [n] and starts [C+1] of all, the chosen ones by priority, and all boxes (level)."""

    order: np.ndarray
    starts: np.ndarray
    chosen: np.ndarray
    boxes: tuple[np.ndarray, np.ndarray, np.ndarray]


def _choose(points, height, labels, count, config: SceneConfig) -> tuple[_Clusters | None, dict[str, int]]:
    """The clusters of points [n,3] (level) that are segments, None for none, and the reasons for the others."""
    dropped = dict.fromkeys(("few_points", "low", "small", "large", "beyond_limit"), 0)
    order, starts = grid.group_by_label(labels, count, config.min_points)
    dropped["few_points"] = count + 1 - len(starts)
    if len(starts) == 1:
        return None, dropped
    boxes = center, size, _ = oriented_boxes(points, order, starts)
    longest = size.max(axis=1)
    top = np.maximum.reduceat(height[order], starts[:-1]) if height is not None else size[:, 2]
    low, small, large = top < config.min_height, longest < config.min_size, longest > config.max_size
    dropped["low"] = int(low.sum())
    dropped["small"], dropped["large"] = int((small & ~low).sum()), int((large & ~low).sum())
    accepted = np.flatnonzero(~(low | small | large))
    if config.priority == "nearest":
        key = (center[accepted, :2] ** 2).sum(axis=1)
    else:
        key = -np.prod(size[accepted], axis=1)
    ranked = accepted[np.argsort(key, kind="stable")]
    dropped["beyond_limit"] = max(len(ranked) - config.max_objects, 0)
    return _Clusters(order, starts, ranked[: config.max_objects], boxes), dropped


def _segments(points, index, above, clusters: _Clusters | None, is_level: bool) -> list[Segment]:
    """Segments from points [N,3] of the cloud, and index [n] and level coordinates [n,3] of what was clustered."""
    if clusters is None or not len(clusters.chosen):
        return []
    members = [clusters.order[clusters.starts[k] : clusters.starts[k + 1]] for k in clusters.chosen]
    sources = [index[rows] for rows in members]
    if is_level:
        center, size, yaw = (values[clusters.chosen] for values in clusters.boxes)
    else:
        starts = np.cumsum([0, *map(len, sources)])
        center, size, yaw = oriented_boxes(points, np.concatenate(sources), starts)
    return [
        Segment(source, grid.take(above, rows), center[k], size[k], float(yaw[k]))
        for k, (source, rows) in enumerate(zip(sources, members, strict=True))
    ]
