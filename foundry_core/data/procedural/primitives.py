# SPDX-License-Identifier: Apache-2.0
"""Solids that shapes are assembled from: boxes, lofts, surfaces of revolution, rods, tubes, superellipsoids, leaves.

A solid is a pair (vertices float64 [V,3], triangles int64 [T,3]), wound counter-clockwise seen from outside.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Solid = tuple[np.ndarray, np.ndarray]


def rotation(axis: str, angle: float) -> np.ndarray:
    """Rotation matrix [3,3] by ``angle`` radians about 'x', 'y' or 'z'."""
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[j, i] = np.sin(angle)
    matrix[i, j] = -matrix[j, i]
    return matrix


def rotated(solid: Solid, axis: str, angle: float, origin=(0.0, 0.0, 0.0)) -> Solid:
    """The solid turned by ``angle`` radians about an axis through ``origin``."""
    origin = np.asarray(origin, np.float64)
    return (solid[0] - origin) @ rotation(axis, angle).T + origin, solid[1]


def moved(solid: Solid, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Solid:
    """The solid shifted."""
    return solid[0] + np.array([x, y, z]), solid[1]


_BOX_CORNERS = np.array(
    [(x, y, z) for z in (-0.5, 0.5) for x, y in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))]
)
_BOX_TRIANGLES = np.array(
    [(0, 2, 1), (0, 3, 2), (4, 5, 6), (4, 6, 7), (0, 1, 5), (0, 5, 4)]
    + [(1, 2, 6), (1, 6, 5), (2, 3, 7), (2, 7, 6), (3, 0, 4), (3, 4, 7)]
)


def box(center, size) -> Solid:
    """An axis-aligned box."""
    return _BOX_CORNERS * np.asarray(size, np.float64) + np.asarray(center, np.float64), _BOX_TRIANGLES


@lru_cache(maxsize=512)
def _loft_triangles(rows: int, n: int, start: bool, end: bool, closed: bool) -> np.ndarray:
    ring = np.arange(n)
    following = (ring + 1) % n
    blocks = []
    for row in range(rows if closed else rows - 1):
        a, b = row * n + ring, row * n + following
        c, d = (row + 1) % rows * n + following, (row + 1) % rows * n + ring
        blocks.append(np.stack([a, b, c, a, c, d], axis=1).reshape(-1, 3))  # quad by quad
    if start:
        blocks.append(np.stack([np.full(n, rows * n), following, ring], axis=1))
    if end:
        last = (rows - 1) * n
        blocks.append(np.stack([np.full(n, rows * n + int(start)), last + ring, last + following], axis=1))
    triangles = np.concatenate(blocks)
    triangles.setflags(write=False)
    return triangles


def loft(rings, caps=(True, True), apexes=(None, None), closed: bool = False) -> Solid:
    """Skin over rings [R,N,3], each counter-clockwise about the direction in which the rings advance.

    Each cap is a fan about the ring's centroid or about the given apex, so a capped ring must be star-shaped.
    """
    rings = np.asarray(rings, np.float64)
    rows, n = rings.shape[:2]
    vertices = [rings.reshape(-1, 3)]
    for cap, apex, row in zip(caps, apexes, (0, -1), strict=True):
        if cap:
            vertices.append((rings[row].mean(axis=0) if apex is None else np.asarray(apex, np.float64))[None])
    triangles = _loft_triangles(rows, n, bool(caps[0]), bool(caps[1]), closed)
    return np.concatenate(vertices), triangles


@lru_cache(maxsize=64)
def circle(n: int, phase: float = 0.0) -> np.ndarray:
    """Unit circle [n,2], counter-clockwise."""
    angle = phase + np.arange(n) * (2 * np.pi / n)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points.setflags(write=False)
    return points


def rounded_rectangle(size_x: float, size_y: float, radius: float = 0.0, corner: int = 3) -> np.ndarray:
    """Outline [N,2] of a rectangle about the origin, counter-clockwise; N = 4 when the radius is 0."""
    half = np.array([size_x, size_y]) / 2
    signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    if radius <= 0:
        return signs * half
    radius = min(radius, 0.98 * half.min())
    angle = (np.arange(4)[:, None] * 90 + np.linspace(0, 90, corner)) * (np.pi / 180)  # (4, corner)
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=2) * radius
    return (signs[:, None] * (half - radius) + arc).reshape(-1, 2)


def lift(outline, z: float, scale=1.0, shift=(0.0, 0.0)) -> np.ndarray:
    """A ring [N,3] at height z from an outline [N,2], scaled about the origin and then shifted."""
    flat = np.asarray(outline) * scale + np.asarray(shift)
    return np.column_stack([flat, np.full(len(flat), z)])


def extrude(outline, z0: float, z1: float, bevel: float = 0.0) -> Solid:
    """A plate with a star-shaped outline [N,2], counter-clockwise, from z0 to z1, its edges bevelled inwards."""
    if bevel <= 0:
        return loft([lift(outline, z0), lift(outline, z1)])
    bevel = min(bevel, 0.49 * (z1 - z0))
    scale = 1.0 - bevel / np.abs(outline).max(axis=0)
    return loft(
        [lift(outline, z0, scale), lift(outline, z0 + bevel), lift(outline, z1 - bevel), lift(outline, z1, scale)]
    )


def rounded_box(center, size, radius: float, bevel: float = 0.0) -> Solid:
    """A box with vertical edges of the given radius and bevelled top and bottom edges."""
    outline = rounded_rectangle(size[0], size[1], radius)
    return moved(extrude(outline, -size[2] / 2, size[2] / 2, bevel), *center)


def revolve(profile, segments: int = 16, closed: bool = False) -> Solid:
    """Surface of revolution about z of profile points (radius, z).

    A profile that runs upwards on the outside faces outwards; an end on the axis (radius 0) closes that end; ``closed``
    joins the last point to the first.
    """
    profile = np.asarray(profile, np.float64)
    start, end = profile[0, 0] <= 0, profile[-1, 0] <= 0
    body = profile[int(start) : len(profile) - int(end)]
    rings = np.empty((len(body), segments, 3))
    rings[:, :, :2] = body[:, 0, None, None] * circle(segments)
    rings[:, :, 2] = body[:, 1, None]
    apexes = ((0.0, 0.0, profile[0, 1]), (0.0, 0.0, profile[-1, 1]))
    return loft(rings, (start, end), apexes, closed)


def _frames(direction: np.ndarray) -> np.ndarray:
    """Right-handed frames [M,3,3] whose third rows are the unit directions [M,3]."""
    helper = np.where(np.abs(direction[:, 2:]) < 0.9, [0.0, 0.0, 1.0], [1.0, 0.0, 0.0])
    side = np.cross(helper, direction)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return np.stack([side, np.cross(direction, side), direction], axis=1)


def along(solid: Solid, start, end) -> Solid:
    """A solid built along +z from the origin, moved so that its axis runs from ``start`` towards ``end``."""
    start = np.asarray(start, np.float64)
    direction = np.asarray(end, np.float64) - start
    return solid[0] @ _frames((direction / np.linalg.norm(direction))[None])[0] + start, solid[1]


def rods(starts, ends, radius, end_radius=None, segments: int = 6) -> Solid:
    """Capped cylinders (or frusta) between starts [M,3] and ends [M,3], as one solid."""
    starts, ends = np.atleast_2d(np.asarray(starts, np.float64)), np.atleast_2d(np.asarray(ends, np.float64))
    count = len(starts)
    axis = ends - starts
    frames = _frames(axis / np.linalg.norm(axis, axis=1, keepdims=True))
    ring = circle(segments, np.pi / segments) @ frames[:, :2]  # (M, segments, 3)
    radius = np.broadcast_to(np.asarray(radius, np.float64), (count,))[:, None, None]
    end_radius = (
        radius if end_radius is None else np.broadcast_to(np.asarray(end_radius, np.float64), (count,))[:, None, None]
    )
    vertices = np.concatenate(
        [starts[:, None] + ring * radius, ends[:, None] + ring * end_radius, starts[:, None], ends[:, None]], axis=1
    )  # (M, 2 * segments + 2, 3)
    triangles = _loft_triangles(2, segments, True, True, False)
    triangles = triangles + (np.arange(count) * vertices.shape[1])[:, None, None]
    return vertices.reshape(-1, 3), triangles.reshape(-1, 3)


def capsule(start, end, radius: float, end_radius: float | None = None, segments: int = 10) -> Solid:
    """A limb: a frustum from ``start`` to ``end`` with rounded ends."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    length = float(np.linalg.norm(end - start))
    end_radius = radius if end_radius is None else end_radius
    profile = [(radius * np.cos(t), radius * np.sin(t)) for t in (-1.0, -0.5, 0.0)]
    profile += [(end_radius * np.cos(t), length + end_radius * np.sin(t)) for t in (0.0, 0.5, 1.0)]
    return along(revolve([(0, -radius), *profile, (0, length + end_radius)], segments), start, end)


