# SPDX-License-Identifier: Apache-2.0
"""Boxes, suitcases and waste bins."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.cups import hollow
from foundry_core.data.procedural.primitives import (
    box as brick,
)
from foundry_core.data.procedural.primitives import (
    extrude,
    lift,
    loft,
    moved,
    revolve,
    rods,
    rotated,
    rounded_box,
    rounded_rectangle,
    superellipsoid,
    torus,
)


def _open_box(size, wall: float, taper: float = 1.0, radius: float = 0.0):
    """A box open above, on z=0; its floor is ``taper`` times as large as its rim."""
    x, y, z = size
    outer = rounded_rectangle(x, y, radius)
    inner = rounded_rectangle(x - 2 * wall, y - 2 * wall, max(radius - wall, wall * 0.1) if radius else 0.0)
    return loft([lift(outer, 0, taper), lift(outer, z), lift(inner, z), lift(inner, wall, taper)])


def box(rng: np.random.Generator) -> LabeledMesh:
    """Cartons, shut or with open flaps, lidded boxes, crates and trays."""
    shape = Assembly()
    x, y = rng.uniform(0.15, 0.6, 2)
    z = (x + y) / 2 * rng.uniform(0.35, 1.2)
    wall = rng.uniform(0.004, 0.012)
    style = pick(rng, "closed", "closed", "flaps", "flaps", "lidded", "crate", "tray")
    if style == "closed":
        shape.add("body", brick((0, 0, z / 2 - wall / 2), (x, y, z - wall)))
        gap = rng.uniform(0.0, 0.01)
        for side in (-1, 1):
            shape.add("lid", brick((side * (x + gap) / 4, 0, z - wall / 2), (x / 2 - gap / 2, y, wall)))
    elif style == "flaps":
        shape.add("body", _open_box((x, y, z), wall))
        for side in (-1, 1):
            for axis, length, across in (("y", x, y), ("x", y, x)):
                if chance(rng, 0.12):
                    continue
                out = min(x, y) / 2 * rng.uniform(0.85, 1.0)
                opening = rng.uniform(-0.3, 2.6)  # radians from upright, outwards
                flap = (
                    brick((0, 0, out / 2), (wall, across * 0.97, out))
                    if axis == "y"
                    else brick((0, 0, out / 2), (across * 0.97, wall, out))
                )
                turned = rotated(flap, axis, side * opening * (1 if axis == "y" else -1))
                at = side * (length - wall) / 2
                shape.add("lid", moved(turned, at, 0, z) if axis == "y" else moved(turned, 0, at, z))
    elif style == "lidded":
        over, rim = rng.uniform(0.003, 0.012), z * rng.uniform(0.12, 0.35)
        if chance(rng, 0.7):
            shape.add("body", brick((0, 0, z / 2 - 0.01), (x, y, z - 0.02)))
            lid = moved(rotated(_open_box((x + 2 * over, y + 2 * over, rim), over, 1.0), "x", np.pi), 0, 0, z)
        else:  # hinged open at -x
            shape.add("body", _open_box((x, y, z), wall))
            lid = moved(rotated(_open_box((x, y, rim), wall), "x", np.pi), x / 2, 0, rim)
            lid = moved(rotated(lid, "y", -rng.uniform(0.5, 1.9)), -x / 2, 0, z)
        shape.add("lid", lid)
    elif style == "crate":
        slats = int(rng.integers(2, 5))
        thick = 0.012
        posts = np.array([(sx * (x / 2 - 0.02), sy * (y / 2 - 0.02), 0.0) for sx in (-1, 1) for sy in (-1, 1)])
        shape.add("body", rods(posts, posts + (0, 0, z), 0.018, segments=4))
        shape.add("body", brick((0, 0, thick / 2), (x, y, thick)))
        for i in range(slats):
            at, tall = (i + 0.5) / slats * z, z / slats * rng.uniform(0.6, 0.85)
            for side in (-1, 1):
                shape.add("body", brick((side * x / 2, 0, at), (thick, y, tall)))
                shape.add("body", brick((0, side * y / 2, at), (x, thick, tall)))
    else:
        shape.add(
            "body", _open_box((x, y, z * 0.7), wall * 1.4, rng.uniform(0.82, 1.0), min(x, y) * rng.uniform(0, 0.15))
        )
        shape.add("body", *[brick((0, side * (y / 2 + 0.008), z * 0.68), (x * 0.6, 0.03, 0.02)) for side in (-1, 1)])
    return shape.mesh()


def suitcase(rng: np.random.Generator) -> LabeledMesh:
    """Trolley cases, hard cases, duffel bags and briefcases, standing up."""
    shape = Assembly()
    style = pick(rng, "trolley", "trolley", "trolley", "briefcase", "duffel")
    if style == "trolley":
        width, depth, tall = rng.uniform(0.32, 0.52), rng.uniform(0.18, 0.32), rng.uniform(0.45, 0.75)
        wheel = rng.uniform(0.02, 0.035)
        corner = rng.uniform(0.03, 0.09)
        ribs = int(rng.integers(2, 6)) if chance(rng, 0.5) else 0
        middle = 2 * wheel + tall / 2
        if chance(rng, 0.5):
            shape.add("body", rounded_box((0, 0, middle), (depth, width, tall), corner, corner * 0.7))
        else:
            shape.add("body", superellipsoid((0, 0, middle), (depth, width, tall), 0.25, 0.3, 20, 10))
        for y in np.linspace(-width * 0.35, width * 0.35, ribs) if ribs else ():
            shape.add("body", brick((0, y, middle), (depth + 0.014, 0.02, tall * 0.8)))
        if not ribs and chance(rng, 0.6):  # a front pocket
            shape.add(
                "body", rounded_box((depth / 2, 0, middle - tall * 0.1), (0.07, width * 0.75, tall * 0.55), 0.02, 0.02)
            )
        corners = [(sx, sy) for sx in ((-1, 1) if chance(rng, 0.6) else (-1,)) for sy in (-1, 1)]
        at = np.array([(sx * (depth / 2 - wheel), sy * (width / 2 - 0.05), wheel) for sx, sy in corners])
        shape.add("wheel", rods(at - (0, 0.015, 0), at + (0, 0.015, 0), wheel, segments=10))
        if len(corners) == 2:
            shape.add(
                "wheel", rods((depth / 2 - 0.04, -width / 3, wheel), (depth / 2 - 0.04, width / 3, wheel), wheel * 0.98)
            )
        top, out = 2 * wheel + tall, rng.uniform(0.25, 0.5) if chance(rng, 0.7) else rng.uniform(0.02, 0.05)
        grip = width * rng.uniform(0.22, 0.35)
        x = -depth / 2 + 0.035
        bars = np.array([(x, -grip, top - 0.03), (x, grip, top - 0.03)])
        shape.add("handle", rods(bars, bars + (0, 0, out + 0.03), 0.009))
        shape.add("handle", rods((x, -grip - 0.015, top + out), (x, grip + 0.015, top + out), 0.015, segments=8))
        return shape.mesh()
    width, depth, tall = rng.uniform(0.38, 0.62), rng.uniform(0.10, 0.2), rng.uniform(0.28, 0.42)
    if style == "duffel":
        width, depth, tall = rng.uniform(0.45, 0.75), rng.uniform(0.25, 0.35), rng.uniform(0.25, 0.35)
        shape.add(
            "body",
            superellipsoid((0, 0, tall / 2), (depth, width, tall), rng.uniform(0.5, 0.9), rng.uniform(0.2, 0.5), 18, 9),
        )
        for side in (-1, 1):
            x, lean = side * depth * 0.25, rng.uniform(-0.04, 0.08) * side
            points = np.array(
                [
                    (x, -width / 5, tall * 0.9),
                    (x + lean, -width / 8, tall + 0.12),
                    (x + lean, width / 8, tall + 0.12),
                    (x, width / 5, tall * 0.9),
                ]
            )
            shape.add("handle", rods(points[:-1], points[1:], 0.01))
        return shape.mesh()
    shape.add("body", rounded_box((0, 0, tall / 2), (depth, width, tall), 0.02, rng.uniform(0.01, 0.03)))
    shape.add("body", brick((0, 0, tall / 2), (0.012, width + 0.01, tall + 0.008)))
    grip, rise = rng.uniform(0.05, 0.08), rng.uniform(0.035, 0.06)
    points = np.array(
        [(0, -grip, tall - 0.01), (0, -grip * 0.9, tall + rise), (0, grip * 0.9, tall + rise), (0, grip, tall - 0.01)]
    )
    shape.add("handle", rods(points[:-1], points[1:], 0.011))
    return shape.mesh()


def _lid(rng: np.random.Generator, x: float, y: float, wall: float, hinge: float):
    """A slab lid [x, y] with its hinge at (hinge, 0), a little open or shut."""
    slab = moved(extrude(rounded_rectangle(x, y, 0.03), 0, wall, wall * 0.3), -hinge)
    angle = rng.uniform(0.0, 0.35) if chance(rng, 0.35) else 0.0
    return moved(rotated(slab, "y", -angle if hinge < 0 else angle), hinge)


def bin(rng: np.random.Generator) -> LabeledMesh:  # noqa: A001, the category's name
    """Wheelie bins, containers, office bins, pedal bins and litter bins."""
    shape = Assembly()
    style = pick(rng, "wheelie", "wheelie", "container", "office", "pedal", "litter", "swing")
    if style == "wheelie":
        x, y, z = rng.uniform(0.5, 0.75), rng.uniform(0.45, 0.62), rng.uniform(0.85, 1.15)
        outline, taper = rounded_rectangle(x, y, rng.uniform(0.03, 0.09)), rng.uniform(0.68, 0.85)
        shape.add(
            "body",
            loft(
                [
                    lift(outline, 0.03, taper, (0.04, 0)),
                    lift(outline, z - 0.1, 0.96),
                    lift(outline, z - 0.1),
                    lift(outline, z),
                ]
            ),
        )
        shape.add("lid", moved(_lid(rng, x + 0.05, y + 0.03, rng.uniform(0.03, 0.09), -x / 2), 0, 0, z))
        wheel = rng.uniform(0.09, 0.13)
        at = np.array([(-x / 2 * taper + 0.02, side * (y / 2 - 0.05), wheel) for side in (-1, 1)])
        shape.add("wheel", rods(at - (0, 0.025, 0), at + (0, 0.025, 0), wheel, segments=14))
        shape.add("handle", rods((-x / 2 - 0.06, -y * 0.4, z - 0.03), (-x / 2 - 0.06, y * 0.4, z - 0.03), 0.015))
        for side in (-1, 1):
            shape.add("handle", brick((-x / 2 - 0.03, side * y * 0.36, z - 0.03), (0.08, 0.03, 0.04)))
    elif style == "container":
        x, y, z = rng.uniform(0.8, 1.15), rng.uniform(1.2, 1.8), rng.uniform(0.95, 1.2)
        outline = rounded_rectangle(x, y, rng.uniform(0.02, 0.08))
        taper, wheel = rng.uniform(0.75, 0.95), rng.uniform(0.08, 0.1)
        shape.add("body", loft([lift(outline, 2 * wheel, taper), lift(outline, z)]))
        if chance(rng, 0.5):  # a domed lid
            t = np.linspace(0, 1, 6)
            rings = [lift(outline, z + 0.3 * np.sin(a * np.pi / 2), (max(np.cos(a * np.pi / 2), 0.1), 1.0)) for a in t]
            shape.add("lid", loft(rings, (False, True)))
        else:
            shape.add("lid", moved(_lid(rng, x + 0.04, y + 0.04, 0.06, -x / 2), 0, 0, z))
        at = np.array([(sx * x * taper * 0.4, sy * y * taper * 0.4, wheel) for sx in (-1, 1) for sy in (-1, 1)])
        shape.add("wheel", rods(at - (0, 0.025, 0), at + (0, 0.025, 0), wheel, segments=10))
        for side in (-1, 1):
            shape.add(
                "handle",
                rods((-x * 0.3, side * (y / 2 + 0.04), z - 0.1), (x * 0.3, side * (y / 2 + 0.04), z - 0.1), 0.02),
            )
            shape.add("handle", brick((0, side * y / 2, z - 0.1), (0.08, 0.09, 0.06)))
    elif style == "office":
        z = rng.uniform(0.24, 0.42)
        radius, taper = z * rng.uniform(0.38, 0.5), rng.uniform(0.68, 1.0)
        if chance(rng, 0.35):
            shape.add("body", _open_box((2 * radius * rng.uniform(0.6, 1), 2 * radius, z), 0.006, taper, 0.03))
        else:
            rim = (
                [(radius, z - 0.015), (radius * 1.05, z - 0.015), (radius * 1.05, z)]
                if chance(rng, 0.5)
                else [(radius, z)]
            )
            shape.add("body", hollow([(radius * taper, 0), *rim], 0.006, 22))
    elif style in ("pedal", "swing"):
        radius, z = rng.uniform(0.12, 0.2), rng.uniform(0.4, 0.7)
        square = style == "swing" or chance(rng, 0.3)
        outline = rounded_rectangle(
            2 * radius * rng.uniform(0.75, 1), 2 * radius, radius * (0.3 if square else 0.97), 6
        )
        shape.add("body", loft([lift(outline, 0, rng.uniform(0.8, 1.0)), lift(outline, z)]))
        tall = radius * rng.uniform(0.2, 0.9)
        rings = [lift(outline, z + 0.005, 1.03), lift(outline, z + tall * 0.3, 1.03)]
        rings += [lift(outline, z + tall * np.sin(a), 1.03 * np.cos(a)) for a in (0.6, 1.0, 1.35)]
        shape.add("lid", loft(rings))
        if style == "pedal":
            shape.add("handle", brick((outline[:, 0].max() + 0.03, 0, 0.025), (0.09, 0.06, 0.012)))
    else:  # a litter bin on the pavement
        radius, z = rng.uniform(0.18, 0.32), rng.uniform(0.75, 1.1)
        sides = pick(rng, 20, 20, 4, 8)
        shape.add("body", hollow([(radius * rng.uniform(0.8, 1.0), 0), (radius, z * 0.1), (radius, z)], 0.02, sides))
        if chance(rng, 0.6):  # a hood on posts above the opening
            gap, wide = rng.uniform(0.12, 0.25), radius * rng.uniform(1.0, 1.15)
            posts = np.array(
                [(np.cos(a) * radius * 0.9, np.sin(a) * radius * 0.9, z - 0.05) for a in (0.8, 2.4, 3.9, 5.5)]
            )
            shape.add("lid", rods(posts, posts + (0, 0, gap + 0.06), 0.012))
            shape.add(
                "lid",
                moved(
                    revolve(
                        [
                            (0, 0),
                            (wide, 0),
                            (wide, 0.03),
                            (wide * 0.5, 0.03 + wide * rng.uniform(0, 0.4)),
                            (0, 0.03 + wide * 0.4),
                        ],
                        sides,
                    ),
                    0,
                    0,
                    z + gap,
                ),
            )
        else:
            shape.add("body", torus((0, 0, z), radius, 0.025, "z", sides, 6))
    return shape.mesh()


MAKERS = {"box": box, "suitcase": suitcase, "bin": bin}
