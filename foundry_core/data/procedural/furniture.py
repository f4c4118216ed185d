# SPDX-License-Identifier: Apache-2.0
"""Tables, beds and shelves."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.primitives import (
    box,
    circle,
    extrude,
    revolve,
    rods,
    rounded_box,
    rounded_rectangle,
    superellipsoid,
)
from foundry_core.data.procedural.seating import four_legs


def _pedestal(shape: Assembly, rng: np.random.Generator, height: float, reach: float) -> None:
    radius = rng.uniform(0.03, 0.08)
    if chance(rng, 0.5):
        shape.add(
            "base", revolve([(0, 0), (reach, 0), (reach, 0.02), (radius, rng.uniform(0.03, 0.08)), (0, 0.08)], 18)
        )
    else:
        arms = int(rng.integers(3, 5))
        tips = np.column_stack([circle(arms, np.pi / 4) * reach, np.full(arms, 0.025)])
        shape.add("base", rods(np.tile([0.0, 0, rng.uniform(0.05, 0.25)], (arms, 1)), tips, 0.035, 0.022, 4))
    shape.add(
        "stem",
        revolve(
            [(0, 0.01), (radius, 0.01), (radius * rng.uniform(0.6, 1.2), height / 2), (radius, height), (0, height)], 12
        ),
    )


def table(rng: np.random.Generator) -> LabeledMesh:
    """Dining, coffee, side and writing tables: rectangular, round or oval; legs, trestles, panels or a pedestal."""
    shape = Assembly()
    use = pick(rng, "dining", "dining", "desk", "coffee", "side")
    if use == "side":
        width, height = rng.uniform(0.4, 0.6), rng.uniform(0.45, 0.7)
        depth = width * rng.uniform(0.8, 1.0)
    elif use == "coffee":
        width, depth, height = rng.uniform(0.8, 1.3), rng.uniform(0.5, 0.8), rng.uniform(0.35, 0.5)
    else:
        width, depth, height = rng.uniform(0.9, 2.0), rng.uniform(0.6, 1.0), rng.uniform(0.70, 0.78)
    thick = rng.uniform(0.018, 0.06)
    under = height - thick
    form = "rectangle" if use == "desk" else pick(rng, "rectangle", "rectangle", "rounded", "round", "oval")
    if form == "round":
        depth = width = min(width, 1.4)
    if form in ("round", "oval"):
        shape.add("top", extrude(circle(24) * (depth / 2, width / 2), under, height, thick * rng.uniform(0, 0.4)))
    else:
        radius = rng.uniform(0.05, 0.2) if form == "rounded" else 0.0
        shape.add("top", extrude(rounded_rectangle(depth, width, radius), under, height, thick * rng.uniform(0, 0.3)))
    inset = 0.64 if form in ("round", "oval") else rng.uniform(0.82, 0.96)
    x, y = depth / 2 * inset, width / 2 * inset
    style = pick(rng, "four", "four", "trestle", "panels", "pedestal", "hairpin", "frame")
    if form in ("round", "oval") and chance(rng, 0.4):
        style = "pedestal"
    bar = rng.uniform(0.018, 0.045)
    if style == "four":
        x, y = x - bar, y - bar
        four_legs(shape, rng, x, y, under, bar)
        if chance(rng, 0.5):  # apron
            tall = rng.uniform(0.05, 0.1)
            for side in (-1, 1):
                shape.add("leg", box((0, side * y, under - tall / 2), (2 * x, 0.02, tall)))
                shape.add("leg", box((side * x, 0, under - tall / 2), (0.02, 2 * y, tall)))
    elif style == "pedestal" and width / depth < 1.7:
        _pedestal(shape, rng, under, min(depth, width) * rng.uniform(0.28, 0.4))
    elif style == "hairpin":
        for sx in (-1, 1):
            for sy in (-1, 1):
                foot = np.array([sx * x, sy * y, 0.0])
                tops = foot + [(-sx * 0.06, 0, under), (0, -sy * 0.06, under)]
                shape.add("leg", rods(np.tile(foot, (2, 1)), tops, 0.008))
    elif style == "panels":
        for side in (-1, 1):
            shape.add("leg", box((0, side * (y - 0.02), under / 2), (2 * x, rng.uniform(0.02, 0.05), under)))
        if chance(rng, 0.5):
            shape.add("leg", box((-x * 0.7, 0, under * 0.65), (0.02, 2 * y - 0.04, under * 0.5)))
    else:  # a trestle or a frame at either end, tied by a beam
        for side in (-1, 1):
            at = side * (y - 0.05)
            feet = np.array([(-x, at, bar), (x, at, bar)])
            if style == "frame":
                shape.add("leg", rods(feet, feet * (1, 1, 0) + (0, 0, under), bar, segments=4))
                shape.add("leg", rods(feet[0], feet[1], bar, segments=4))
            else:
                narrow = rng.uniform(0.05, 0.7)
                shape.add("leg", rods(feet, feet * (narrow, 1, 0) + (0, 0, under), bar, segments=4))
        z = under * rng.uniform(0.2, 0.8)
        if style == "trestle":
            shape.add("leg", rods((0, 0.05 - y, under - bar), (0, y - 0.05, under - bar), bar * 0.8, segments=4))
        elif chance(rng, 0.5):
            shape.add("leg", rods((-x, 0.05 - y, z), (-x, y - 0.05, z), bar * 0.8, segments=4))
    if (
        style in ("four", "hairpin", "frame")
        and form not in ("round", "oval")
        and use != "dining"
        and chance(rng, 0.45)
    ):
        if use == "desk":
            side, wide, tall = pick(rng, -1, 1), rng.uniform(0.3, 0.42), rng.uniform(0.3, 0.6)
            wide = min(wide, y * 0.8)
            for z in np.linspace(0, tall, pick(rng, 3, 4))[:-1]:
                step = tall / 3
                shape.add(
                    "drawer",
                    box((0, side * (y - bar - wide / 2), under - z - step / 2), (2 * x - 2 * bar, wide, step * 0.97)),
                )
        else:
            shape.add("board", box((0, 0, under * rng.uniform(0.25, 0.5)), (2 * x, 2 * y, 0.02)))
    elif use in ("side", "coffee") and style == "four" and chance(rng, 0.4):
        tall = min(0.16, under * 0.4)
        shape.add("drawer", box((0, 0, under - tall / 2), (2 * x * 0.95, 2 * y * 0.95, tall)))
    return shape.mesh()


def _headboard(
    shape: Assembly, rng: np.random.Generator, x: float, width: float, low: float, high: float, thick: float
) -> None:
    if chance(rng, 0.65):
        shape.add("back", rounded_box((x, 0, (low + high) / 2), (thick, width, high - low), thick * 0.4, thick * 0.3))
        return
    posts = np.array([(x, -width / 2 + 0.02, 0.0), (x, width / 2 - 0.02, 0.0)])
    shape.add("back", rods(posts, posts + (0, 0, high), 0.024))
    shape.add("back", rods((x, -width / 2, high), (x, width / 2, high), 0.022))
    y = np.linspace(-width / 2, width / 2, int(rng.integers(5, 12)))[1:-1]
    shape.add("back", rods([(x, at, low) for at in y], [(x, at, high) for at in y], 0.011, segments=5))


def bed(rng: np.random.Generator) -> LabeledMesh:
    """Single to king-size beds and bunk beds, head at -x."""
    shape = Assembly()
    bunk = chance(rng, 0.12)
    width = rng.uniform(0.8, 1.0) if bunk else pick(rng, 0.9, 1.2, 1.4, 1.6, 1.8) * rng.uniform(0.94, 1.06)
    length = rng.uniform(1.85, 2.1)
    mattress, rail = rng.uniform(0.14, 0.28), rng.uniform(0.1, 0.26)
    clear = rng.uniform(0.08, 0.3) if chance(rng, 0.75) else 0.0
    frame, board = rng.uniform(0.02, 0.07), rng.uniform(0.03, 0.1)
    levels = [0.0, rng.uniform(1.0, 1.3)] if bunk else [0.0]
    pillows = 1 if width < 1.3 else 2
    covered = chance(rng, 0.35)
    for level in levels:
        low, top = level + clear, level + clear + rail
        shape.add("frame", box((0, 0, (low + top) / 2), (length + 2 * frame, width + 2 * frame, rail)))
        size = (length, width, mattress)
        shape.add("mattress", rounded_box((0, 0, top + mattress / 2), size, rng.uniform(0.02, 0.1), 0.03))
        if chance(rng, 0.85) or bunk:
            for i in range(pillows):
                y = ((i + 0.5) / pillows - 0.5) * width
                size = (rng.uniform(0.3, 0.45), width / pillows * rng.uniform(0.7, 0.9), rng.uniform(0.1, 0.18))
                shape.add(
                    "cushion",
                    superellipsoid(
                        (-length / 2 + size[0] / 2 + 0.05, y, top + mattress + size[2] * 0.4), size, 0.8, 0.4
                    ),
                )
        if covered:
            size = (length * rng.uniform(0.5, 0.72), width + 2 * frame + 0.03, mattress + 0.05)
            shape.add(
                "mattress",
                rounded_box((length / 2 - size[0] / 2 + frame, 0, top + mattress / 2 + 0.01), size, 0.06, 0.04),
            )
    x, y = length / 2 + frame, width / 2 + frame
    feet = np.array([(sx * (x - 0.05), sy * (y - 0.05), 0.0) for sx in (-1, 1) for sy in (-1, 1)])
    if bunk:
        posts = feet / (x - 0.05, y - 0.05, 1) * (x + 0.03, y + 0.01, 1)
        shape.add("leg", rods(posts, posts + (0, 0, levels[1] + clear + rail + 0.45), 0.035, segments=4))
        high = levels[1] + clear + rail + 0.35
        for side in (-1, 1):
            shape.add("frame", rods((-x, side * y, high), (x * pick(rng, 0.3, 1.0), side * y, high), 0.02))
        rungs = np.linspace(0.3, levels[1] + clear, 5)
        lane = (x - 0.5, x - 0.1)
        shape.add("frame", rods([(at, y + 0.05, 0) for at in lane], [(at, y + 0.05, high) for at in lane], 0.02))
        shape.add(
            "frame", rods([(lane[0], y + 0.05, z) for z in rungs], [(lane[1], y + 0.05, z) for z in rungs], 0.015)
        )
    elif clear:
        shape.add("leg", rods(feet, feet + (0, 0, clear + 0.01), rng.uniform(0.02, 0.04), segments=pick(rng, 4, 8)))
    top = clear + rail + mattress
    if not bunk and chance(rng, 0.8):
        _headboard(shape, rng, -x - board / 2, 2 * y, pick(rng, 0.0, clear), top + rng.uniform(0.2, 0.75), board)
        if chance(rng, 0.3):
            _headboard(shape, rng, x + board / 2, 2 * y, clear, top + rng.uniform(0.0, 0.25), board)
    return shape.mesh()


def shelf(rng: np.random.Generator) -> LabeledMesh:
    """Bookcases, racks, cube shelves and chests of drawers, open towards +x."""
    shape = Assembly()
    style = pick(rng, "bookcase", "bookcase", "rack", "cubes", "chest", "ladder")
    width, depth, thick = rng.uniform(0.5, 1.3), rng.uniform(0.25, 0.5), rng.uniform(0.015, 0.035)
    height = rng.uniform(0.8, 2.1)
    if style == "chest":
        height, depth = rng.uniform(0.6, 1.3), rng.uniform(0.38, 0.55)
    rows = max(2, int(round(height / rng.uniform(0.26, 0.42))))
    foot = rng.uniform(0.03, 0.15) if chance(rng, 0.5) else 0.0
    if style in ("rack", "ladder"):
        bar = rng.uniform(0.012, 0.025)
        lean = rng.uniform(0.1, 0.2) * depth * 4 if style == "ladder" else 0.0
        posts = np.array([(sx * depth / 2, sy * width / 2, 0.0) for sx in (-1, 1) for sy in (-1, 1)])
        tops = posts + (0, 0, height)
        if style == "ladder":  # the front posts lean back
            depth = depth * 1.3
            posts[:, 0], tops[:, 0] = (
                np.sign(posts[:, 0]) * depth / 2,
                np.where(posts[:, 0] > 0, depth / 2 - min(lean, depth * 0.55), -depth / 2),
            )
        shape.add("leg", rods(posts, tops, bar, segments=4))
        z = np.linspace(max(foot, 0.05), height - (0.1 if style == "ladder" else thick), rows)
        for at in z:
            front = np.interp(at, (0, height), (posts[2, 0], tops[2, 0]))
            shape.add("board", box(((front - depth / 2) / 2, 0, at), (front + depth / 2, width, thick)))
        if chance(rng, 0.4):
            shape.add(
                "back",
                rods(
                    [(-depth / 2, -width / 2, z[0]), (-depth / 2, width / 2, z[0])],
                    [(-depth / 2, width / 2, z[-1]), (-depth / 2, -width / 2, z[-1])],
                    bar * 0.5,
                ),
            )
        return shape.mesh()
    for side in (-1, 1):
        shape.add("panel", box((0, side * (width - thick) / 2, foot + height / 2), (depth, thick, height)))
    inner = width - 2 * thick
    z = np.linspace(thick / 2, height - thick / 2, rows + 1) + foot
    if style != "cubes" and style != "chest" and rows > 2:
        z[1:-1] += rng.uniform(-0.05, 0.05, rows - 1)
    for at in z:
        shape.add("board", box((0, 0, at), (depth, inner, thick)))
    if style == "cubes":
        columns = max(2, int(round(width / (height / rows))))
        for y in np.linspace(-inner / 2, inner / 2, columns + 1)[1:-1]:
            shape.add("panel", box((0, y, foot + height / 2), (depth * 0.98, thick, height - 2 * thick)))
    if style == "chest" or chance(rng, 0.65):
        shape.add("back", box((-depth / 2 + 0.005, 0, foot + height / 2), (0.01, inner, height - thick)))
    closed = rows if style == "chest" else int(rng.integers(0, rows)) if chance(rng, 0.35) else 0
    halves = 2 if width > 0.9 and chance(rng, 0.5) else 1
    for row in range(closed):
        low, high = z[row] + thick / 2 + 0.004, z[row + 1] - thick / 2 - 0.004
        for i in range(halves):
            wide = inner / halves - 0.008
            y = ((i + 0.5) / halves - 0.5) * inner
            shape.add(
                "drawer", box((depth / 2 - depth * 0.25, y, (low + high) / 2), (depth * 0.5 + 0.016, wide, high - low))
            )
            shape.add("drawer", box((depth / 2 + 0.02, y, (low + high) / 2), (0.025, min(0.12, wide / 3), 0.015)))
    if foot:
        feet = np.array([(sx * (depth / 2 - 0.04), sy * (width / 2 - 0.04), 0.0) for sx in (-1, 1) for sy in (-1, 1)])
        shape.add("leg", rods(feet, feet + (0, 0, foot + 0.005), rng.uniform(0.012, 0.025), 0.025, pick(rng, 4, 8)))
    return shape.mesh()


MAKERS = {"table": table, "bed": bed, "shelf": shelf}
