# SPDX-License-Identifier: Apache-2.0
"""Endless label-free bodies for pre-training: a trunk with limbs, smooth and often mirrored, as animals and plants are.

Compositions (:mod:`foundry_core.data.compositions`) look built; what grows has no flat faces and no edges. A body is
a union of tubes: curves with a width that changes along them, round or flattened. Its surface is sampled tube by tube,
and samples inside another tube are dropped. No mesh is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from foundry_core.data.inside import inside_chains

NODES = 32  # of a tube's curve
_MIRROR = np.array([1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Tube:
    """A curve with a width: at ``centers`` [NODES,3] an ellipse of half-axes ``radii`` [NODES] and ``flatness`` times
    that, the shorter along ``normals`` [NODES,3]; both ends are rounded."""

    centers: np.ndarray
    normals: np.ndarray
    radii: np.ndarray
    flatness: float

    @property
    def tangents(self) -> np.ndarray:
        """Unit vectors [NODES,3] along the curve."""
        return _tangents(self.centers)

    @property
    def areas(self) -> np.ndarray:
        """Of the pieces of its side between the nodes, [NODES-1]; rough for a flattened one."""
        lengths = np.linalg.norm(np.diff(self.centers, axis=0), axis=1)
        return 2 * np.pi * lengths * (self.radii[1:] + self.radii[:-1]) / 2

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Surface points [count,3], about uniform in area."""
        # the side in pieces, and the two caps: halves of a sphere
        areas = np.concatenate([self.areas, 2 * np.pi * self.radii[[0, -1]] ** 2])
        piece = rng.choice(len(areas), count, p=areas / areas.sum())
        side, start = piece < NODES - 1, piece == NODES - 1
        low = np.where(side, piece, np.where(start, 0, NODES - 2))
        along = np.where(side, rng.random(count), np.where(start, 0.0, 1.0))[:, None]

        def between(values: np.ndarray) -> np.ndarray:
            values = values.reshape(NODES, -1)
            return (1 - along) * values[low] + along * values[low + 1]

        tangent, normal = between(self.tangents), between(self.normals)
        angle = rng.uniform(0, 2 * np.pi, count)
        rise = np.where(side, 0.0, rng.uniform(0, 1, count))  # a half sphere is uniform in its height
        ring = np.sqrt(1 - rise**2)
        up = np.where(start, -rise, rise)
        out = (
            (self.flatness * ring * np.cos(angle))[:, None] * normal
            + (ring * np.sin(angle))[:, None] * np.cross(tangent, normal)
            + up[:, None] * tangent
        )
        return between(self.centers) + between(self.radii) * out

    def mirrored(self) -> Tube:
        """Its image behind the plane y = 0."""
        return replace(self, centers=self.centers * _MIRROR, normals=self.normals * _MIRROR)

    def end(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Place [3], direction [3] and radius of its end."""
        return self.centers[-1], self.tangents[-1], float(self.radii[-1])


def _tangents(centers: np.ndarray) -> np.ndarray:
    steps = np.gradient(centers, axis=0)
    return steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-9)


def _tube(
    start: np.ndarray, direction: np.ndarray, length: float, radius: float, rng: np.random.Generator, plane: bool
) -> Tube:
    """A bent tube from ``start`` on; with ``plane`` its curve keeps its y."""
    bends = rng.normal(size=(3, 3)) * rng.uniform(0.1, 0.6) * length
    controls = start + np.linspace(0, length, 4)[:, None] * direction
    controls[1:] += np.cumsum(bends, axis=0) * [[0.15], [0.4], [0.8]]
    if plane:
        controls[:, 1] = start[1]
    t = np.linspace(0, 1, NODES)[:, None]
    bernstein = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    centers = bernstein @ controls
    tangents = _tangents(centers)
    across = np.array([0.0, 1.0, 0.0]) if plane or rng.random() < 0.5 else rng.normal(size=3)
    normals = across - (tangents @ across)[:, None] * tangents
    size = np.linalg.norm(normals, axis=1, keepdims=True)
    if size.min() < 0.05 * np.linalg.norm(across):  # the curve runs along it somewhere
        return _tube(start, direction, length, radius, rng, plane)
    knots = radius * np.exp(rng.normal(0, 0.3, 5)) * np.linspace(1, rng.uniform(0.15, 1.0), 5)
    radii = np.interp(np.linspace(0, 4, NODES), np.arange(5), knots)
    radii = np.convolve(np.pad(radii, 3, mode="edge"), np.full(7, 1 / 7), mode="valid")  # no kink in the outline
    flatness = rng.uniform(0.15, 0.5) if rng.random() < 0.25 else rng.uniform(0.7, 1.0)
    return Tube(centers, normals / size, radii, flatness)


def _direction(rng: np.random.Generator, towards: np.ndarray, spread: float) -> np.ndarray:
    direction = towards + spread * rng.normal(size=3)
    return direction / max(np.linalg.norm(direction), 1e-9)


def _tubes(rng: np.random.Generator) -> list[Tube]:
    """Trunk, limbs along it and what grows at their ends."""
    mirrored = rng.random() < 0.7
    along = np.array([0.0, 0.0, 1.0]) if rng.random() < 0.4 else np.array([1.0, 0.0, 0.0])  # upright, or on all fours
    trunk = _tube(np.zeros(3), along, 1.0, rng.uniform(0.06, 0.3), rng, plane=mirrored)
    tubes = [trunk]
    for _ in range(1 + min(int(rng.geometric(0.3)), 5)):
        at = int(rng.integers(NODES)) if rng.random() < 0.6 else int(rng.choice([0, NODES - 1]))
        middle = mirrored and rng.random() < 0.35  # a neck, a tail, a fin
        direction = _direction(rng, np.zeros(3), 1.0)
        if middle:
            direction = _direction(rng, direction * [1, 0, 1], 0.0)
        radius = trunk.radii[at] * rng.uniform(0.2, 0.9)
        limb = _tube(trunk.centers[at], direction, np.exp(rng.uniform(np.log(0.2), 0.1)), radius, rng, plane=middle)
        grown = [limb]
        if rng.random() < 0.35:  # a head, a foot, fingers
            place, onward, radius = limb.end()
            fingers = 1 if middle or rng.random() < 0.5 else int(rng.integers(2, 6))
            width = radius * (rng.uniform(1.0, 2.5) if fingers == 1 else rng.uniform(0.3, 0.7))
            for _ in range(fingers):
                heading = _direction(rng, onward, 0.0 if middle else 0.4)
                grown.append(_tube(place, heading, rng.uniform(0.08, 0.35), width, rng, plane=middle))
        tubes += grown
        if mirrored and not middle:
            tubes += [tube.mirrored() for tube in grown]
    return tubes


def make_body(count: int, rng: np.random.Generator) -> np.ndarray:
    """Surface points float32 [count,3] of one random body, z up, in arbitrary units around the origin."""
    tubes = _tubes(rng)
    areas = np.array([tube.areas.sum() for tube in tubes])
    shares = np.maximum((1.6 * count * areas / areas.sum()).astype(int), 16)
    centers, normals = np.stack([tube.centers for tube in tubes]), np.stack([tube.normals for tube in tubes])
    radii, flatness = np.stack([tube.radii for tube in tubes]), np.array([tube.flatness for tube in tubes])
    samples = []
    for i, tube in enumerate(tubes):
        points = tube.sample(int(shares[i]), rng)
        samples.append(points[~inside_chains(points, centers, normals, radii, flatness, without=i)])
    points = np.concatenate(samples)
    chosen = rng.choice(len(points), count, replace=len(points) < count)
    return points[chosen].astype(np.float32)
