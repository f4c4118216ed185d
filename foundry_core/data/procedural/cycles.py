# SPDX-License-Identifier: Apache-2.0
"""Bicycles and motorcycles, riding along +x."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.primitives import (
    box,
    capsule,
    circle,
    moved,
    rods,
    rotated,
    rounded_box,
    superellipsoid,
    torus,
    tube,
)


def _spoked(shape: Assembly, x: float, radius: float, tire: float, spokes: int) -> None:
    shape.add("wheel", torus((x, 0, radius), radius - tire, tire, "y", 24, 6))
    hub = np.array([x, 0.0, radius])
    shape.add("wheel", rods(hub - (0, 0.04, 0), hub + (0, 0.04, 0), 0.02))
    if spokes:
        rim = circle(spokes) * (radius - tire)
        tips = np.column_stack([rim[:, 0], np.zeros(spokes), rim[:, 1]]) + hub
        offset = np.where(np.arange(spokes) % 2, 0.025, -0.025)[:, None] * np.array([0.0, 1.0, 0.0])
        shape.add("wheel", rods(hub + offset, tips, 0.003, segments=3))


def bicycle(rng: np.random.Generator) -> LabeledMesh:
    """Racing, city, mountain, step-through, folding and children's bicycles, some with basket, rack or guards."""
    shape = Assembly()
    style = pick(rng, "race", "city", "city", "mountain", "step", "folding", "child")
    radius = {"folding": rng.uniform(0.2, 0.26), "child": rng.uniform(0.18, 0.28)}.get(style, rng.uniform(0.31, 0.36))
    small = style == "child"
    base = (rng.uniform(0.7, 0.85) if small else rng.uniform(0.96, 1.12)) / 2
    tire = rng.uniform(0.024, 0.032) if style == "mountain" else rng.uniform(0.013, 0.022)
    tube_radius = rng.uniform(0.012, 0.022) * (1.3 if style in ("mountain", "folding") else 1.0)
    for x in (-base, base):
        _spoked(shape, x, radius, tire, int(rng.integers(4, 11)) * 2 if chance(rng, 0.85) else 0)
    scale = 0.68 if small else 1.0
    rear, front = np.array([-base, 0, radius]), np.array([base, 0, radius])
    bottom = np.array([-base + base * 0.82, 0.0, radius * rng.uniform(0.78, 0.92) if not small else radius])
    seat_tilt = rng.uniform(0.26, 0.36)
    seat_tube = np.array([-np.sin(seat_tilt), 0, np.cos(seat_tilt)])
    post = bottom + seat_tube * rng.uniform(0.4, 0.56) * scale
    saddle = bottom + seat_tube * rng.uniform(0.62, 0.78) * scale
    steer = np.array([-np.sin(seat_tilt), 0, np.cos(seat_tilt)])
    crown = front + steer * (radius + tire + 0.05)
    head = crown + steer * rng.uniform(0.09, 0.22)
    bars = head + steer * rng.uniform(0.03, 0.22)
    if style in ("step", "folding"):
        low = bottom + (post - bottom) * rng.uniform(0.05, 0.3)
        tubes = [(bottom, crown), (low, head)] if chance(rng, 0.5) else [(bottom, crown + (head - crown) * 0.5)]
    else:
        tubes = [(bottom, crown + (head - crown) * 0.2), (post + (bottom - post) * rng.uniform(0, 0.3), head)]
    tubes += [(bottom, post), (crown, head), (post, saddle)]
    shape.add("frame", rods([a for a, _ in tubes], [b for _, b in tubes], tube_radius, segments=8))
    for side in (-1, 1):
        y = np.array([0.0, side * 0.045, 0.0])
        shape.add("frame", rods([bottom + y * 0.5, post + y * 0.3], [rear + y, rear + y], tube_radius * 0.55))
        shape.add("fork", rods(crown + y, front + y, tube_radius * (1.1 if style == "mountain" else 0.7)))
    shape.add("fork", rods(crown + (0, 0.05, 0), crown - (0, 0.05, 0), tube_radius))
    shape.add("handlebar", rods(head, bars, tube_radius * 0.9))
    half = rng.uniform(0.2, 0.24) if style == "race" else rng.uniform(0.26, 0.36) * scale
    for side in (-1, 1):
        if style == "race":
            points = [
                (0, 0, 0),
                (0.0, half, 0),
                (0.1, half, -0.01),
                (0.11, half, -0.08),
                (0.05, half, -0.13),
                (-0.03, half, -0.13),
            ]
        else:
            points = [
                (0, 0, 0),
                (rng.uniform(-0.02, 0.05), half * 0.4, rng.uniform(0, 0.06)),
                (rng.uniform(-0.22, 0.0), half, rng.uniform(0, 0.09)),
            ]
        path = np.array(points) * (1, side, 1) + bars
        shape.add("handlebar", rods(path[:-1], path[1:], 0.013))
    size = (rng.uniform(0.24, 0.3), rng.uniform(0.13, 0.2) * scale, rng.uniform(0.05, 0.08))
    shape.add(
        "seat",
        superellipsoid(saddle + (-0.03, 0, 0.0), size, 0.7, 0.8),
        superellipsoid(saddle + (0.08, 0, 0.0), (0.2, 0.06, 0.05), 0.7, 0.8),
    )
    ring, arm, phase = rng.uniform(0.06, 0.1) * scale, 0.17 * scale, rng.uniform(0, 6.283)
    shape.add(
        "crank",
        rods(bottom - (0, 0.05, 0), bottom - (0, 0.045, 0), ring, segments=14),
        rods(bottom - (0, 0.06, 0), bottom + (0, 0.06, 0), 0.02),
    )
    for side in (-1, 1):
        end = bottom + np.array([np.cos(phase) * arm * side, side * 0.07, np.sin(phase) * arm * side])
        shape.add(
            "crank", rods(bottom + (0, side * 0.06, 0), end, 0.011), box(end + (0, side * 0.045, 0), (0.09, 0.08, 0.02))
        )
    if style in ("city", "step", "folding") and chance(rng, 0.6):  # mudguards
        for x, start, stop in ((-base, 0.3, 2.9), (base, 0.9, 3.2)):
            angle = np.linspace(start, stop, 9)
            path = np.column_stack(
                [x + np.cos(angle) * (radius + 0.02), np.zeros(9), radius + np.sin(angle) * (radius + 0.02)]
            )
            shape.add("frame", tube(path, 0.02, segments=4))
    if style in ("city", "step") and chance(rng, 0.5):  # a rack behind the saddle
        z = 2 * radius + 0.05
        shape.add("frame", box((-base - 0.03, 0, z), (0.34, 0.13, 0.015)))
        shape.add(
            "frame",
            rods([(-base - 0.05, s * 0.06, z) for s in (-1, 1)], [rear + (0, s * 0.05, 0) for s in (-1, 1)], 0.006),
        )
    if style in ("city", "step", "child") and chance(rng, 0.3):  # a basket in front
        shape.add("handlebar", rounded_box(bars + (0.2, 0, -0.1), (0.24, 0.3, 0.2), 0.03))
        shape.add("handlebar", rods(bars, bars + (0.1, 0, -0.04), 0.012))
    return shape.mesh()


