# SPDX-License-Identifier: Apache-2.0
"""Chairs. The sitter looks along +x."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.primitives import (
    box,
    circle,
    extrude,
    loft,
    moved,
    revolve,
    rods,
    rotated,
    rounded_box,
    rounded_rectangle,
    superellipsoid,
)


def four_legs(
    shape: Assembly, rng: np.random.Generator, half_x: float, half_y: float, height: float, thick: float
) -> None:
    """Four legs from the floor to ``height`` whose tops stand at (+-half_x, +-half_y); straight, tapered or splayed."""
    corners = np.array([(sx, sy) for sx in (-1, 1) for sy in (-1, 1)], float)
    splay = rng.uniform(0.0, 0.22) if chance(rng, 0.5) else 0.0
    top = np.column_stack([corners * (half_x, half_y), np.full(4, height)])
    bottom = np.column_stack([corners * (half_x + splay * height * 0.6, half_y + splay * height * 0.6), np.zeros(4)])
    segments = pick(rng, 4, 4, 8)
    shape.add("leg", rods(bottom, top, thick * rng.uniform(0.5, 1.0), thick, segments))
    if chance(rng, 0.3):  # stretchers between the legs
        z = height * rng.uniform(0.2, 0.6)
        at = bottom + (top - bottom) * (z / height)
        pairs = [(0, 1), (2, 3)] if chance(rng, 0.4) else [(0, 2), (1, 3)]
        for a, b in pairs:
            shape.add("leg", rods(at[a], at[b], thick * 0.55, segments=segments))


def _under_chair(shape: Assembly, rng: np.random.Generator, depth: float, width: float, height: float) -> None:
    style = pick(rng, "four", "four", "four", "star", "star", "sled", "tulip", "cantilever", "panels")
    thick = rng.uniform(0.012, 0.028)
    x, y = depth / 2 - thick * 1.5, width / 2 - thick * 1.5
    if style == "four":
        four_legs(shape, rng, x, y, height, thick)
    elif style == "star":
        arms, reach = int(rng.integers(4, 6)), rng.uniform(0.24, 0.34)
        wheel = rng.uniform(0.022, 0.032) if chance(rng, 0.75) else 0.0
        low = 2 * wheel + 0.03
        tips = np.column_stack([circle(arms) * reach, np.full(arms, low)])
        shape.add("base", rods(np.tile([0, 0, low + 0.05], (arms, 1)), tips, 0.03, 0.018, 4))
        shape.add("stem", rods((0, 0, low), (0, 0, height), rng.uniform(0.022, 0.04), segments=10))
        if wheel:
            across = np.column_stack([circle(arms)[:, ::-1] * (-0.02, 0.02), np.zeros(arms)])
            hubs = tips * (1, 1, 0) + (0, 0, wheel)
            shape.add("wheel", rods(hubs - across, hubs + across, wheel, segments=8))
        else:
            shape.add("base", rods(tips * (1, 1, 0), tips, 0.015))
    elif style == "tulip":
        radius = rng.uniform(0.19, 0.28)
        shape.add("base", revolve([(0, 0), (radius, 0), (radius, 0.012), (0.05, 0.05), (0, 0.05)], 18))
        shape.add("stem", revolve([(0, 0.04), (0.045, 0.04), (0.028, height / 2), (0.07, height), (0, height)], 12))
    elif style == "panels":
        for side in (-1, 1):
            shape.add("leg", box((0, side * (y - 0.01), height / 2), (2 * x, thick * 1.6, height)))
    else:  # bent tube on each side
        for side in (-1, 1):
            corners = [(x, height), (x, 0.012), (-x, 0.012)] + ([(-x, height)] if style == "sled" else [])
            path = np.array([(px, side * y, pz) for px, pz in corners])
            shape.add("leg", rods(path[:-1], path[1:], thick * 0.7))
        shape.add("leg", rods((-x, -y, 0.012), (-x, y, 0.012), thick * 0.7))


def _chair_back(rng: np.random.Generator, width: float, height: float, thick: float) -> list:
    """Solids of a back that stands on z=0 in the plane x=0, facing +x."""
    style = pick(rng, "solid", "solid", "curved", "curved", "slats", "ladder", "frame", "spindles", "pad")
    half = width / 2
    if style == "solid":
        outline = rounded_rectangle(height, width, rng.uniform(0.0, 0.12))
        if chance(rng, 0.3):  # narrower towards the top
            outline = outline * np.column_stack([np.ones(len(outline)), 1 - 0.35 * (outline[:, 0] > 0)])
        plate = moved(extrude(outline, -thick / 2, thick / 2), height / 2)
        return [rotated(plate, "y", -np.pi / 2)]
    if style == "curved":  # wraps around the sitter
        bend = rng.uniform(0.3, 1.1)
        angle = np.linspace(-bend, bend, 9)
        radius = half / np.sin(min(bend, np.pi / 2))
        low = rng.uniform(0.0, 0.25) * height
        rings = []
        for a in angle:
            x, y = radius * (1 - np.cos(a)), radius * np.sin(a)
            inner = np.array([np.cos(a), -np.sin(a)]) * thick
            drop = (np.abs(a) / bend) ** 2 * height * 0.2
            rings.append(
                [
                    (x, y, low),
                    (x, y, height - drop),
                    (x + inner[0], y + inner[1], height - drop),
                    (x + inner[0], y + inner[1], low),
                ]
            )
        return [loft(rings)]
    posts = rods(
        [(0, -half + thick, -0.01), (0, half - thick, -0.01)],
        [(0, -half + thick, height), (0, half - thick, height)],
        thick * 0.7,
        segments=6,
    )
    rail = box((0, 0, height - 0.04), (thick, width, rng.uniform(0.05, 0.12)))
    if style == "pad":
        pad = rng.uniform(0.5, 0.85) * height
        return [
            rods((0, 0, -0.01), (0, 0, height - pad / 2), thick, segments=6),
            superellipsoid((0.01, 0, height - pad / 2), (thick * 3, width, pad), 0.4, 0.4),
        ]
    if style == "frame":
        return [
            posts,
            rail,
            box((0, 0, height * 0.55), (thick * 0.5, width - 3 * thick, height * rng.uniform(0.4, 0.75))),
        ]
    count = int(rng.integers(3, 7))
    if style == "ladder":
        z = np.linspace(0.25, 0.85, count) * height
        return [posts, rail, *[box((0, 0, at), (thick * 0.8, width - thick, height * 0.07)) for at in z]]
    y = np.linspace(-half, half, count + 2)[1:-1]
    if style == "slats":
        return [posts, rail, *[box((0, at, height / 2), (thick * 0.6, width * 0.08, height)) for at in y]]
    ends = [(0, at, height - 0.05) for at in y]
    return [posts, rail, rods([(0, at * 0.9, 0) for at in y], ends, thick * 0.35, segments=5)]


def chair(rng: np.random.Generator) -> LabeledMesh:
    """Dining, office, bar and lounge chairs: four legs, star, sled, tulip, cantilever or panels under the seat."""
    shape = Assembly()
    width, depth = rng.uniform(0.38, 0.58), rng.uniform(0.38, 0.55)
    height = rng.uniform(0.62, 0.78) if chance(rng, 0.12) else rng.uniform(0.38, 0.50)
    seat = rng.uniform(0.02, 0.09)
    style = pick(rng, "box", "rounded", "rounded", "round", "cushion")
    middle = (0, 0, height - seat / 2)
    if style == "box":
        shape.add("seat", box(middle, (depth, width, seat)))
    elif style == "rounded":
        shape.add("seat", rounded_box(middle, (depth, width, seat), rng.uniform(0.04, 0.16), seat * 0.3))
    elif style == "round":
        outline = circle(18) * (depth / 2, width / 2)
        shape.add("seat", extrude(outline, height - seat, height, seat * 0.25))
    else:
        shape.add("seat", superellipsoid(middle, (depth, width, seat * 1.5), 0.45, 0.35))
    inset = 0.75 if style == "round" else 1.0
    _under_chair(shape, rng, depth * inset, width * inset, height - seat * 0.7)
    tall = rng.uniform(0.22, 0.62)
    tilt, thick = rng.uniform(0.0, 0.32), rng.uniform(0.015, 0.035)
    back_width = width * (rng.uniform(0.65, 0.85) if style == "round" else rng.uniform(0.82, 1.0))
    back_x = -depth / 2 + thick
    for solid in _chair_back(rng, back_width, tall, thick):
        shape.add("back", moved(rotated(solid, "y", -tilt), back_x, 0, height - seat * 0.4))
    if chance(rng, 0.45):
        rise, bar, y = rng.uniform(0.15, 0.26), rng.uniform(0.012, 0.03), width / 2 + rng.uniform(0.0, 0.03)
        front, rear = depth * rng.uniform(0.15, 0.45), back_x - np.tan(tilt) * min(rise, tall)
        loop = chance(rng, 0.3)
        for side in (-1, 1):
            shape.add(
                "armrest", box(((front + rear) / 2, side * y, height + rise), (front - rear, 2.4 * bar, 1.4 * bar))
            )
            shape.add(
                "armrest",
                rods((front - bar, side * y, height - seat * 0.8), (front - bar, side * y, height + rise), bar * 0.7),
            )
            if loop or rise > tall:
                shape.add(
                    "armrest",
                    rods((rear + bar, side * y, height - seat * 0.8), (rear + bar, side * y, height + rise), bar * 0.7),
                )
    return shape.mesh()


MAKERS = {"chair": chair}