def tube(path, radius, normal=(0.0, 1.0, 0.0), segments: int = 6, closed: bool = False) -> Solid:
    """A tube swept along a path [M,3] that lies in, or near, the plane with the given normal; radius is one or [M]."""
    path = np.asarray(path, np.float64)
    if closed:
        tangent = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0)
    else:
        tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(np.asarray(normal, np.float64), tangent)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(tangent, side)
    ring = circle(segments)
    offset = ring[None, :, :1] * side[:, None] + ring[None, :, 1:] * up[:, None]  # (M, segments, 3)
    rings = path[:, None] + offset * np.broadcast_to(np.asarray(radius, np.float64), (len(path),))[:, None, None]
    return loft(rings, (not closed, not closed), closed=closed)


def torus(center, radius: float, thickness: float, normal: str = "y", rings: int = 20, segments: int = 6) -> Solid:
    """A ring of the given radius and tube radius about an axis 'x', 'y' or 'z'."""
    flat = circle(rings) * radius
    i, j, axis = {"x": (1, 2, 0), "y": (2, 0, 1), "z": (0, 1, 2)}[normal]
    path = np.zeros((rings, 3))
    path[:, i], path[:, j] = flat[:, 0], flat[:, 1]
    return tube(path + np.asarray(center, np.float64), thickness, np.eye(3)[axis], segments, closed=True)


