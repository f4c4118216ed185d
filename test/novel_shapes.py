# SPDX-License-Identifier: Apache-2.0
"""Things that no shipped head knows: members differ in size and proportions, as those of the known categories do.

python test/novel_shapes.py novel.npz    # single views of each as a shape set, 20 to learn from and 30 to be asked
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from foundry_core.data.mesh import LabeledMesh, merge
from foundry_core.data.mounted import thinned
from foundry_core.data.procedural.primitives import box, extrude, moved, revolve, rods, rotated, torus
from foundry_core.data.shapes import ShapeSet, save_shapes
from foundry_core.data.views import foot_cut, sensor_view


def _mesh(*solids) -> LabeledMesh:
    return merge([LabeledMesh(np.asarray(v, np.float32), np.asarray(t), np.zeros(len(t), np.int16)) for v, t in solids])


def hydrant(rng: np.random.Generator) -> LabeledMesh:
    """A fire hydrant of 0.7 to 0.9 m with two side outlets."""
    tall, radius = rng.uniform(0.7, 0.9), rng.uniform(0.11, 0.14)
    foot = [(0, 0), (1.6 * radius, 0), (1.6 * radius, 0.05), (radius, 0.07), (radius, 0.72 * tall)]
    cap = [(1.3, 0.74), (1.3, 0.79), (0.9, 0.9), (0.3, 0.96), (0.0, 1.0)]
    body = revolve([*foot, *((wide * radius, z * tall) for wide, z in cap)], 20)
    reach, z = 2.1 * radius, 0.58 * tall
    return _mesh(body, rods((0, -reach, z), (0, reach, z), 0.5 * radius, segments=14),
                 rods((0, 0, 0.5 * tall), (1.7 * radius, 0, 0.5 * tall), 0.6 * radius, segments=14))  # fmt: skip


def trestle(rng: np.random.Generator) -> LabeledMesh:
    """A road barrier: two A-shaped stands with two boards between them."""
    wide, tall, spread = rng.uniform(1.6, 2.0), rng.uniform(0.9, 1.1), rng.uniform(0.28, 0.36)
    legs = [rods((side * spread, end * wide * 0.42, 0), (0, end * wide * 0.42, tall), 0.035, segments=6)
            for side in (-1, 1) for end in (-1, 1)]  # fmt: skip
    boards = [box((0.05, 0, z * tall), (0.03, wide, 0.2)) for z in (0.88, 0.5)]
    return _mesh(*legs, *boards)


def cable_drum(rng: np.random.Generator) -> LabeledMesh:
    """A wooden drum that lies ready to roll: two flanges and a core."""
    radius, wide = rng.uniform(0.5, 0.65), rng.uniform(0.55, 0.75)
    disc = revolve([(0, -0.03), (radius, -0.03), (radius, 0.03), (0, 0.03)], 28)
    core = revolve([(0, -wide / 2), (0.5 * radius, -wide / 2), (0.5 * radius, wide / 2), (0, wide / 2)], 20)
    ends = [moved(disc, z=side * wide / 2) for side in (-1, 1)]
    return _mesh(*(moved(rotated(solid, "x", np.pi / 2), z=radius) for solid in (core, *ends)))


def windmill(rng: np.random.Generator) -> LabeledMesh:
    """A garden windmill: a tapered lattice and a wheel."""
    tall, foot, wheel = rng.uniform(1.4, 1.7), rng.uniform(0.3, 0.38), rng.uniform(0.42, 0.52)
    corners = [(x, y) for x in (-1, 1) for y in (-1, 1)]
    legs = [rods((x * foot, y * foot, 0), (x * 0.05, y * 0.05, tall), 0.025, segments=6) for x, y in corners]
    blades = [rotated(box((0.1, 0, wheel * 0.6), (0.02, 0.14, 0.7 * wheel)), "x", k * np.pi / 4) for k in range(8)]
    return _mesh(*legs, *(moved(blade, z=tall) for blade in blades), torus((0.1, 0, tall), wheel, 0.02, "x"))


def arch(rng: np.random.Generator) -> LabeledMesh:
    """A bicycle stand's big sister: a thick arch on a plinth."""
    radius, thick = rng.uniform(0.55, 0.7), rng.uniform(0.07, 0.1)
    angle = np.linspace(0, np.pi, 15)
    half = np.column_stack([np.cos(angle), np.sin(angle)])
    bow = extrude(np.concatenate([radius * half, (radius - 2.2 * thick) * half[::-1]]), -thick, thick)
    bow = rotated(bow, "x", np.pi / 2)
    return _mesh(moved(bow, z=0.12), box((0, 0, 0.06), (2.3 * radius, 5 * thick, 0.12)))


def tripod(rng: np.random.Generator) -> LabeledMesh:
    """A surveyor's tripod with its instrument."""
    tall, spread = rng.uniform(1.25, 1.5), rng.uniform(0.45, 0.6)
    feet = [(spread * np.cos(a), spread * np.sin(a), 0) for a in np.pi * np.array([0.1, 0.77, 1.43])]
    legs = [rods(foot, (0.06 * np.sign(foot[0]), 0.06 * np.sign(foot[1]), tall), 0.03, segments=6) for foot in feet]
    return _mesh(*legs, box((0, 0, tall + 0.02), (0.2, 0.2, 0.05)), box((0, 0, tall + 0.18), (0.18, 0.24, 0.3)))


NOVEL = {maker.__name__: maker for maker in (hydrant, trestle, cable_drum, windmill, arch, tripod)}


def write_views(path: str, train: int = 20, test: int = 30) -> None:
    """Views by either sensor from random places, as `foundry shapes draw` has them of the known categories."""
    clouds = []
    for number, make in enumerate(NOVEL.values()):
        for member in range(train + test):
            rng = np.random.default_rng([904, number, member])
            mesh = make(rng)
            points, part = sensor_view(mesh, rng, ground_cut=foot_cut(mesh, rng))
            clouds.append(thinned(points, part, 1024, rng, False)[0].astype(np.float16))
    side = np.tile(np.arange(train + test) >= train, len(NOVEL)).astype(np.int8)
    save_shapes(path, ShapeSet(path, np.stack(clouds), np.repeat(np.arange(len(NOVEL)), train + test), tuple(NOVEL),
                               split=side))  # fmt: skip


if __name__ == "__main__":
    write_views(sys.argv[1])
