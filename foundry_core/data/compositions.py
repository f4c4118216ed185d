# SPDX-License-Identifier: Apache-2.0
"""Endless label-free shapes: primitives joined, repeated, cut, bent and tapered, for pre-training without a download.

The idea that such shapes pre-train as well as CAD collections is from "Learning 3D Representations from Procedural 3D
Programs" (2024). A shape is a boolean expression over convex or toroidal primitives, evaluated on surface samples: a
union drops the samples inside another part, a hole drops those inside the cutter and keeps the cutter's own samples
inside the solid. No mesh is made, so one shape costs about a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from foundry_core.data.inside import KINDS, Solids, inside_any


@dataclass(frozen=True)
class Primitive:
    """A canonical solid within [-1, 1]^3 under an affine map: x_world = x_local @ linear.T + offset."""

    kind: str
    sides: int  # of a prism
    ratio: float  # top radius of a cone, tube radius of a torus
    linear: np.ndarray  # [3,3]
    offset: np.ndarray  # [3]

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Surface points [count,3], about uniform in area, in the world frame."""
        # oversample, then resample by the stretch of the surface element under the linear map
        local, normal = _SAMPLERS[self.kind](count * 2, rng, self)
        stretch = np.linalg.norm(normal @ self.inverse, axis=1)
        upto = np.cumsum(stretch / stretch.sum())
        keep = np.searchsorted(upto / upto[-1], rng.random(count), side="right")  # as rng.choice, without its checks
        return local[keep] @ self.linear.T + self.offset

    @cached_property
    def inverse(self) -> np.ndarray:
        """Of the linear map, [3,3]."""
        return np.linalg.inv(self.linear)

    def contains(self, points: np.ndarray, margin: float = 1e-3) -> np.ndarray:
        """Whether points [n,3] lie strictly inside."""
        return inside_any(points, solids([self]), margin)

    @property
    def area(self) -> float:
        """Rough surface area, for sharing samples between parts."""
        a, b, c = np.linalg.norm(self.linear, axis=0)
        return float(a * b + b * c + c * a)


def _box(count, rng, _):
    points = rng.uniform(-1, 1, (count, 3))
    axis = rng.integers(0, 3, count)
    sign = rng.choice([-1.0, 1.0], count)
    normal = np.zeros((count, 3))
    rows = np.arange(count)
    points[rows, axis] = sign
    normal[rows, axis] = sign
    return points, normal


def _ellipsoid(count, rng, _):
    points = rng.normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points, points


def _frustum(count, rng, top: float, radius: Callable[[np.ndarray], np.ndarray] | None = None):
    angle = rng.uniform(0, 2 * np.pi, count)
    scale = np.ones(count) if radius is None else radius(angle)
    cos, sin = np.cos(angle), np.sin(angle)
    ring = np.stack([cos, sin], axis=1) * scale[:, None]
    side_area, bottom, cap = 2 * np.pi * (1 + top), np.pi, np.pi * top * top
    face = rng.choice(3, count, p=np.array([side_area, bottom, cap]) / (side_area + bottom + cap))
    z = np.where(face == 0, rng.uniform(-1, 1, count), np.where(face == 1, -1.0, 1.0))
    at_height = 1 + (top - 1) * (z + 1) / 2
    inward = np.where(face == 0, 1.0, np.sqrt(rng.uniform(0, 1, count)))
    points = np.concatenate([ring * (at_height * inward)[:, None], z[:, None]], axis=1)
    side_normal = np.stack([cos, sin, np.full(count, (1 - top) / 2)], axis=1)
    flat_normal = np.stack([np.zeros(count), np.zeros(count), np.sign(z)], axis=1)
    normal = np.where((face == 0)[:, None], side_normal, flat_normal)
    return points, normal


def _torus(count, rng, primitive):
    tube = primitive.ratio
    around, along = rng.uniform(0, 2 * np.pi, (2, count))
    out, up, cos, sin = np.cos(around), np.sin(around), np.cos(along), np.sin(along)
    ring = (1 - tube) + tube * out
    points = np.stack([ring * cos, ring * sin, tube * up], axis=1)
    normal = np.stack([out * cos, out * sin, up], axis=1)
    # rejection-free correction: weight the normal by the ring radius, the torus' own surface element
    return points, normal * ring[:, None]


def _polygon_radius(angle: np.ndarray, sides: int) -> np.ndarray:
    sector = 2 * np.pi / sides
    return np.cos(sector / 2) / np.cos(np.mod(angle, sector) - sector / 2)


_SAMPLERS: dict[str, Callable] = {
    "box": _box,
    "ellipsoid": _ellipsoid,
    "cylinder": lambda count, rng, p: _frustum(count, rng, 1.0),
    "cone": lambda count, rng, p: _frustum(count, rng, p.ratio),
    "torus": _torus,
    "prism": lambda count, rng, p: _frustum(count, rng, p.ratio, lambda angle: _polygon_radius(angle, p.sides)),
}


def solids(parts: Sequence[Primitive]) -> Solids:
    """The parts in the form in which points are tested against them."""
    return Solids(
        np.array([KINDS.index(part.kind) for part in parts]),
        np.array([part.sides for part in parts]),
        np.array([part.ratio for part in parts], np.float64),
        np.stack([part.inverse for part in parts]),
        np.stack([part.offset for part in parts]).astype(np.float64),
    )


def _rotation(rng: np.random.Generator, aligned: float = 0.7) -> np.ndarray:
    """Mostly axis-aligned, as built things are, else uniform in SO(3); [3,3]."""
    if rng.random() < aligned:
        matrix = np.eye(3)[rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)[:, None]
        return matrix * np.sign(np.linalg.det(matrix))
    matrix, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(triangle))
    return matrix * np.sign(np.linalg.det(matrix))


