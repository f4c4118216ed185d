# SPDX-License-Identifier: Apache-2.0
"""What surrounds the objects: road and pavements, house fronts, floor and walls. None of it carries an object id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_KERB, _KERB_AT = 0.12, 6.3
_FACES = np.array(
    [[0, 2, 3], [0, 3, 1], [4, 5, 7], [4, 7, 6], [0, 1, 5], [0, 5, 4], [2, 6, 7], [2, 7, 3], [0, 4, 6], [0, 6, 2],
     [1, 3, 7], [1, 7, 5]], np.int32,
)  # fmt: skip
_CORNERS = np.array([[x, y, z] for z in (-0.5, 0.5) for y in (-0.5, 0.5) for x in (-0.5, 0.5)], np.float32)


@dataclass(frozen=True)
class Background:
    """Triangles of the surroundings in the world frame.

    Attributes:
        vertices: float32 [V,3] metres; triangles: int32 [T,3]; reflectivity: float32 [T], 0..1.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    reflectivity: np.ndarray


class _Builder:
    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._count = 0

    def add(self, vertices: np.ndarray, triangles: np.ndarray, reflectivity) -> None:
        values = np.broadcast_to(np.asarray(reflectivity, np.float32), len(triangles))
        self._parts.append((np.asarray(vertices, np.float32), np.asarray(triangles) + self._count, values))
        self._count += len(vertices)

    def box(self, center, size, reflectivity: float) -> None:
        self.add(_CORNERS * np.asarray(size, np.float32) + np.asarray(center, np.float32), _FACES, reflectivity)

    def surface(self, x: np.ndarray, y: np.ndarray, height: np.ndarray, reflectivity) -> None:
        """A height field over grid lines x [I] and y [J], height [I,J]."""
        vertices = np.stack([*np.meshgrid(x, y, indexing="ij"), height], axis=-1).reshape(-1, 3)
        index = np.arange(height.size).reshape(height.shape)
        a, b, c, d = index[:-1, :-1].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel(), index[:-1, 1:].ravel()
        triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
        self.add(vertices, triangles, reflectivity)

    def build(self) -> Background:
        vertices, triangles, reflectivity = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        return Background(vertices, triangles.astype(np.int32), reflectivity)


def street_ground(rng: np.random.Generator) -> Callable:
    """Height of a street at (x, y) in metres: a gentle grade, a crowned road, long waves, pavements behind a kerb."""
    grade = rng.uniform(-0.012, 0.012)
    wave = rng.uniform(0, 2 * np.pi, 2)
    length = rng.uniform(16.0, 30.0, 2)

    def height(x, y):
        road = np.abs(y) < _KERB_AT
        crown = np.where(road, -0.0012 * np.square(y), _KERB - 0.0012 * _KERB_AT**2 + 0.01 * (np.abs(y) - _KERB_AT))
        waves = 0.03 * np.sin(2 * np.pi * x / length[0] + wave[0]) + 0.012 * np.sin(2 * np.pi * y / length[1] + wave[1])
        return grade * x + crown + waves

    return height


