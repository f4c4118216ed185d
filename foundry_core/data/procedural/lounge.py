# SPDX-License-Identifier: Apache-2.0
"""Sofas and benches. The sitter looks along +x."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.primitives import (
    box,
    moved,
    rods,
    rotated,
    rounded_box,
    superellipsoid,
)


def sofa(rng: np.random.Generator) -> LabeledMesh:
    """Armchairs to four-seaters, with or without arms, cushions and a chaise."""
    shape = Assembly()
    seats = int(rng.integers(1, 5))
    each, depth = rng.uniform(0.55, 0.72), rng.uniform(0.75, 1.0)
    width = seats * each
    legs = rng.uniform(0.05, 0.16) if chance(rng, 0.65) else 0.0
    seat_top, back_top = rng.uniform(0.38, 0.48), rng.uniform(0.70, 0.98)
    arm = rng.uniform(0.10, 0.26) if chance(rng, 0.85) else 0.0
    back = rng.uniform(0.14, 0.28)
    front, rear = depth / 2, -depth / 2
    cushion = rng.uniform(0.10, 0.18)
    round_edge = rng.uniform(0.01, 0.05)
    shape.add(
        "seat", box((0.02, 0, (legs + seat_top - cushion) / 2), (depth - 0.04, width - 0.02, seat_top - cushion - legs))
    )
    parted = chance(rng, 0.75)
    count = seats if parted else 1
    spots = (np.arange(count) + 0.5) / count * width - width / 2
    sag, tilt = rng.uniform(0.2, 0.45), rng.uniform(0.05, 0.25)
    inner = depth - back * 0.8
    tall = back_top - seat_top
    tufted = chance(rng, 0.5)
    shape.add(
        "back",
        rounded_box(
            (rear + back * 0.35, 0, (legs + back_top) / 2), (back * 0.7, width, back_top - legs), round_edge, round_edge
        ),
    )
    for y in spots:
        size = (inner, width / count - 0.012, cushion * 1.15)
        shape.add("seat", superellipsoid((front - inner / 2, y, seat_top - cushion / 2), size, sag, 0.2))
        if tufted:
            solid = superellipsoid(
                (0, 0, tall / 2), (back * 0.9, width / count - 0.02, tall * rng.uniform(0.95, 1.1)), 0.35, sag
            )
            shape.add("back", moved(rotated(solid, "y", -tilt), rear + back * 0.95, y, seat_top - 0.02))
    if arm:
        style = pick(rng, "box", "rounded", "rolled", "low")
        arm_top = rng.uniform(0.52, 0.68) if style != "low" else seat_top + 0.06
        for side in (-1, 1):
            y = side * (width / 2 + arm / 2)
            if style == "rolled":
                shape.add(
                    "armrest", box((0, y, (legs + arm_top - arm / 2) / 2), (depth, arm * 0.8, arm_top - arm / 2 - legs))
                )
                shape.add(
                    "armrest",
                    rods((rear, y, arm_top - arm / 2), (front, y, arm_top - arm / 2), arm / 2 * 1.1, segments=14),
                )
            else:
                radius = round_edge if style == "box" else arm * 0.45
                shape.add(
                    "armrest",
                    rounded_box((0, y, (legs + arm_top) / 2), (depth, arm, arm_top - legs), radius, radius * 0.8),
                )
    if seats >= 2 and chance(rng, 0.25):  # chaise
        side, out = pick(rng, -1, 1), rng.uniform(0.45, 0.75)
        y = side * (width / 2 - each / 2)
        shape.add(
            "seat", box((front + out / 2, y, (legs + seat_top - cushion) / 2), (out, each, seat_top - cushion - legs))
        )
        shape.add(
            "seat", superellipsoid((front + out / 2, y, seat_top - cushion / 2), (out, each, cushion * 1.15), sag, 0.2)
        )
        if legs:
            shape.add(
                "leg",
                rods(
                    [(front + out - 0.08, y - each / 3, 0), (front + out - 0.08, y + each / 3, 0)],
                    [(front + out - 0.08, y - each / 3, legs), (front + out - 0.08, y + each / 3, legs)],
                    0.02,
                ),
            )
    if legs:
        y = width / 2 + arm - 0.08
        feet = np.array([(sx * (depth / 2 - 0.08), sy * y, 0.0) for sx in (-1, 1) for sy in (-1, 1)])
        shape.add("leg", rods(feet, feet + (0, 0, legs + 0.01), rng.uniform(0.015, 0.03), 0.03, pick(rng, 4, 8)))
    return shape.mesh()


def bench(rng: np.random.Generator) -> LabeledMesh:
    """Park benches of slats or planks, on frames, blocks or cast feet, with or without a back."""
    shape = Assembly()
    length, depth, height = rng.uniform(1.1, 2.2), rng.uniform(0.34, 0.55), rng.uniform(0.40, 0.48)
    thick = rng.uniform(0.025, 0.06)
    slats = int(rng.integers(1, 7))
    x = (np.arange(slats) + 0.5) / slats * depth - depth / 2
    plank = depth / slats * (rng.uniform(0.7, 0.92) if slats > 1 else 1.0)
    for at in x:
        shape.add("seat", box((at, 0, height - thick / 2), (plank, length, thick)))
    frames = 2 if length < 1.6 or chance(rng, 0.6) else 3
    spots = np.linspace(-1, 1, frames) * (length / 2 - rng.uniform(0.06, 0.3))
    style = pick(rng, "posts", "posts", "block", "loop", "cross")
    bar, under = rng.uniform(0.02, 0.035), height - thick
    for y in spots:
        if style == "block":
            shape.add("leg", box((0, y, under / 2), (depth * 0.85, rng.uniform(0.08, 0.25), under)))
        elif style == "loop":
            path = np.array([(depth * 0.42, under), (depth * 0.42, bar), (-depth * 0.42, bar), (-depth * 0.42, under)])
            path = np.column_stack([path[:, 0], np.full(4, y), path[:, 1]])
            shape.add("leg", rods(path[:-1], path[1:], bar))
        elif style == "cross":
            shape.add(
                "leg",
                rods(
                    [(-depth * 0.45, y, 0), (depth * 0.45, y, 0)],
                    [(depth * 0.35, y, under), (-depth * 0.35, y, under)],
                    bar,
                ),
            )
        else:
            feet = np.array([(-depth * 0.4, y, 0), (depth * 0.4, y, 0)])
            shape.add("leg", rods(feet, feet + (0, 0, under), bar, segments=pick(rng, 4, 8)))
            shape.add("leg", box((0, y, under - bar / 2), (depth * 0.9, bar * 1.6, bar)))
    if chance(rng, 0.65):
        tall, tilt = rng.uniform(0.32, 0.48), rng.uniform(0.05, 0.3)
        bars = int(rng.integers(1, 5))
        z = 0.12 + (np.arange(bars) + 0.5) / bars * (tall - 0.12)
        for at in z:
            solid = box((0, 0, at), (thick * 0.8, length, (tall - 0.12) / bars * 0.75))
            shape.add("back", moved(rotated(solid, "y", -tilt), -depth / 2, 0, height))
        for y in spots:
            solid = box((-thick * 0.8, 0, tall / 2 - thick / 2), (thick * 0.8, 0.05, tall + thick))
            shape.add("back", moved(rotated(solid, "y", -tilt), -depth / 2 + thick, y, height))
    if chance(rng, 0.45):
        rise = rng.uniform(0.18, 0.26)
        for y in (spots[0], spots[-1]) if chance(rng, 0.7) else (-length / 2 + 0.04, length / 2 - 0.04):
            path = [
                (depth * 0.42, height - thick),
                (depth * 0.42, height + rise),
                (-depth * 0.5, height + rise),
                (-depth * 0.5, height - thick),
            ]
            path = np.array([(px, y, pz) for px, pz in path])
            shape.add("armrest", rods(path[:-1], path[1:], bar * 0.9))
    return shape.mesh()


MAKERS = {"sofa": sofa, "bench": bench}