def _primitive(rng: np.random.Generator, size: float) -> Primitive:
    kind = KINDS[rng.choice(len(KINDS), p=[0.3, 0.15, 0.22, 0.11, 0.09, 0.13])]
    extent = size * np.exp(rng.uniform(np.log(0.15), 0.0, 3))  # thin plates and rods are as likely as blocks
    if rng.random() < 0.5:
        extent[1] = extent[0]  # round cross-sections
    return Primitive(
        kind,
        sides=int(rng.integers(3, 9)),
        ratio=float(rng.uniform(0.12, 0.45) if kind == "torus" else rng.uniform(0.0, 1.0)),
        linear=_rotation(rng) * extent,
        offset=np.zeros(3),
    )


def _moved(part: Primitive, rotation: np.ndarray, shift: np.ndarray) -> Primitive:
    return Primitive(part.kind, part.sides, part.ratio, rotation @ part.linear, part.offset @ rotation.T + shift)


def _repeat(part: Primitive, rng: np.random.Generator) -> list[Primitive]:
    """Mirror pairs, rows, rings and four corners: the regularities of legs, wheels, pins and slats."""
    style = rng.choice(["mirror", "row", "ring", "corners"])
    identity = np.eye(3)
    if style == "mirror":
        axis = int(rng.integers(0, 2))
        offset = part.offset.copy()
        offset[axis] = -offset[axis]
        flip = identity.copy()
        flip[axis, axis] = -1
        return [part, Primitive(part.kind, part.sides, part.ratio, flip @ part.linear, offset)]
    if style == "row":
        count = int(rng.integers(3, 9))
        step = identity[rng.integers(0, 3)] * rng.uniform(0.6, 2.0) / count
        return [_moved(part, identity, step * (i - (count - 1) / 2)) for i in range(count)]
    if style == "ring":
        count = int(rng.integers(3, 9))
        angles = 2 * np.pi * np.arange(count) / count
        turns = [np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1.0]]) for a in angles]
        return [_moved(part, turn, np.zeros(3)) for turn in turns]
    x, y = rng.uniform(0.3, 0.9, 2)
    shift = part.offset * [0, 0, 1]
    centred = Primitive(part.kind, part.sides, part.ratio, part.linear, shift)
    return [_moved(centred, identity, np.array([sx * x, sy * y, 0.0])) for sx in (-1, 1) for sy in (-1, 1)]


def _parts(rng: np.random.Generator) -> list[Primitive]:
    parts: list[Primitive] = []
    for number in range(1 + min(int(rng.geometric(0.35)), 6)):
        part = _primitive(rng, 1.0 if number == 0 else rng.uniform(0.25, 0.9))
        if parts:
            # attach to the surface of what is there, so that shapes hang together
            anchor = parts[int(rng.integers(len(parts)))]
            shift = anchor.sample(8, rng)[0] * rng.uniform(0.6, 1.0)
            part = _moved(part, np.eye(3), shift)
            if rng.random() < 0.45:
                parts.extend(_repeat(part, rng))
                continue
        parts.append(part)
    return parts[:14]


def _deform(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    axis = int(rng.integers(0, 3))
    points = np.roll(points, axis, axis=1)
    low, high = points[:, 2].min(), points[:, 2].max()
    t = (points[:, 2] - low) / max(high - low, 1e-9)  # 0 to 1 along the deformation axis
    kind = rng.choice(["taper", "twist", "bend"])
    if kind == "taper":
        points[:, :2] *= (1 + rng.uniform(-0.7, 0.7) * (t - 0.5) * 2)[:, None]
    elif kind == "twist":
        angle = rng.uniform(-1.5, 1.5) * (t - 0.5) * 2
        cos, sin = np.cos(angle), np.sin(angle)
        x, y = points[:, 0].copy(), points[:, 1].copy()
        points[:, 0], points[:, 1] = cos * x - sin * y, sin * x + cos * y
    else:
        curvature = rng.uniform(0.4, 1.4) / max(high - low, 1e-9)
        angle = curvature * (points[:, 2] - (low + high) / 2)
        radius = 1 / curvature + points[:, 0]
        points[:, 0], points[:, 2] = radius * np.cos(angle) - 1 / curvature, radius * np.sin(angle)
    return np.roll(points, -axis, axis=1)


def compose(count: int, rng: np.random.Generator) -> np.ndarray:
    """Surface points float32 [count,3] of one random composition, in arbitrary units around the origin."""
    parts = _parts(rng)
    weights = np.array([part.area for part in parts])
    shares = np.maximum((2 * count * weights / weights.sum()).astype(int), 24)
    samples, union = [], solids(parts)
    for i, part in enumerate(parts):
        points = part.sample(int(shares[i]), rng)
        samples.append(points[~inside_any(points, union, without=i)])
    points = np.concatenate(samples)
    for _ in range(int(rng.choice(3, p=[0.55, 0.3, 0.15]))):
        cutter = _primitive(rng, rng.uniform(0.3, 0.8))
        cutter = _moved(cutter, np.eye(3), points[rng.integers(len(points))] if len(points) else np.zeros(3))
        wall = cutter.sample(count, rng)
        kept = points[~cutter.contains(points)]
        if len(kept) >= count // 4:
            points = np.concatenate([kept, wall[inside_any(wall, union)]])
    if len(points) < count // 4:  # almost everything was swallowed by a larger part: keep the largest alone
        points = parts[int(weights.argmax())].sample(2 * count, rng)
    for _ in range(int(rng.choice(3, p=[0.5, 0.4, 0.1]))):
        points = _deform(points, rng)
    chosen = rng.choice(len(points), count, replace=len(points) < count)
    return points[chosen].astype(np.float32)
