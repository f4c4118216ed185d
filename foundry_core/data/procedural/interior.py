# SPDX-License-Identifier: Apache-2.0
"""Lamps, monitors and potted plants."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.primitives import (
    Solid,
    blob,
    box,
    circle,
    extrude,
    leaves,
    loft,
    moved,
    revolve,
    rods,
    rotated,
    rounded_box,
    rounded_rectangle,
    superellipsoid,
    tube,
)


def _shade(rng: np.random.Generator, radius: float, height: float) -> Solid:
    """A lamp shade that hangs around z=0..height, open below."""
    style = pick(rng, "drum", "cone", "cone", "bell", "globe", "dome")
    wall = max(0.003, radius * 0.03)
    if style == "globe":
        return superellipsoid(
            (0, 0, radius * 0.8), (2 * radius, 2 * radius, 2 * radius * rng.uniform(0.7, 1.1)), 1, 1, 16, 9
        )
    top = radius * {"drum": rng.uniform(0.85, 1.0), "cone": rng.uniform(0.3, 0.7), "bell": 0.4, "dome": 0.25}[style]
    fraction = np.linspace(0, 1, 2 if style in ("drum", "cone") else 6)
    if style == "bell":
        outer = top + (radius - top) * (1 - fraction) ** 2
    elif style == "dome":
        outer = np.maximum(top, radius * np.sqrt(1 - (fraction * 0.97) ** 2))
    else:
        outer = radius + (top - radius) * fraction
    profile = [(r, z * height) for r, z in zip(outer, fraction, strict=True)]
    inside = [(r - wall, z) for r, z in profile[::-1]]
    sides = pick(rng, 20, 20, 20, 4, 6)
    if style in ("dome", "bell") or chance(rng, 0.4):  # closed above
        return revolve([*profile, (0, height + wall)], sides)
    return revolve([*profile, *inside], sides, closed=True)


def lamp(rng: np.random.Generator) -> LabeledMesh:
    """Table lamps, floor lamps on a plate or three legs, arc lamps and jointed desk lamps."""
    shape = Assembly()
    style = pick(rng, "table", "table", "floor", "floor", "tripod", "arc", "desk")
    if style == "table":
        height, radius = rng.uniform(0.25, 0.55), rng.uniform(0.08, 0.2)
        shade = rng.uniform(0.12, 0.28)
        foot = radius * rng.uniform(0.45, 0.85)
        if chance(rng, 0.5):  # a vase as the foot
            waist = rng.uniform(0.3, 1.0, 4) * foot
            body = height * rng.uniform(0.5, 0.85)
            profile = [
                (0, 0),
                (foot * 0.7, 0),
                *[(max(w, 0.02), body * (i + 1) / 5) for i, w in enumerate(waist)],
                (0.015, body),
                (0, body),
            ]
            shape.add("base", revolve(profile, pick(rng, 16, 16, 4, 8)))
            shape.add("stem", rods((0, 0, body - 0.005), (0, 0, height + shade * 0.3), 0.008))
        else:
            thick = rng.uniform(0.012, 0.05)
            shape.add("base", revolve([(0, 0), (foot, 0), (foot * 0.95, thick), (0, thick)], pick(rng, 18, 18, 4)))
            shape.add("stem", rods((0, 0, thick), (0, 0, height + shade * 0.3), rng.uniform(0.007, 0.03), segments=8))
        shape.add("shade", moved(_shade(rng, radius, shade), 0, 0, height))
    elif style in ("floor", "tripod"):
        height, radius = rng.uniform(1.15, 1.65), rng.uniform(0.14, 0.28)
        if style == "floor":
            foot, thick = rng.uniform(0.12, 0.2), rng.uniform(0.015, 0.04)
            shape.add("base", revolve([(0, 0), (foot, 0), (foot * 0.95, thick), (0, thick)], pick(rng, 18, 18, 4)))
            shape.add("stem", rods((0, 0, thick), (0, 0, height + 0.06), rng.uniform(0.009, 0.02), segments=8))
        else:
            joint = height * rng.uniform(0.6, 0.97)
            feet = np.column_stack([circle(3) * rng.uniform(0.22, 0.4), np.zeros(3)])
            shape.add(
                "leg", rods(feet, np.column_stack([circle(3) * 0.02, np.full(3, joint)]), rng.uniform(0.01, 0.02))
            )
            shape.add("stem", rods((0, 0, joint - 0.04), (0, 0, height + 0.06), rng.uniform(0.014, 0.025), segments=8))
        shape.add("shade", moved(_shade(rng, radius, rng.uniform(0.18, 0.4)), 0, 0, height))
    elif style == "arc":
        height, reach, foot = rng.uniform(1.5, 2.1), rng.uniform(0.7, 1.3), rng.uniform(0.14, 0.22)
        shape.add("base", revolve([(0, 0), (foot, 0), (foot, 0.05), (0, 0.05)], pick(rng, 18, 4)))
        angle = np.linspace(np.pi, rng.uniform(0.15, 0.5), 12)
        path = np.column_stack([reach / 2 * (1 + np.cos(angle)), np.zeros(12), height * (0.35 + 0.65 * np.sin(angle))])
        path = np.concatenate([[(0, 0, 0.04)], path])
        shape.add("stem", tube(path, rng.uniform(0.01, 0.016)))
        radius = rng.uniform(0.13, 0.22)
        tall = radius * rng.uniform(0.7, 1.2)
        shape.add("shade", moved(_shade(rng, radius, tall), path[-1, 0], 0, path[-1, 2] - tall))
    else:
        foot, first, second = rng.uniform(0.07, 0.12), rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.4)
        shape.add("base", revolve([(0, 0), (foot, 0), (foot, 0.02), (0, 0.03)], pick(rng, 18, 4)))
        a, b = rng.uniform(1.4, 2.2), rng.uniform(0.0, 0.9)
        elbow = np.array([np.cos(a) * first, 0, 0.02 + np.sin(a) * first])
        wrist = elbow + np.array([np.cos(b), 0, np.sin(b)]) * second
        bar = rng.uniform(0.006, 0.012)
        shape.add("stem", rods([(0, 0, 0.02), elbow], [elbow, wrist], bar), superellipsoid(elbow, (0.04, 0.04, 0.04)))
        radius, tall = rng.uniform(0.05, 0.1), rng.uniform(0.08, 0.16)
        profile = [(radius, 0), (radius * 0.5, tall * 0.7), (radius * 0.3, tall), (0, tall)]
        shade = rotated(moved(revolve(profile, 16), 0, 0, -tall * 0.9), "y", -rng.uniform(0.0, 0.8))
        shape.add("shade", moved(shade, *wrist))
    return shape.mesh()


def monitor(rng: np.random.Generator) -> LabeledMesh:
    """Computer monitors and television sets, flat or curved, looking along +x."""
    shape = Assembly()
    width = rng.uniform(0.42, 0.85) if chance(rng, 0.7) else rng.uniform(0.8, 1.4)
    tall = width / pick(rng, 1.78, 1.78, 1.6, 2.35, 1.33)
    portrait = chance(rng, 0.06)
    width, tall = (tall, width) if portrait else (width, tall)
    thick, gap = rng.uniform(0.012, 0.05), rng.uniform(0.04, 0.16)
    tilt = rng.uniform(-0.03, 0.25) if chance(rng, 0.6) else 0.0
    panel = []
    if chance(rng, 0.25) and not portrait:
        radius = width * rng.uniform(1.2, 2.5)
        rings = []
        for y in np.linspace(-width / 2, width / 2, 9):
            x = radius - np.sqrt(radius**2 - y**2)
            rings.append([(x - thick, y, -tall / 2), (x - thick, y, tall / 2), (x, y, tall / 2), (x, y, -tall / 2)])
        panel.append(loft(rings))
    else:
        outline = rounded_rectangle(tall, width, rng.uniform(0, 0.02))
        panel.append(rotated(extrude(outline, -thick, 0.0), "y", np.pi / 2))
    if chance(rng, 0.5):  # the electronics behind the panel
        size = (thick + 0.03, width * rng.uniform(0.3, 0.7), tall * rng.uniform(0.3, 0.7))
        panel.append(rounded_box((-thick - size[0] / 2 + 0.01, 0, 0), size, 0.01, 0.01))
    for solid in panel:
        shape.add("screen", moved(rotated(solid, "y", -tilt), 0, 0, gap + tall / 2))
    style = pick(rng, "plate", "plate", "round", "vee", "feet")
    if width > 0.95:
        style = pick(rng, "plate", "feet", "feet")
    behind = -thick - 0.025
    if style == "feet":
        for side in (-1, 1):
            y = side * width * rng.uniform(0.3, 0.42)
            shape.add(
                "base",
                rods([(0.1, y, 0.008), (-0.1 - thick, y, 0.008)], np.tile([-thick / 2, y, gap + 0.03], (2, 1)), 0.008),
            )
        return shape.mesh()
    foot = min(width * rng.uniform(0.3, 0.5), 0.35)
    if style == "plate":
        shape.add(
            "base",
            rounded_box((behind / 2, 0, 0.008), (foot * rng.uniform(0.6, 0.9), foot, 0.016), rng.uniform(0, 0.04)),
        )
    elif style == "round":
        shape.add("base", moved(revolve([(0, 0), (foot * 0.5, 0), (foot * 0.48, 0.014), (0, 0.018)], 20), behind / 2))
    else:
        tips = np.array([(foot * 0.6, -foot * 0.7, 0.01), (foot * 0.6, foot * 0.7, 0.01)])
        shape.add("base", rods(np.tile([behind, 0, 0.012], (2, 1)), tips, 0.012, 0.008))
    stem, lean = rng.uniform(0.02, 0.07), tilt * tall * 0.2
    shape.add("stem", box((behind - lean * 0.3, 0, (gap + tall * 0.55) / 2), (0.022, stem, gap + tall * 0.55)))
    shape.add("stem", box((behind / 2 - 0.01, 0, gap + tall * 0.5), (abs(behind), stem * 1.4, stem * 1.4)))
    return shape.mesh()


def _pot(shape: Assembly, rng: np.random.Generator, radius: float, height: float) -> None:
    wall, soil, base = radius * 0.08, height * rng.uniform(0.8, 0.95), rng.uniform(0.6, 1.0)
    sides = pick(rng, 20, 20, 20, 4, 8)
    bulge = rng.uniform(0.9, 1.2) if chance(rng, 0.4) else (1 + base) / 2
    profile = [(0, 0), (radius * base, 0), (radius * bulge, height * 0.55), (radius, height * 0.88)]
    if chance(rng, 0.5):
        profile += [(radius * 1.1, height * 0.88), (radius * 1.1, height)]
    else:
        profile += [(radius, height)]
    profile += [(radius - wall, height), (radius - wall, soil), (0, soil)]
    shape.add("pot", revolve(profile, sides))


def plant(rng: np.random.Generator) -> LabeledMesh:
    """Potted plants: bushes, rosettes, upright blades, cacti and small trees."""
    shape = Assembly()
    radius = rng.uniform(0.07, 0.22)
    pot = radius * rng.uniform(1.2, 2.4)
    _pot(shape, rng, radius, pot)
    soil = pot * 0.8
    style = pick(rng, "bush", "rosette", "rosette", "blades", "cactus", "tree", "broad")
    spread = radius * rng.uniform(1.3, 2.4)
    if style == "bush":
        for _ in range(int(rng.integers(2, 6))):
            offset = rng.normal(0, 0.35, 3) * spread * (1, 1, 0.4)
            size = spread * rng.uniform(0.9, 1.6, 3)
            shape.add("foliage", blob(rng, offset + (0, 0, pot + spread * 0.55), size, 0.2, 10, 6))
        shape.add("stem", rods((0, 0, soil), (0, 0, pot + spread * 0.5), radius * 0.12))
    elif style == "rosette":
        count = int(rng.integers(14, 50))
        angle, rise = rng.uniform(0, 6.283, count), rng.uniform(0.15, 1.4, count)
        length = spread * rng.uniform(1.0, 1.8) * rng.uniform(0.6, 1.0, count)
        start, length_up = np.tile([0, 0, pot * 0.95], (count, 1)), (length * 0.6)[:, None]
        for bend in (rise, rise - rng.uniform(0.3, 1.0)):  # each blade rises and then droops
            direction = np.column_stack([np.cos(angle) * np.cos(bend), np.sin(angle) * np.cos(bend), np.sin(bend)])
            shape.add("foliage", leaves(start, direction, length, length * 0.22))
            start = start + direction * length_up
    elif style == "blades":
        count = int(rng.integers(8, 26))
        base = np.column_stack([rng.normal(0, 0.35, (count, 2)) * radius, np.full(count, soil)])
        lean = np.column_stack([rng.normal(0, 0.18, (count, 2)), np.ones(count)])
        shape.add(
            "foliage", leaves(base, lean, rng.uniform(2, 4.5) * radius * rng.uniform(0.6, 1, count), radius * 0.4)
        )
    elif style == "cactus":
        thick, tall = radius * rng.uniform(0.35, 0.7), radius * rng.uniform(2, 4.5)
        column = superellipsoid((0, 0, soil + tall / 2), (2 * thick, 2 * thick, tall), 0.5, 1, 12, 8)
        shape.add("foliage", column)
        for _ in range(int(rng.integers(0, 4))):
            angle, z = rng.uniform(0, 6.283), soil + tall * rng.uniform(0.35, 0.6)
            elbow = np.array([np.cos(angle) * thick * 2, np.sin(angle) * thick * 2, z])
            shape.add("foliage", rods((0, 0, z), elbow, thick * 0.5, segments=8))
            arm = superellipsoid((0, 0, tall * 0.18), (thick, thick, tall * 0.45), 0.5, 1, 10, 6)
            shape.add("foliage", moved(arm, *elbow))
    else:
        tall = radius * rng.uniform(1.5, 5.0)
        top = np.array([*rng.normal(0, radius * 0.2, 2), soil + tall])
        shape.add("stem", rods((0, 0, soil), top, radius * 0.12, radius * 0.07))
        if style == "tree":
            for _ in range(int(rng.integers(1, 4))):
                offset = rng.normal(0, 0.3, 3) * spread
                shape.add(
                    "foliage", blob(rng, top + offset * (1, 1, 0.6), spread * rng.uniform(1.2, 2.0, 3), 0.15, 10, 6)
                )
        else:
            count = int(rng.integers(8, 30))
            start = np.linspace((0, 0, soil + tall * 0.2), top, count)
            angle = rng.uniform(0, 6.283, count)
            tip = start + np.column_stack([np.cos(angle), np.sin(angle), rng.uniform(0.1, 0.9, count)]) * spread * 0.5
            shape.add("stem", rods(start, tip, radius * 0.03, segments=4))
            out = np.column_stack([np.cos(angle), np.sin(angle), rng.uniform(-0.6, 0.4, count)])
            size = spread * rng.uniform(0.6, 1.1)
            shape.add("foliage", leaves(tip, out, size, size * rng.uniform(0.5, 0.9)))
    return shape.mesh()


MAKERS = {"lamp": lamp, "monitor": monitor, "plant": plant}
