# SPDX-License-Identifier: Apache-2.0
"""Mugs, bottles, bowls and cans: hollow where they are open, solid where they are shut."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.primitives import (
    Assembly,
    Solid,
    chance,
    circle,
    lift,
    loft,
    moved,
    pick,
    revolve,
    rods,
    rounded_rectangle,
    superellipsoid,
    torus,
    tube,
)


def hollow(profile, wall: float, segments: int = 20) -> Solid:
    """A cup: outer profile points (radius, z) from the floor to the rim, thickened inwards; its floor is as thick."""
    profile = np.asarray(profile, np.float64)
    inner = np.column_stack([np.maximum(profile[:, 0] - wall, wall), np.maximum(profile[:, 1], profile[0, 1] + wall)])[
        ::-1
    ]
    keep = np.append(np.abs(np.diff(inner, axis=0)).sum(axis=1) > 1e-6, True)  # points that the floor made equal
    return revolve([(0, profile[0, 1]), *profile, *inner[keep], (0, profile[0, 1] + wall)], segments)


def _handle(rng: np.random.Generator, x0: float, x1: float, low: float, high: float, thick: float) -> Solid:
    """A loop in the plane y=0 from (x0, low) to (x1, high), bulging towards +x."""
    style = pick(rng, "round", "round", "square", "ear")
    reach = (high - low) * rng.uniform(0.4, 0.75)
    if style == "square":
        points = [
            (x0 - thick, low),
            (x0 + reach * 0.8, low),
            (x0 + reach, low + thick),
            (x1 + reach, high - thick),
            (x1 + reach * 0.8, high),
            (x1 - thick, high),
        ]
    else:
        t = np.linspace(-np.pi / 2, np.pi / 2, 11)
        shift = 0.0 if style == "round" else 0.35
        out = np.cos(t) * reach * (1 + shift * np.sin(t))
        points = np.column_stack(
            [x0 + (x1 - x0) * (np.sin(t) + 1) / 2 + out, (low + high) / 2 + np.sin(t) * (high - low) / 2]
        )
        points = np.concatenate([[(x0 - thick, low)], points, [(x1 - thick, high)]])
    path = np.array([(x, 0.0, z) for x, z in points])
    return tube(path, thick, segments=6)


def mug(rng: np.random.Generator) -> LabeledMesh:
    """Mugs, cups, tankards and travel mugs, the handle at +x."""
    shape = Assembly()
    height, radius = rng.uniform(0.06, 0.13), rng.uniform(0.032, 0.05)
    if chance(rng, 0.2):
        height, radius = rng.uniform(0.05, 0.075), rng.uniform(0.038, 0.055)
    z = np.linspace(0, 1, 6)
    style = pick(rng, "straight", "straight", "taper", "flare", "barrel", "waist", "round")
    factor = {
        "straight": np.ones(6),
        "taper": 1 + rng.uniform(0.05, 0.3) * (z - 1),
        "flare": 1 - rng.uniform(0.1, 0.3) * (1 - z) ** 2,
        "barrel": 1 + rng.uniform(0.1, 0.3) * np.sin(np.pi * z),
        "waist": 1 - rng.uniform(0.05, 0.2) * np.sin(np.pi * z),
        "round": np.sqrt(np.clip(1 - (0.85 * (1 - z)) ** 2, 0.2, 1)),
    }[style]
    outer = radius * factor
    wall = rng.uniform(0.0025, 0.005)
    shape.add("body", hollow(np.column_stack([outer, z * height]), wall, pick(rng, 20, 20, 24, 8)))
    low, high = height * rng.uniform(0.12, 0.3), height * rng.uniform(0.7, 0.9)
    at_low, at_high = np.interp([low, high], z * height, outer)
    shape.add("handle", _handle(rng, at_low, at_high, low, high, rng.uniform(0.0035, 0.007)))
    if chance(rng, 0.12):
        rim = outer[-1] * 1.04
        shape.add(
            "lid",
            revolve(
                [
                    (0, height - 0.002),
                    (rim, height - 0.002),
                    (rim, height + 0.008),
                    (rim * 0.8, height + 0.014),
                    (0, height + 0.014),
                ],
                20,
            ),
        )
    return shape.mesh()


def bottle(rng: np.random.Generator) -> LabeledMesh:
    """Wine, water, flask and detergent bottles, round, square or flat, shut or open."""
    shape = Assembly()
    style = pick(rng, "wine", "water", "water", "flask", "square", "jug", "sauce")
    radius = rng.uniform(0.03, 0.05)
    height = radius * {"wine": rng.uniform(7, 9), "water": rng.uniform(5.5, 8), "flask": rng.uniform(5, 7)}.get(
        style, rng.uniform(4, 6.5)
    )
    shoulder = height * {"wine": rng.uniform(0.55, 0.68), "sauce": rng.uniform(0.6, 0.75)}.get(
        style, rng.uniform(0.66, 0.82)
    )
    neck = radius * {
        "flask": rng.uniform(0.6, 0.85),
        "wine": rng.uniform(0.3, 0.42),
        "sauce": rng.uniform(0.2, 0.4),
    }.get(style, rng.uniform(0.28, 0.5))
    neck_z = shoulder + (height * 0.88 - shoulder) * rng.uniform(0.35, 0.85)
    rim = height * rng.uniform(0.92, 0.97)
    if style in ("square", "jug"):
        radius *= 1.25
        outline = rounded_rectangle(2 * radius, 2 * radius * rng.uniform(0.55, 1.0), radius * rng.uniform(0.25, 0.5), 4)
        segments = len(outline)
    else:
        segments = 20
        outline = circle(segments) * radius
    rings = [lift(outline, 0.0, 0.93), lift(outline, height * 0.02)]
    waist = rng.uniform(0.8, 1.0) if style == "water" and chance(rng, 0.6) else 1.0
    ribs = style == "water" and chance(rng, 0.4)
    for t in np.linspace(0.15, 0.85, 8 if ribs else 3):
        scale = 1 - (1 - waist) * np.sin(np.pi * t)
        scale -= 0.04 * (int(t * 100) % 2) if ribs else 0.0
        rings.append(lift(outline, height * 0.02 + (shoulder - height * 0.02) * t, scale))
    for t in np.linspace(0, 1, 6):  # the shoulder eases from the body's outline into the neck's circle
        ease = (1 - np.cos(np.pi * t)) / 2 if style != "flask" else t
        angle = np.arctan2(outline[:, 1], outline[:, 0])
        round_neck = np.column_stack([np.cos(angle), np.sin(angle)]) * neck
        rings.append(lift(outline * (1 - ease) + round_neck * ease, shoulder + (neck_z - shoulder) * t))
    shape.add("body", loft(rings, (True, False)))
    wall = neck * 0.12
    capped = chance(rng, 0.65)
    profile = [(neck, neck_z), (neck, rim - neck * 0.3), (neck * 1.1, rim - neck * 0.3), (neck * 1.1, rim)]
    if capped:
        shape.add("neck", revolve([*profile, (0, rim)], 16))
        cap, top = neck * rng.uniform(1.12, 1.4), rim + height * rng.uniform(0.02, 0.08)
        if style == "jug" and chance(rng, 0.5) or chance(rng, 0.08):  # a trigger or a pump
            shape.add("cap", revolve([(0, rim - 0.01), (cap, rim - 0.01), (cap, rim + 0.015), (0, rim + 0.015)], 16))
            shape.add("cap", rods((0, 0, rim), (0, 0, rim + 0.05), neck * 0.35))
            shape.add("cap", rods((-neck, 0, rim + 0.05), (neck * 3, 0, rim + 0.045), neck * 0.45, neck * 0.3))
        else:
            low = rim - neck * rng.uniform(0.4, 1.2)
            shape.add("cap", revolve([(0, low), (cap, low), (cap * rng.uniform(0.6, 1.0), top), (0, top)], 16))
    else:
        inside = neck_z + (rim - neck_z) * 0.1
        shape.add("neck", revolve([*profile, (neck - wall, rim), (neck - wall, inside), (0, inside)], 16))
    if style == "jug" and chance(rng, 0.75):
        low, high = height * rng.uniform(0.25, 0.4), shoulder + (neck_z - shoulder) * 0.3
        shape.add("handle", _handle(rng, radius, radius * 0.9, low, high, radius * 0.14))
    return shape.mesh()


def bowl(rng: np.random.Generator) -> LabeledMesh:
    """Shallow to deep bowls with plain, flared, fluted or square rims, with or without a foot."""
    shape = Assembly()
    radius = rng.uniform(0.055, 0.17)
    height = radius * rng.uniform(0.4, 1.0)
    foot = radius * rng.uniform(0.25, 0.5)
    rise = rng.uniform(0.01, 0.15) * height if chance(rng, 0.6) else 0.0
    t = np.linspace(0, 1, 8)
    style = pick(rng, "round", "round", "cone", "flare", "tub")
    power = {"round": 2.0, "cone": 1.1, "flare": 1.3, "tub": 4.0}[style] * rng.uniform(0.9, 1.1)
    outer = foot + (radius - foot) * t ** (0.8 if style == "flare" else 1.0)
    z = rise + (height - rise) * t**power
    if style == "round":  # an arc from the foot to an upright rim
        a = np.linspace(0, np.pi / 2 * rng.uniform(0.75, 1.0), 8)
        outer = foot + (radius - foot) * np.sin(a) / np.sin(a[-1])
        z = rise + (height - rise) * (1 - np.cos(a)) / (1 - np.cos(a[-1]))
    if style == "flare":
        outer[-1] *= 1.08
    wall = rng.uniform(0.003, 0.007) * (radius / 0.1)
    vertices, triangles = hollow(np.column_stack([outer, z]), wall, 24)
    if chance(rng, 0.2):  # flutes
        angle = np.arctan2(vertices[:, 1], vertices[:, 0])
        scale = 1 + rng.uniform(0.02, 0.06) * np.cos(angle * int(rng.integers(5, 13))) * (vertices[:, 2] / height)
        vertices = vertices * np.column_stack([scale, scale, np.ones_like(scale)])
    elif chance(rng, 0.2):  # a rounded square, or an oval
        angle = np.arctan2(vertices[:, 1], vertices[:, 0])
        if chance(rng, 0.5):
            scale = 1 / (np.abs(np.cos(angle)) ** 4 + np.abs(np.sin(angle)) ** 4) ** 0.25
            vertices = vertices * np.column_stack([scale, scale, np.ones_like(scale)])
        else:
            vertices = vertices * (rng.uniform(1.1, 1.5), 1.0, 1.0)
    shape.add("body", (vertices, triangles))
    if rise:
        width = foot * rng.uniform(0.8, 1.0)
        shape.add(
            "base",
            revolve(
                [(width * 0.8, 0), (width, 0), (width, rise + wall * 0.5), (width * 0.8, rise + wall * 0.5)],
                20,
                closed=True,
            ),
        )
    return shape.mesh()


def can(rng: np.random.Generator) -> LabeledMesh:
    """Drink cans, tins, spray cans and paint cans."""
    shape = Assembly()
    style = pick(rng, "drink", "drink", "tin", "tin", "spray", "paint")
    if style == "drink":
        radius = rng.uniform(0.026, 0.034)
        height = rng.uniform(0.11, 0.17)
        inset = radius * rng.uniform(0.75, 0.88)
        profile = [
            (0, 0.006),
            (inset * 0.85, 0),
            (inset, 0),
            (radius, 0.01),
            (radius, height - 0.014),
            (inset, height - 0.002),
            (inset, height),
        ]
        shape.add("body", revolve(profile, 24))
        shape.add(
            "lid",
            revolve([(inset, height), (inset * 0.93, height), (inset * 0.9, height - 0.004), (0, height - 0.004)], 24),
        )
        shape.add(
            "lid",
            moved(superellipsoid((0, 0, 0), (0.024, 0.014, 0.002), 0.3, 0.8, 10, 4), inset * 0.2, 0, height - 0.0025),
        )
    elif style == "tin":
        radius = rng.uniform(0.033, 0.055)
        height = radius * rng.uniform(0.9, 3.0)
        ribs = int(rng.integers(0, 9))
        rows = [(radius - 0.0015 * (i % 2), height * (0.2 + 0.6 * i / max(ribs - 1, 1))) for i in range(ribs)]
        body = [
            (0, 0.002),
            (radius * 0.93, 0.002),
            (radius * 0.95, 0),
            (radius * 1.02, 0),
            (radius * 1.02, 0.003),
            (radius, 0.005),
        ]
        shape.add(
            "body",
            revolve(
                [
                    *body,
                    *rows,
                    (radius, height - 0.005),
                    (radius * 1.02, height - 0.003),
                    (radius * 1.02, height),
                    (radius * 0.95, height),
                ],
                24,
            ),
        )
        shape.add("lid", revolve([(radius * 0.95, height), (radius * 0.94, height - 0.003), (0, height - 0.003)], 24))
        if chance(rng, 0.4):  # a pull ring
            shape.add("lid", torus((radius * 0.35, 0, height - 0.001), radius * 0.22, 0.0012, "z", 12, 4))
    elif style == "spray":
        radius = rng.uniform(0.02, 0.034)
        height = radius * rng.uniform(4.0, 6.0)
        shoulder = height * rng.uniform(0.78, 0.86)
        shape.add(
            "body",
            revolve(
                [
                    (0, 0.004),
                    (radius * 0.9, 0),
                    (radius, 0.004),
                    (radius, shoulder),
                    (radius * 0.7, shoulder + radius * 0.4),
                    (0, shoulder + radius * 0.4),
                ],
                20,
            ),
        )
        if chance(rng, 0.6):
            wide = radius * rng.uniform(0.8, 0.98)
            shape.add("cap", revolve([(wide, shoulder), (wide, height * 0.98), (wide * 0.85, height), (0, height)], 20))
        else:
            low = shoulder + radius * 0.4
            shape.add(
                "cap",
                revolve(
                    [
                        (radius * 0.25, low),
                        (radius * 0.25, height * 0.93),
                        (radius * 0.3, height * 0.93),
                        (radius * 0.3, height),
                        (0, height),
                    ],
                    12,
                ),
            )
    else:
        radius = rng.uniform(0.07, 0.11)
        height = radius * rng.uniform(1.7, 2.3)
        shape.add(
            "body",
            revolve(
                [
                    (0, 0.003),
                    (radius * 0.97, 0),
                    (radius, 0.003),
                    (radius, height - 0.006),
                    (radius * 1.03, height - 0.006),
                    (radius * 1.03, height),
                    (radius * 0.85, height),
                ],
                24,
            ),
        )
        shape.add("lid", revolve([(radius * 0.85, height), (radius * 0.84, height - 0.005), (0, height - 0.005)], 24))
        t = np.linspace(0, np.pi, 13)
        drop = rng.uniform(-0.8, 1.0)  # the hoop hangs to the side or stands up
        path = np.column_stack(
            [
                np.sin(t) * radius * 1.15 * np.sqrt(max(0.0, 1 - drop**2)),
                np.cos(t) * radius * 1.06,
                height * 0.85 + np.sin(t) * radius * 1.15 * drop,
            ]
        )
        normal = (-drop, 0.0, np.sqrt(max(0.0, 1 - drop**2)))
        if drop < 0.55 and drop > -0.2 or drop >= 0.55:
            shape.add("handle", tube(path, 0.0022, normal, 5))
    return shape.mesh()


MAKERS = {"mug": mug, "bottle": bottle, "bowl": bowl, "can": can}
