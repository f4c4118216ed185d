# SPDX-License-Identifier: Apache-2.0
"""One object as a sensor sees it: from one side, with the sensor's pattern, noise and losses."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.world.raycast import Caster, Mesh
from foundry_core.data.world.sensors import LidarConfig, RgbdConfig, unit_vectors

#: a view has at least this many points, unless no viewpoint gives them
MIN_POINTS = 50
_TRIES = 12
_MANY_PIXELS = 15_000
_LIDARS = (
    {"beams": 64, "azimuth_steps": 1440},
    {"beams": 64, "azimuth_steps": 1800},
    {"beams": 64, "azimuth_steps": 1440, "elevation_deg": (-45.0, 30.0)},
    {"beams": 32, "azimuth_steps": 1800},
    {"beams": 16, "azimuth_steps": 2160},
)
_LIDAR_SHARE = (0.5, 0.15, 0.15, 0.15, 0.05)


@lru_cache(maxsize=len(_LIDARS))
def _lidar(number: int) -> LidarConfig:
    return LidarConfig(**_LIDARS[number], min_range=0.3)


@lru_cache(maxsize=2)
def _camera(coarser: int = 1) -> RgbdConfig:
    return RgbdConfig(width=320 // coarser, height=240 // coarser)


def foot_cut(mesh: LabeledMesh, rng: np.random.Generator) -> float:
    """Metres above the base that ground removal takes from a view: often nothing, else up to 0.25 m."""
    return 0.0 if rng.random() < 0.4 else rng.uniform(0.0, min(0.25, 0.3 * float(mesh.bounds[1][2])))


def sensor_view(
    mesh: LabeledMesh, rng: np.random.Generator, sensor: str | None = None, ground_cut: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """What a lidar or a depth camera returns of an object that stands alone, from a random plausible place.

    The sensor stands beside the object, some 0.4 to 2.2 m above its base, at a distance drawn (evenly in its logarithm)
    between close by and where some 50 points are left.

    Args:
        mesh: metres, standing on z=0.
        sensor: ``lidar``, ``rgbd``, or None for either.
        ground_cut: points lower than this above the base are taken away, metres, as ground removal does.

    Returns:
        points float32 [n,3] in the mesh's frame, and their parts int16 [n]. The view with the most points of several
        tries when none has ``MIN_POINTS``; n can be 0 for an object that no ray meets.
    """
    if sensor not in ("lidar", "rgbd", None):
        raise ValueError(f"unknown sensor '{sensor}'; choose lidar or rgbd")
    low, high = mesh.bounds
    size = (high - low).astype(float)
    kind = sensor or ("lidar" if rng.random() < (0.6 if size.max() < 3 else 0.95) else "rgbd")
    caster = Caster([Mesh(mesh.vertices, mesh.triangles)])
    reflectivity = rng.uniform(0.2, 0.9, int(mesh.part.max()) + 1).astype(np.float32)[mesh.part]
    view = _lidar_view if kind == "lidar" else _camera_view
    best, shrink = (np.empty((0, 3), np.float32), np.empty(0, np.int16)), 1.0
    for _ in range(_TRIES):
        points, triangle = view(caster, (low + high) / 2, size, reflectivity, rng, shrink)
        if ground_cut > 0:
            above = points[:, 2] > ground_cut
            points, triangle = points[above], triangle[above]
        if len(points) > len(best[0]) or len(points) >= MIN_POINTS:
            best = points, mesh.part[triangle]
        if len(points) >= MIN_POINTS:
            break
        shrink *= 0.75
    return best


def _place(target, center, size, nearest: float, farthest: float, span, rng, shrink: float) -> np.ndarray:
    """A place for the sensor, [3], in the mesh's frame, from where the target is ``span`` (rising elevations) away.

    ``nearest`` is the least distance to the side of the bounding box, ``farthest`` the largest to the target.
    """
    azimuth = rng.uniform(0, 2 * np.pi)
    way = np.array([np.cos(azimuth), np.sin(azimuth)])
    to_side = (size[:2] / 2 - np.sign(way) * (target - center)[:2]) / np.maximum(np.abs(way), 1e-9)
    nearest = float(to_side.min()) + nearest
    distance = np.exp(rng.uniform(np.log(nearest), np.log(max(farthest, 1.2 * nearest))))
    distance = max(nearest, shrink * distance)
    # what is too low for the sensor's beams stands on something
    lowest, highest = target[2] - distance * np.tan(span[1]), target[2] - distance * np.tan(span[0])
    height = np.clip(rng.uniform(0.4, 2.2), lowest, highest)
    return np.array([*(target[:2] + distance * way), height])


def _frontal_area(size) -> float:
    return float(np.sqrt(size[0] * size[1]) * size[2] + 0.3 * size[0] * size[1])


def look(origin, target) -> tuple[float, float]:
    """Azimuth and elevation, radians, of the way from one place [3] to another."""
    offset = target - origin
    return float(np.arctan2(offset[1], offset[0])), float(np.arctan2(offset[2], np.hypot(offset[0], offset[1])))


def pose_of(origin, azimuth: float, elevation: float) -> np.ndarray:
    """Pose [4,4] of a sensor at a place [3] that looks that way, level."""
    ca, sa, ce, se = np.cos(azimuth), np.sin(azimuth), np.cos(elevation), np.sin(elevation)
    pose = np.eye(4)
    pose[:3, :3] = np.array([[ca * ce, -sa, -ca * se], [sa * ce, ca, -sa * se], [se, 0.0, ce]])
    pose[:3, 3] = origin
    return pose


def _cast(caster, directions, pose, limit):
    return caster.cast(directions, pose, np.eye(3)[None], np.zeros((1, 3)), limit)


def _lidar_view(caster, center, size, reflectivity, rng, shrink):
    config = _lidar(int(rng.choice(len(_LIDARS), p=_LIDAR_SHARE)))
    step = 2 * np.pi / config.azimuth_steps
    spread = float(np.abs(np.diff(config.elevations)).mean())
    farthest = np.sqrt(_frontal_area(size) / (MIN_POINTS * step * spread))
    span = 0.85 * config.elevations[-1], max(0.85 * config.elevations[0], 0.0)
    origin = _place(center, center, size, 0.4 + 0.3 * size.max(), min(farthest, 40.0), span, rng, shrink)
    azimuth, elevation = look(origin, center)
    mesh = caster.meshes[0]
    half = float(np.arcsin(min(0.999, mesh.radius / np.linalg.norm(mesh.center - origin))))
    tilt = np.deg2rad(rng.normal(0.0, 0.6))  # the vehicle is never quite level
    beams = config.elevations + tilt
    beams = beams[np.abs(beams - elevation) <= half + 0.02]
    turns = np.arange(-half, half + step, step) / max(0.2, np.cos(elevation)) + rng.uniform(0, step)
    turns = turns[np.abs(turns) < np.pi]
    if len(beams) == 0:
        return np.empty((0, 3), np.float32), np.empty(0, np.int64)
    turns = np.arange(turns[0], turns[-1] + step, step)
    directions = unit_vectors(*np.meshgrid(beams, turns, indexing="ij")).reshape(-1, 3)
    pose = pose_of(origin, azimuth, 0.0)
    hits = _cast(caster, directions, pose, config.max_range)
    hit = np.flatnonzero(hits.mesh >= 0)
    kept, measured, _ = config.measure(hits.distance[hit], hits.cosine[hit], reflectivity[hits.triangle[hit]], rng)
    return _points(directions[hit[kept]], measured, pose), hits.triangle[hit[kept]]


def _camera_view(caster, center, size, reflectivity, rng, shrink):
    config = _camera()
    farthest = np.sqrt(_frontal_area(size) * config.focal**2 / (4 * MIN_POINTS))
    frame = 0.5 * size.max() / np.tan(np.deg2rad(config.field_of_view_deg) / 2)
    nearest = min(max(0.45, 0.8 * frame), 3.0)  # a large object leaves the image
    target = center + rng.uniform(-0.5, 0.5, 3) * np.maximum(size - 2.5, 0.0)
    span = np.deg2rad((-50.0, 30.0))
    origin = _place(target, center, size, nearest, min(farthest, 0.85 * config.max_range), span, rng, shrink)
    azimuth, elevation = look(origin, target)
    slack = np.deg2rad(config.field_of_view_deg) / 2
    azimuth += rng.uniform(-0.5, 0.5) * slack
    elevation += rng.uniform(-0.35, 0.35) * slack
    pose = pose_of(origin, azimuth, elevation)
    mesh = caster.meshes[0]
    middle = pose[:3, :3].T @ (mesh.center - origin)
    top, bottom, left, right = window_of(config, middle, mesh.radius)
    if (bottom - top) * (right - left) > _MANY_PIXELS:  # a model takes far fewer points than a close view has
        config = _camera(2)
        top, bottom, left, right = window_of(config, middle, mesh.radius)
    if bottom - top < 2 or right - left < 2:
        return np.empty((0, 3), np.float32), np.empty(0, np.int64)
    directions = config.window(top, bottom, left, right)
    hits = _cast(caster, directions, pose, 2 * config.max_range)
    albedo = reflectivity[np.maximum(hits.triangle, 0)]
    kept, measured, _ = config.measure(
        hits.distance, hits.cosine, albedo, rng, directions=directions, shape=(bottom - top, right - left)
    )
    met = hits.mesh[kept] >= 0
    kept, measured = kept[met], measured[met]
    return _points(directions[kept], measured, pose), hits.triangle[kept]


def window_of(config: RgbdConfig, middle: np.ndarray, radius: float) -> tuple[int, int, int, int]:
    """Rows and columns (top, bottom, left, right) that hold a sphere's image; the whole image when it is close."""
    if middle[0] <= 1.05 * radius:
        return 0, config.height, 0, config.width
    span = config.focal * radius * np.linalg.norm(middle) / (middle[0] * (middle[0] - radius)) + 2
    column = (config.width - 1) / 2 - config.focal * middle[1] / middle[0]
    row = (config.height - 1) / 2 - config.focal * middle[2] / middle[0]
    top, bottom = (int(np.clip(edge, 0, config.height)) for edge in (row - span, row + span + 1))
    left, right = (int(np.clip(edge, 0, config.width)) for edge in (column - span, column + span + 1))
    return top, bottom, left, right


def _points(directions, measured, pose) -> np.ndarray:
    return ((directions * measured[:, None]) @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32)