@lru_cache(maxsize=32)
def _sphere_angles(segments: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    latitude = np.linspace(-np.pi / 2, np.pi / 2, rows + 1)[1:-1]
    return latitude, np.arange(segments) * (2 * np.pi / segments)


def superellipsoid(
    center, size, vertical: float = 1.0, horizontal: float = 1.0, segments: int = 12, rows: int = 6
) -> Solid:
    """A superellipsoid (Barr, 1981): exponents of 1 give an ellipsoid, towards 0 a box; ``size`` is its extent [3]."""
    latitude, longitude = _sphere_angles(segments, rows)

    def power(value, exponent):
        return np.sign(value) * np.abs(value) ** exponent

    rings = np.empty((len(latitude), segments, 3))
    around = power(np.cos(latitude), vertical)[:, None]
    rings[:, :, 0] = around * power(np.cos(longitude), horizontal)
    rings[:, :, 1] = around * power(np.sin(longitude), horizontal)
    rings[:, :, 2] = power(np.sin(latitude), vertical)[:, None]
    half, center = np.asarray(size, np.float64) / 2, np.asarray(center, np.float64)
    apexes = (center - [0, 0, half[2]], center + [0, 0, half[2]])
    return loft(rings * half + center, (True, True), apexes)


def blob(rng: np.random.Generator, center, size, roughness: float = 0.15, segments: int = 12, rows: int = 7) -> Solid:
    """An ellipsoid with a lumpy surface."""
    vertices, triangles = superellipsoid((0, 0, 0), (2, 2, 2), 1, 1, segments, rows)
    waves = np.sin(vertices @ rng.normal(0, 2.6, (3, 5)) + rng.uniform(0, 6.3, 5))  # (V, 5)
    lumps = 1.0 + roughness * (waves @ rng.normal(0, 0.7, 5))
    return vertices * np.clip(lumps, 0.5, 1.5)[:, None] * (np.asarray(size) / 2) + np.asarray(center), triangles


_LEAF = np.array([(0, 0, 0), (0.45, -0.5, 0.10), (0.45, 0.5, 0.10), (1, 0, -0.12), (0.5, 0, 0)])  # a keel and two sides
_LEAF_TRIANGLES = np.array([(0, 1, 4), (0, 4, 2), (1, 3, 4), (4, 3, 2)])


def leaves(starts, directions, length, width) -> Solid:
    """Two-sided leaf blades from starts [M,3] along directions [M,3], as one open shell."""
    starts = np.asarray(starts, np.float64)
    directions = np.asarray(directions, np.float64)
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    frames = _frames(directions)[:, [2, 0, 1]]  # rows: along, across, up
    scale = np.stack([np.broadcast_to(size, len(starts)) for size in (length, width, width)], axis=1)  # (M, 3)
    vertices = (_LEAF * scale[:, None]) @ frames + starts[:, None]  # (M, 5, 3)
    triangles = _LEAF_TRIANGLES + (np.arange(len(starts)) * len(_LEAF))[:, None, None]
    return vertices.reshape(-1, 3), triangles.reshape(-1, 3)