def _fat_wheel(shape: Assembly, rng: np.random.Generator, x: float, radius: float, tire: float) -> None:
    shape.add("wheel", torus((x, 0, radius), radius - tire, tire, "y", 22, 8))
    hub = np.array([x, 0.0, radius])
    if chance(rng, 0.5):
        shape.add("wheel", rods(hub - (0, 0.02, 0), hub + (0, 0.02, 0), radius - tire, segments=18))
    else:
        rim = circle(int(rng.integers(3, 9))) * (radius - tire)
        shape.add(
            "wheel",
            rods(
                np.tile(hub, (len(rim), 1)),
                np.column_stack([rim[:, 0], 0 * rim[:, 0], rim[:, 1]]) + hub,
                0.022,
                segments=5,
            ),
        )
    shape.add("wheel", rods(hub - (0, 0.07, 0), hub + (0, 0.07, 0), 0.04, segments=8))


def motorcycle(rng: np.random.Generator) -> LabeledMesh:
    """Street, sport, cruiser, off-road machines and scooters."""
    shape = Assembly()
    style = pick(rng, "street", "street", "sport", "cruiser", "enduro", "scooter", "scooter")
    scooter = style == "scooter"
    radius = rng.uniform(0.22, 0.28) if scooter else rng.uniform(0.29, 0.34)
    tire = rng.uniform(0.05, 0.06) if scooter else rng.uniform(0.055, 0.085)
    base = {"scooter": rng.uniform(1.2, 1.35), "cruiser": rng.uniform(1.55, 1.75)}.get(
        style, rng.uniform(1.35, 1.5)
    ) / 2
    _fat_wheel(shape, rng, -base, radius, tire)
    _fat_wheel(shape, rng, base, radius, tire * rng.uniform(0.7, 1.0))
    seat_z = {"cruiser": rng.uniform(0.65, 0.72), "enduro": rng.uniform(0.85, 0.95)}.get(style, rng.uniform(0.74, 0.84))
    rake = {"cruiser": rng.uniform(0.5, 0.7), "sport": rng.uniform(0.38, 0.45)}.get(style, rng.uniform(0.42, 0.52))
    steer = np.array([-np.sin(rake), 0, np.cos(rake)])
    front = np.array([base, 0, radius])
    crown = front + steer * (seat_z + rng.uniform(0.02, 0.16) - radius) / steer[2]
    for side in (-1, 1):
        y = np.array([0.0, side * (tire + 0.035), 0.0])
        shape.add("fork", rods(front + y, crown + y, 0.026, segments=8))
    shape.add("fork", rods(crown - (0, tire + 0.05, 0), crown + (0, tire + 0.05, 0), 0.025))
    angle = np.linspace(0.5, 2.4, 8)
    for x, shift in ((base, 0.0), (-base, 0.2)):
        if chance(rng, 0.75):
            path = np.column_stack(
                [
                    x + np.cos(angle + shift) * (radius + 0.03),
                    np.zeros(8),
                    radius + np.sin(angle + shift) * (radius + 0.03),
                ]
            )
            shape.add("body", tube(path, tire * 1.1, segments=4))
    rise = {"cruiser": rng.uniform(0.12, 0.35), "sport": rng.uniform(-0.02, 0.04)}.get(style, rng.uniform(0.08, 0.2))
    half, back = rng.uniform(0.3, 0.42), rng.uniform(0.05, 0.25)
    for side in (-1, 1):
        path = (
            np.array([(0, side * 0.05, 0), (-0.02, side * half * 0.5, rise), (-back, side * half, rise * 0.9)]) + crown
        )
        shape.add("handlebar", rods(path[:-1], path[1:], 0.016))
        if chance(rng, 0.6):
            mirror = path[1] + (0.02, side * 0.08, 0.16)
            shape.add("handlebar", rods(path[1], mirror, 0.007), superellipsoid(mirror, (0.03, 0.12, 0.08)))
    seat = rng.uniform(0.45, 0.75)
    seat_x = -base * rng.uniform(0.3, 0.5)
    shape.add(
        "seat",
        superellipsoid((seat_x, 0, seat_z - 0.02), (seat, rng.uniform(0.24, 0.34), rng.uniform(0.1, 0.16)), 0.6, 0.6),
    )
    if chance(rng, 0.3) and not scooter:  # a raised pillion seat
        shape.add("seat", superellipsoid((seat_x - seat * 0.42, 0, seat_z + 0.06), (seat * 0.5, 0.22, 0.12), 0.6, 0.6))
    if scooter:
        rear = superellipsoid(
            (-base * 0.75, 0, (radius + seat_z) / 2 + 0.05),
            (base * 1.1, rng.uniform(0.3, 0.4), seat_z - radius),
            0.6,
            0.6,
        )
        floor = radius * rng.uniform(0.8, 1.1)
        shield = rounded_box((0, 0, 0), (0.07, rng.uniform(0.36, 0.5), crown[2] - floor + 0.1), 0.03, 0.03)
        shape.add("body", rear, box((-0.02, 0, floor), (base * 1.1, 0.34, 0.1)))
        middle = np.array([base * 0.45, 0, (crown[2] + floor) / 2])
        shape.add("body", moved(rotated(shield, "y", -rake * 0.6), *middle))
        shape.add("body", superellipsoid(crown + (0.04, 0, 0.02), (0.26, 0.26, 0.2), 0.7, 0.7))
        if chance(rng, 0.3):  # a top case
            shape.add("body", rounded_box((-base - 0.12, 0, seat_z + 0.16), (0.34, 0.36, 0.28), 0.06, 0.04))
        return shape.mesh()
    shape.add(
        "tank",
        superellipsoid(
            (crown[0] * 0.35, 0, seat_z + 0.07),
            (rng.uniform(0.45, 0.6), rng.uniform(0.24, 0.34), rng.uniform(0.2, 0.28)),
            0.8,
            0.7,
        ),
    )
    shape.add(
        "body",
        rods(
            [crown, (seat_x, 0, seat_z - 0.05), (-base, 0.1, radius), (-base, -0.1, radius)],
            [(seat_x, 0, seat_z - 0.06), (0.0, 0, radius), (0, 0.1, radius), (0, -0.1, radius)],
            0.03,
        ),
    )
    shape.add("body", rods(crown, (base * 0.3, 0, radius + 0.05), 0.03))
    size = np.array([rng.uniform(0.4, 0.55), rng.uniform(0.24, 0.36), rng.uniform(0.3, 0.42)])
    shape.add("body", rounded_box((0.02, 0, radius + size[2] * 0.25), size, 0.06, 0.06))
    if chance(rng, 0.5):  # cylinders
        shape.add(
            "body",
            *[
                rods((0.05, 0, radius + 0.1), (0.05 + x, y, radius + 0.34), 0.07, segments=8)
                for x, y in pick(rng, ((0.12, 0), (-0.12, 0)), ((0.1, 0.0),), ((0, 0.28), (0, -0.28)))
            ],
        )
    for side in (-1, 1) if chance(rng, 0.4) else (-1,):
        end = np.array([-base - rng.uniform(-0.1, 0.25), side * 0.18, radius + rng.uniform(0.0, 0.35)])
        shape.add(
            "body",
            rods((0.1, side * 0.15, radius - 0.08), (-base * 0.4, side * 0.17, radius), 0.03),
            rods((-base * 0.4, side * 0.17, radius), end, 0.045, 0.055, 8),
        )
    tail = np.array([-base - rng.uniform(0.0, 0.2), 0, seat_z + rng.uniform(-0.1, 0.1)])
    shape.add("body", capsule((seat_x, 0, seat_z - 0.08), tail, 0.09, 0.05))
    lamp = crown + (0.12, 0, rng.uniform(-0.05, 0.05))
    if style == "sport" or chance(rng, 0.15):
        shape.add(
            "body",
            superellipsoid(crown + (0.08, 0, -0.04), (0.5, 0.4, 0.4), 0.8, 0.7),
            superellipsoid((base * 0.35, 0, radius + 0.18), (0.75, 0.42, 0.45), 0.6, 0.6),
        )
    else:
        shape.add("body", superellipsoid(lamp, (0.18, 0.19, 0.19)))
    if style == "cruiser" and chance(rng, 0.5) or chance(rng, 0.12):  # side cases
        shape.add(
            "body",
            *[rounded_box((-base * 0.85, s * 0.26, radius + 0.28), (0.42, 0.18, 0.3), 0.05, 0.04) for s in (-1, 1)],
        )
    return shape.mesh()


MAKERS = {"bicycle": bicycle, "motorcycle": motorcycle}
