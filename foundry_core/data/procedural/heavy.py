# SPDX-License-Identifier: Apache-2.0
"""Trucks and buses, driving along +x."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.primitives import (
    box,
    lift,
    loft,
    rounded_box,
    rounded_rectangle,
    superellipsoid,
)
from foundry_core.data.procedural.vehicles import wheels


def _glazed(shape: Assembly, main: str, roof: str, outlines, levels, shifts, glass, blind=()) -> None:
    """A cab or coach lofted upwards: row ``glass`` (or rows) is window except on the ``blind`` edges."""
    rings = [lift(outline, z, 1.0, (shift, 0)) for outline, z, shift in zip(outlines, levels, shifts, strict=True)]
    rows = ["window" if row in glass else main for row in range(len(rings) - 1)]

    def edge_part(row: int, edge: int) -> str | None:
        return main if row in glass and edge in blind else None

    shape.add_loft(rings, rows, (main, roof), edge_part)


def truck(rng: np.random.Generator) -> LabeledMesh:
    """Rigid and articulated trucks with box, flat, tank, tipper or container bodies, and pick-ups."""
    shape = Assembly()
    style = pick(rng, "box", "box", "flat", "tank", "tipper", "semi", "pickup")
    small = style == "pickup"
    half = rng.uniform(0.9, 1.02) if small else rng.uniform(1.05, 1.28)
    cab_length = rng.uniform(1.5, 2.3)
    cab_high = rng.uniform(1.7, 1.95) if small else rng.uniform(2.3, 3.4)
    cargo = {"semi": rng.uniform(7.5, 12.5), "pickup": rng.uniform(1.4, 2.0)}.get(style, rng.uniform(3.2, 6.5))
    radius = rng.uniform(0.34, 0.42) if small else rng.uniform(0.42, 0.54)
    bonnet = rng.uniform(0.9, 1.3) if small else rng.uniform(0.8, 1.5) if chance(rng, 0.25) else 0.0
    floor = radius * 2 + rng.uniform(0.0, 0.15) if not small else radius * 1.7
    low = radius * rng.uniform(0.75, 1.0)
    gap = 0.06 if small else rng.uniform(0.1, 0.4)
    cab_rear = cargo + gap
    rake = rng.uniform(0.25, 0.6) if bonnet else rng.uniform(0.02, 0.3)
    outline = rounded_rectangle(
        cab_length, 2 * half * 0.97, 0.12, 2
    )  # 8 points; edge 3 faces the rear, edge 7 the front
    belt, eave = low + (cab_high - low) * rng.uniform(0.42, 0.52), low + (cab_high - low) * rng.uniform(0.78, 0.86)
    if small:
        belt, eave = cab_high * 0.6, cab_high * 0.94
    narrow = np.array([1 - rake / cab_length, rng.uniform(0.88, 0.98)])
    middle = cab_rear + cab_length / 2
    outlines = [outline, outline, outline * narrow, outline * narrow * (0.98, 0.97)]
    back = middle - rake / 2
    _glazed(
        shape,
        "cabin",
        "cabin",
        outlines,
        [low, belt, eave, cab_high],
        [middle, middle, back, back],
        {1},
        (3,) if not small else (),
    )
    front = cab_rear + cab_length
    if bonnet:
        tall = belt * rng.uniform(0.88, 1.0) - low
        nose = rounded_box(
            (front + bonnet / 2 - 0.06, 0, low + tall / 2),
            (bonnet + 0.12, half * (1.94 if small else rng.uniform(1.4, 1.8)), tall),
            0.15,
            0.08,
        )
        shape.add("cabin", nose)
        front += bonnet
    elif chance(rng, 0.4) and not small:  # a wind deflector
        rings = [
            [
                (cab_rear + 0.1, -half * 0.8, cab_high - 0.01),
                (cab_rear + cab_length * 0.7, -half * 0.8, cab_high - 0.01),
                (cab_rear + cab_length * 0.7, half * 0.8, cab_high - 0.01),
                (cab_rear + 0.1, half * 0.8, cab_high - 0.01),
            ]
        ]
        rise = rng.uniform(0.3, 0.7)
        rings.append(
            [
                (cab_rear + 0.1, -half * 0.75, cab_high + rise),
                (cab_rear + 0.35, -half * 0.75, cab_high + rise),
                (cab_rear + 0.35, half * 0.75, cab_high + rise),
                (cab_rear + 0.1, half * 0.75, cab_high + rise),
            ]
        )
        shape.add("cabin", loft(rings))
    shape.add(
        "frame",
        *[box((cab_rear / 2 + 0.3, side * 0.4, floor - 0.16), (cab_rear + 0.6, 0.12, 0.22)) for side in (-1, 1)],
    )
    shape.add("frame", box((front - 0.05, 0, low), (0.16, half * 1.95, 0.28)))
    if not small and chance(rng, 0.6):
        for side in (-1, 1):
            shape.add(
                "frame", box((cab_rear * 0.62, side * (half - 0.25), floor - 0.32), (min(1.2, cargo * 0.25), 0.4, 0.4))
            )
    top = rng.uniform(2.9, 3.9)
    if style in ("box", "semi"):
        shape.add(
            "cargo",
            rounded_box(
                (cargo / 2, 0, (floor + top) / 2), (cargo, 2 * half, top - floor), rng.uniform(0.0, 0.06), 0.02
            ),
        )
        if chance(rng, 0.3):
            x = np.linspace(0.3, cargo - 0.3, int(cargo))
            shape.add("cargo", *[box((at, 0, (floor + top) / 2), (0.06, 2 * half + 0.05, top - floor)) for at in x])
    elif style == "tank":
        tall = (top - floor) * 0.8
        shape.add("cargo", _tank(cargo, half, floor, tall))
        shape.add("cargo", *[box((at * cargo, 0, floor + tall + 0.03), (0.5, 0.5, 0.14)) for at in (0.3, 0.7)])
    elif style in ("flat", "tipper", "pickup"):
        wall = {"flat": rng.uniform(0.15, 0.5), "tipper": rng.uniform(0.7, 1.3), "pickup": cab_high * 0.6 - floor}[
            style
        ]
        wide = 0.95 if small else 1.0
        shape.add("cargo", box((cargo / 2, 0, floor + 0.05), (cargo, 2 * half * wide, 0.1)))
        shape.add(
            "cargo",
            *[box((cargo / 2, s * (half * wide - 0.03), floor + wall / 2), (cargo, 0.06, wall)) for s in (-1, 1)],
        )
        shape.add("cargo", box((0.03, 0, floor + wall / 2), (0.06, 2 * half * wide, wall)))
        shape.add(
            "cargo",
            box(
                (cargo - 0.03, 0, floor + max(wall, 0.9 if not small else 0) / 2),
                (0.06, 2 * half * wide, max(wall, 0.9 if not small else 0)),
            ),
        )
        if small:
            shape.add("cargo", *[box((cargo / 2, s * (half * 0.95), floor - 0.1), (cargo, 0.08, 0.4)) for s in (-1, 1)])
        elif chance(rng, 0.45):  # a load
            size = (cargo * rng.uniform(0.4, 0.85), half * rng.uniform(1.2, 1.7), rng.uniform(0.4, 1.3))
            shape.add(
                "cargo",
                superellipsoid(
                    (cargo / 2, 0, floor + 0.1 + size[2] / 2), size, rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.5)
                ),
            )
    axles = [front - bonnet * 0.5 - cab_length * 0.35]
    rear = [cargo * 0.35] if small else [cargo * rng.uniform(0.15, 0.3)]
    if style == "semi":
        rear = [cargo * 0.08 + 0.4 + i * 1.25 * (2.1 * radius / 1.1) for i in range(int(rng.integers(2, 4)))] + [
            cab_rear - 0.5
        ]
    elif not small and cargo > 4.5 and chance(rng, 0.5):
        rear.append(rear[0] + 2.3 * radius)
    wheels(shape, axles + rear, half, radius, 0.26, 0 if small else len(rear))
    return shape.mesh()


def _tank(cargo: float, half: float, floor: float, tall: float):
    """An elliptic tank along x with domed ends."""
    angle = np.arange(18) * (2 * np.pi / 18)
    rings = []
    for x, scale in ((0.0, 0.6), (0.12, 0.9), (0.3, 1.0), (cargo - 0.3, 1.0), (cargo - 0.12, 0.9), (cargo, 0.6)):
        y, z = half * 0.96 * np.cos(angle) * scale, tall / 2 * np.sin(angle) * scale + floor + tall / 2
        rings.append(np.column_stack([np.full(18, x), y, z]))
    return loft(rings)


def bus(rng: np.random.Generator) -> LabeledMesh:
    """City buses, coaches, minibuses, double-deckers and school buses."""
    shape = Assembly()
    style = pick(rng, "city", "city", "coach", "mini", "double", "school")
    length = {"mini": rng.uniform(5.5, 7.5), "double": rng.uniform(9.5, 11.5), "school": rng.uniform(7, 10.5)}.get(
        style, rng.uniform(9.0, 13.0)
    )
    half = rng.uniform(1.0, 1.12) if style == "mini" else rng.uniform(1.2, 1.28)
    low = rng.uniform(0.25, 0.4)
    high = {"mini": rng.uniform(2.5, 2.9), "double": rng.uniform(4.1, 4.4), "coach": rng.uniform(3.3, 3.8)}.get(
        style, rng.uniform(2.85, 3.2)
    )
    corner = rng.uniform(0.08, 0.35)
    outline = rounded_rectangle(length, 2 * half, corner, 3)
    storeys = 2 if style == "double" else 1
    band = (high - low) / storeys
    levels, glass = [low, low + 0.08], set()
    for storey in range(storeys):
        base = low + storey * band
        glass.add(len(levels))
        levels += [
            base + band * rng.uniform(0.36, 0.46) * (1.0 if storeys == 1 else 0.9),
            base + band * rng.uniform(0.78, 0.88),
        ]
    levels += [high - 0.08, high]
    rake = rng.uniform(0.0, 0.35)
    lean = np.clip((np.array(levels) - levels[2]) / (high - levels[2]), 0, 1)
    outlines = [
        outline * (0.99, 0.97),
        *[outline * (1 - rake * t / length, 1 - rng.uniform(0.0, 0.03) * t) for t in lean[1:-1]],
        outline * (1 - rake / length - 0.02, 0.88),
    ]
    shifts = -rake * lean / 2
    _glazed(shape, "body", "roof", outlines, levels, shifts, glass)
    posts = np.arange(-length / 2 + 1.0, length / 2 - 1.0, rng.uniform(1.0, 1.7))
    if chance(rng, 0.6):
        for row in sorted(glass):
            z0, z1 = levels[row], levels[row + 1]
            shape.add("body", *[box((x, 0, (z0 + z1) / 2), (0.09, 2 * half + 0.006, z1 - z0)) for x in posts])
    if style == "school":
        tall = levels[2] - low - 0.05
        shape.add("body", rounded_box((length / 2 + 0.5, 0, low + tall / 2), (1.3, half * 1.7, tall), 0.15, 0.08))
    if chance(rng, 0.55):
        size = (rng.uniform(0.8, 3.0), half * rng.uniform(0.8, 1.5), rng.uniform(0.15, 0.3))
        shape.add(
            "roof", rounded_box((rng.uniform(-0.25, 0.1) * length, 0, high + size[2] / 2 - 0.01), size, 0.05, 0.04)
        )
    radius = rng.uniform(0.36, 0.42) if style == "mini" else rng.uniform(0.46, 0.52)
    axles = [length * rng.uniform(0.26, 0.32), -length * rng.uniform(0.22, 0.3)]
    if style == "school":
        axles[0] = length / 2 + 0.3
    if length > 11.5:
        axles.append(axles[1] - 1.3)
    wheels(shape, axles, half * 1.01, radius, 0.28)
    if chance(rng, 0.6) and style != "mini":
        for side in (-1, 1):
            shape.add(
                "body",
                box(
                    (length / 2 - 0.05 + (0.1 if style == "school" else 0), side * (half + 0.14), levels[3] - 0.35),
                    (0.12, 0.24, 0.42),
                ),
            )
    return shape.mesh()


MAKERS = {"truck": truck, "bus": bus}
