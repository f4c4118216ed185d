# SPDX-License-Identifier: Apache-2.0
"""Bottles and cans."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.cups import handle
from foundry_core.data.procedural.primitives import (
    circle,
    lift,
    loft,
    moved,
    revolve,
    rods,
    rounded_rectangle,
    superellipsoid,
    torus,
    tube,
)


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
        shape.add("handle", handle(rng, radius, radius * 0.9, low, high, radius * 0.14))
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


MAKERS = {"bottle": bottle, "can": can}