def street_background(
    rng: np.random.Generator, ground: Callable, begin: float, end: float, facade: float, hedges: list
) -> Background:
    """Road, pavements, house fronts ``facade`` metres to both sides, and hedges [(centre, size)]."""
    builder = _Builder()
    x = np.arange(begin, end + 1.0, 1.0)
    inner = np.linspace(-_KERB_AT + 0.01, _KERB_AT - 0.01, 17)
    outer = np.linspace(_KERB_AT, facade + 10.0, 18)
    y = np.concatenate([-outer[::-1], inner, outer])
    rough = np.where(np.abs(y) < _KERB_AT, 0.003, 0.006)
    height = ground(*np.meshgrid(x, y, indexing="ij")) + rough * rng.standard_normal((len(x), len(y)))
    builder.surface(x, y, height, 0.25)
    for side in (-1.0, 1.0):
        at = begin
        while at < end:
            width, tall, depth = rng.uniform(8.0, 16.0), rng.uniform(6.0, 14.0), rng.uniform(0.0, 1.5)
            _house(builder, rng, ground, at, min(at + width, end), side, facade + depth, tall)
            at += width + (rng.uniform(2.5, 5.0) if rng.random() < 0.3 else 0.0)
    for (cx, cy, cz), (length, thick, tall) in hedges:
        # overlapping blocks of uneven size: leaves, seen from a distance
        for offset in np.arange(-length / 2 + 0.2, length / 2 - 0.1, 0.3):
            size = np.array([0.4, thick, tall]) * rng.uniform(0.8, 1.0, 3)
            builder.box((cx + offset, cy + 0.04 * rng.normal(), cz - (tall - size[2]) / 2), size, rng.uniform(0.3, 0.5))
    return builder.build()


def _house(builder, rng, ground, begin: float, end: float, side: float, front: float, tall: float) -> None:
    base = float(ground((begin + end) / 2, side * front)) - 0.4
    tone = float(rng.uniform(0.3, 0.6))
    middle, width = (begin + end) / 2, end - begin
    builder.box((middle, side * (front + 2.5), base + tall / 2), (width, 5.0, tall), tone)
    builder.box((middle, side * (front + 0.02), base + 0.75), (width, 0.16, 1.5), tone * 0.7)  # plinth
    bays = max(2, int(width / rng.uniform(2.2, 3.2)))
    for bay in range(bays):
        x = begin + (bay + 0.5) * width / bays
        for sill in np.arange(1.5, tall - 1.8, 2.9):
            # a frame that stands out and a dark pane just in front of the wall
            builder.box((x, side * front, base + sill + 0.9), (1.3, 0.14, 1.7), tone * 0.9)
            builder.box((x, side * (front - 0.08), base + sill + 0.9), (1.05, 0.03, 1.4), 0.12)
            if rng.random() < 0.12 and sill > 2:
                builder.box((x, side * (front - 0.4), base + sill), (1.8, 0.8, 0.12), tone)
                builder.box((x, side * (front - 0.78), base + sill + 0.5), (1.8, 0.05, 0.9), tone * 0.8)
        if rng.random() < 0.35:
            edge = begin + bay * width / bays + 0.15
            builder.box((edge, side * front, base + tall / 2), (0.3, 0.24, tall), tone * 0.9)


def room_background(rng: np.random.Generator, half: np.ndarray, tall: float) -> Background:
    """Floor, ceiling and four walls with skirting, a door and windows; the room spans -half..half [2]."""
    builder = _Builder()
    size = 2 * np.asarray(half)
    builder.box((0, 0, -0.1), (size[0] + 0.4, size[1] + 0.4, 0.2), 0.35)
    builder.box((0, 0, tall + 0.1), (size[0] + 0.4, size[1] + 0.4, 0.2), 0.7)
    for axis in (0, 1):
        for side in (-1.0, 1.0):
            center, extent = np.zeros(3), np.array([*size, tall])
            center[axis], center[2], extent[axis] = side * (half[axis] + 0.1), tall / 2, 0.2
            builder.box(center, extent, 0.55)
            center[axis], center[2], extent[axis], extent[2] = side * (half[axis] - 0.01), 0.05, 0.03, 0.1
            builder.box(center, extent, 0.3)
            place, opening = np.zeros(3), np.array([0.06, 0.06, 1.2])
            place[axis], place[1 - axis] = side * half[axis], rng.uniform(-0.5, 0.5) * half[1 - axis]
            opening[1 - axis] = rng.uniform(0.9, 2.0)
            is_door = rng.random() < 0.3
            place[2], opening[2] = (1.0, 2.0) if is_door else (1.5, 1.2)
            builder.box(place, opening, 0.6 if is_door else 0.1)
    return builder.build()
