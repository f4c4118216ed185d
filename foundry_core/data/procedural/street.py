# SPDX-License-Identifier: Apache-2.0
"""Poles, traffic signs and traffic cones; a sign faces +x."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.primitives import (
    Solid,
    box,
    circle,
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
    tube,
)


def _signal(rng: np.random.Generator, lamps: int) -> list[Solid]:
    """A traffic signal about the origin, facing +x."""
    size = rng.uniform(0.2, 0.3)
    tall = lamps * size * 1.1 + 0.06
    solids = [rounded_box((0, 0, 0), (size * 0.7, size * 1.3, tall), 0.03, 0.02)]
    for i in range(lamps):
        z = (i - (lamps - 1) / 2) * size * 1.1
        solids.append(rods((size * 0.3, 0, z), (size * rng.uniform(0.6, 0.9), 0, z), size * 0.45, segments=12))
    return solids


def pole(rng: np.random.Generator) -> LabeledMesh:
    """Street lamps with one or two arms, lanterns, traffic signals, utility poles, flag posts and bollards."""
    shape = Assembly()
    style = pick(rng, "lamp", "lamp", "double", "lantern", "signal", "signal", "utility", "bollard", "plain")
    if style == "bollard":
        tall, radius = rng.uniform(0.75, 1.15), rng.uniform(0.035, 0.07)
        top = pick(
            rng,
            [(radius, tall), (0, tall)],
            [(radius, tall), (radius * 0.7, tall + radius * 0.6), (0, tall + radius * 0.9)],
            [(radius * 1.3, tall), (radius * 1.3, tall + 0.04), (0, tall + 0.05)],
        )
        shape.add(
            "stem",
            revolve([(0, 0), (radius * rng.uniform(1.0, 1.3), 0), (radius, tall * 0.6), *top], pick(rng, 14, 14, 4)),
        )
        if chance(rng, 0.5):
            foot = radius * rng.uniform(1.5, 2.2)
            shape.add(
                "base",
                revolve([(0, 0), (foot, 0), (foot * 0.9, 0.05), (radius, rng.uniform(0.06, 0.15)), (0, 0.15)], 14),
            )
        return shape.mesh()
    tall = {
        "lantern": rng.uniform(2.8, 4.5),
        "signal": rng.uniform(2.6, 4.5),
        "utility": rng.uniform(6, 9),
        "plain": rng.uniform(2.5, 7),
    }.get(style, rng.uniform(4.5, 9))
    radius = rng.uniform(0.045, 0.09) + (0.05 if style == "utility" else 0.0)
    sides = pick(rng, 12, 12, 8)
    shape.add("stem", rods((0, 0, 0), (0, 0, tall), radius, radius * rng.uniform(0.45, 1.0), sides))
    if chance(rng, 0.55) and style != "utility":
        foot, rise = radius * rng.uniform(1.5, 2.6), rng.uniform(0.1, 1.0)
        if chance(rng, 0.3):
            shape.add("base", box((0, 0, rise * 0.2), (foot * 2, foot * 2, rise * 0.4)))
        else:
            shape.add("base", revolve([(0, 0), (foot, 0), (foot * 0.95, rise * 0.7), (radius, rise), (0, rise)], 12))
    thin = radius * 0.45
    if style in ("lamp", "double"):
        reach, lift_by, curved = rng.uniform(0.5, 2.2), rng.uniform(0.0, 0.9), chance(rng, 0.5)
        size = (rng.uniform(0.4, 0.8), rng.uniform(0.18, 0.32), rng.uniform(0.08, 0.16))
        for side in (1,) if style == "lamp" else (-1, 1):
            t = np.linspace(0, 1, 7 if curved else 2)
            z = tall - 0.03 + lift_by * (np.sin(t * np.pi / 2) if curved else t)
            path = np.column_stack([side * t * reach, np.zeros(len(t)), z])
            shape.add("arm", tube(path, thin))
            head = path[-1] + (side * size[0] * 0.4, 0, 0)
            shape.add(
                "light",
                superellipsoid(head, size, 0.7, 0.6) if chance(rng, 0.6) else rounded_box(head, size, 0.04, 0.02),
            )
    elif style == "lantern":
        wide, high = rng.uniform(0.16, 0.28), rng.uniform(0.35, 0.6)
        form = pick(rng, "globe", "box", "disc")
        if form == "globe":
            shape.add("light", superellipsoid((0, 0, tall + wide * 0.9), (2 * wide, 2 * wide, 2 * wide)))
        elif form == "box":
            shape.add(
                "light",
                moved(
                    revolve(
                        [
                            (0, 0),
                            (wide * 0.6, 0),
                            (wide, high * 0.7),
                            (wide * 1.15, high * 0.7),
                            (wide * 0.2, high),
                            (0, high),
                        ],
                        pick(rng, 4, 6),
                    ),
                    0,
                    0,
                    tall - 0.02,
                ),
            )
        else:
            shape.add(
                "light",
                moved(
                    revolve(
                        [(0, 0), (wide, 0.02), (wide * 1.3, high * 0.3), (wide * 0.6, high * 0.45), (0, high * 0.5)], 16
                    ),
                    0,
                    0,
                    tall - 0.02,
                ),
            )
    elif style == "signal":
        heads = int(rng.integers(1, 4))
        for i in range(heads):
            lamps = pick(rng, 3, 3, 3, 2)
            turn = i * np.pi / 2 * pick(rng, 1, 2)
            z = tall - lamps * 0.14 - 0.05 if i < 2 else tall * 0.6
            for solid in _signal(rng, lamps):
                shape.add("light", rotated(moved(solid, radius + 0.12, 0, z), "z", turn))
            shape.add("arm", rotated(rods((0, 0, z), (radius + 0.1, 0, z), 0.025), "z", turn))
        if chance(rng, 0.3):  # a gantry over the lane
            reach = rng.uniform(2.0, 4.0)
            shape.add("arm", rods((0, 0, tall - 0.1), (0, reach, tall + 0.2), thin * 1.6, thin))
            for solid in _signal(rng, 3):
                shape.add("light", moved(solid, 0.15, reach * 0.95, tall))
    elif style == "utility":
        for i in range(int(rng.integers(1, 4))):
            z, half = tall - 0.3 - i * 0.7, rng.uniform(0.6, 1.3)
            shape.add("arm", box((0.1, 0, z), (0.1, 2 * half, 0.12)))
            pins = np.array([(0.1, y, z) for y in np.linspace(-half + 0.1, half - 0.1, 4)])
            shape.add("arm", rods(pins, pins + (0, 0, 0.22), 0.035))
        if chance(rng, 0.3):
            shape.add("arm", rods((0.28, 0, tall * 0.7), (0.28, 0, tall * 0.7 + 0.8), 0.22, segments=12))
    elif chance(rng, 0.5):
        shape.add("stem", superellipsoid((0, 0, tall), (radius * 2.6, radius * 2.6, radius * 2.6)))
    return shape.mesh()


def _plate(rng: np.random.Generator) -> tuple[Solid, float]:
    """A sign plate about the origin facing +x, and its height."""
    size, thick = rng.uniform(0.45, 0.9), rng.uniform(0.008, 0.03)
    form = pick(rng, "round", "round", "triangle", "give_way", "octagon", "square", "diamond", "wide", "tall")
    # outlines lie in (x, y); turned below so that +x becomes up and the plate looks along +x
    if form in ("wide", "tall", "square"):
        ratio = {"wide": rng.uniform(0.3, 0.75), "tall": rng.uniform(1.2, 1.8), "square": 1.0}[form]
        outline = rounded_rectangle(size * ratio, size, rng.uniform(0, 0.06))
    else:
        sides, phase = {
            "round": (24, 0.0),
            "triangle": (3, 0.0),
            "give_way": (3, np.pi),
            "octagon": (8, np.pi / 8),
            "diamond": (4, 0.0),
        }[form]
        outline = circle(sides, phase) * size / 2 * (1.2 if sides == 3 else 1.0)
    solid = rotated(extrude(outline, -thick / 2, thick / 2), "y", np.pi / 2)
    # a turn about y by 90 degrees sends the outline's x to -z: mirror it back with half a turn about x
    solid = rotated(solid, "x", np.pi)
    return solid, float(np.ptp(solid[0][:, 2]))


def sign(rng: np.random.Generator) -> LabeledMesh:
    """Traffic signs: one to three plates of the usual outlines on one or two posts."""
    shape = Assembly()
    radius = rng.uniform(0.022, 0.045)
    if chance(rng, 0.12):  # a direction board on two posts
        width, tall, clear = rng.uniform(1.2, 2.4), rng.uniform(0.6, 1.3), rng.uniform(1.2, 2.2)
        shape.add(
            "plate",
            rotated(
                moved(extrude(rounded_rectangle(tall, width, 0.05), -0.015, 0.015), 0, 0, radius + 0.015),
                "y",
                np.pi / 2,
                (0, 0, 0),
            ),
        )
        posts = np.array([(0.0, s * width * 0.35, -clear - tall / 2) for s in (-1, 1)])
        shape.add("stem", rods(posts, posts + (0, 0, clear + tall), radius, segments=8))
        return shape.mesh()
    plates = [_plate(rng) for _ in range(pick(rng, 1, 1, 1, 2, 2, 3))]
    z = rng.uniform(1.2, 2.3)
    for solid, tall in plates:
        level = z + tall / 2 - (solid[0][:, 2].max() + solid[0][:, 2].min()) / 2
        shape.add("plate", moved(solid, radius + 0.012, 0, level))
        if chance(rng, 0.15):  # a second one looks the other way
            shape.add("plate", moved(rotated(solid, "z", np.pi), -radius - 0.012, 0, level))
        z += tall + 0.03
    top = z - 0.03 + rng.uniform(-0.1, 0.15)
    shape.add("stem", rods((0, 0, 0), (0, 0, top), radius, segments=pick(rng, 10, 10, 4)))
    if chance(rng, 0.4):
        foot = rng.uniform(0.15, 0.3)
        if chance(rng, 0.5):
            shape.add("base", box((0, 0, 0.05), (foot * 1.6, foot * 2, 0.1)))
        else:
            shape.add("base", revolve([(0, 0), (foot, 0), (foot * 0.8, 0.06), (radius, 0.1), (0, 0.1)], 14))
    return shape.mesh()


def cone(rng: np.random.Generator) -> LabeledMesh:
    """Traffic cones and slim delineators on square, eight-sided or round feet."""
    shape = Assembly()
    tall = rng.uniform(0.3, 0.95)
    slim = chance(rng, 0.2)
    radius = tall * (rng.uniform(0.1, 0.14) if slim else rng.uniform(0.17, 0.25))
    tip = radius * (rng.uniform(0.45, 0.7) if slim else rng.uniform(0.12, 0.3))
    thick, foot = tall * rng.uniform(0.03, 0.08), radius * rng.uniform(1.25, 1.6)
    form = pick(rng, "square", "square", "octagon", "round")
    outline = (
        rounded_rectangle(2 * foot, 2 * foot, foot * rng.uniform(0.05, 0.4))
        if form == "square"
        else circle(8 if form == "octagon" else 20) * foot * 1.05
    )
    shape.add("base", extrude(outline, 0, thick, thick * rng.uniform(0, 0.3)))
    profile = [(radius, thick), (tip, tall)]
    if chance(rng, 0.4):  # a collar at the foot
        profile = [(radius * 1.08, thick), (radius * 1.08, thick * 1.8), (radius * 0.95, thick * 2), (tip, tall)]
    if chance(rng, 0.5):  # open above
        shape.add("body", revolve([*profile, (tip * 0.75, tall), (tip * 0.75, tall * 0.9), (0, tall * 0.9)], 20))
    else:
        shape.add("body", revolve([*profile, (0, tall + tip * rng.uniform(0, 1.0))], 20))
    if chance(rng, 0.3):  # a sleeve that reflects
        low = rng.uniform(0.4, 0.6)
        z = np.array([low, low + rng.uniform(0.15, 0.3)]) * tall
        r = np.interp(z, (thick, tall), (radius, tip)) + 0.004
        shape.add("body", loft([lift(circle(20), at, s) for at, s in zip(z, r, strict=True)], (False, False)))
    if slim and chance(rng, 0.5):
        shape.add("body", superellipsoid((0, 0, tall), (tip * 2.6, tip * 2.6, tip * 2.0)))
    return shape.mesh()


MAKERS = {"pole": pole, "sign": sign, "cone": cone}
