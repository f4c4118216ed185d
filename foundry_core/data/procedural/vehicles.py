# SPDX-License-Identifier: Apache-2.0
"""Cars, driving along +x."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.primitives import (
    box,
    rods,
    superellipsoid,
)


def wheels(shape: Assembly, axles, half_track: float, radius: float, width: float, twin: int = 0) -> None:
    """A wheel on both sides of every axle (x, ...), outer face at ``half_track``; the last ``twin`` axles are broad."""
    for index, x in enumerate(axles):
        broad = width * (1.9 if index >= len(axles) - twin else 1.0)
        for side in (-1, 1):
            inner, outer = side * (half_track - broad), side * half_track
            shape.add("wheel", rods((x, inner, radius), (x, outer, radius), radius, segments=16))
            shape.add(
                "wheel", rods((x, outer, radius), (x, outer + side * 0.015, radius), radius * 0.55, radius * 0.45, 10)
            )


def car(rng: np.random.Generator) -> LabeledMesh:
    """Saloons, hatchbacks, estates, SUVs, vans, coupes and small city cars."""
    shape = Assembly()
    style = pick(rng, "saloon", "saloon", "hatch", "hatch", "estate", "suv", "suv", "van", "coupe", "city")
    length = {
        "saloon": rng.uniform(4.4, 5.1),
        "hatch": rng.uniform(3.8, 4.4),
        "estate": rng.uniform(4.5, 5.0),
        "suv": rng.uniform(4.1, 5.0),
        "van": rng.uniform(4.4, 5.4),
        "coupe": rng.uniform(4.1, 4.7),
        "city": rng.uniform(2.7, 3.6),
    }[style]
    high = {
        "saloon": rng.uniform(1.4, 1.5),
        "hatch": rng.uniform(1.42, 1.56),
        "estate": rng.uniform(1.43, 1.55),
        "suv": rng.uniform(1.6, 1.85),
        "van": rng.uniform(1.75, 2.1),
        "coupe": rng.uniform(1.22, 1.38),
        "city": rng.uniform(1.45, 1.6),
    }[style]
    half = (rng.uniform(1.72, 1.95) if style != "city" else rng.uniform(1.5, 1.68)) / 2
    clear = rng.uniform(0.2, 0.28) if style in ("suv", "van") else rng.uniform(0.13, 0.2)
    belt = high * rng.uniform(0.58, 0.66)
    hood = belt * rng.uniform(0.86, 0.98)
    nose = hood * rng.uniform(0.72, 0.95)
    # stations from the rear (0) to the front (1): rear end, rear glass, roof, windscreen, bonnet, nose
    front_glass = {
        "van": rng.uniform(0.84, 0.9),
        "city": rng.uniform(0.78, 0.86),
        "coupe": rng.uniform(0.62, 0.68),
    }.get(style, rng.uniform(0.68, 0.75))
    rake = rng.uniform(0.08, 0.16)
    roof_front = front_glass - rake * (1.2 if style == "coupe" else 1.0)
    rear_glass, roof_rear = {
        "saloon": (rng.uniform(0.14, 0.2), rng.uniform(0.28, 0.36)),
        "coupe": (rng.uniform(0.06, 0.14), rng.uniform(0.32, 0.42)),
        "hatch": (rng.uniform(0.02, 0.05), rng.uniform(0.08, 0.2)),
        "suv": (rng.uniform(0.015, 0.04), rng.uniform(0.06, 0.14)),
        "city": (rng.uniform(0.015, 0.04), rng.uniform(0.06, 0.16)),
    }.get(style, (rng.uniform(0.01, 0.03), rng.uniform(0.03, 0.1)))
    deck = belt * rng.uniform(0.97, 1.06)
    crown = (roof_rear + roof_front) / 2
    stations = [  # x fraction, top, half width of the top over that of the body
        (0.0, deck * 0.9, 0.86, 0.93),
        (0.012, deck, 0.88, 0.96),
        (rear_glass, deck, 0.86, 1.0),
        (roof_rear, high * 0.975, 0.70, 1.0),
        (crown, high, 0.72, 1.0),
        (roof_front, high * 0.985, 0.70, 1.0),
        (front_glass, hood * 1.01, 0.84, 1.0),
        (0.93, (hood + nose) / 2, 0.84, 0.98),
        (0.985, nose * 0.96, 0.84, 0.9),
        (1.0, nose * 0.8, 0.84, 0.84),
    ]
    rings = []
    for fraction, top, narrow, plan in stations:
        w = half * plan
        x = (fraction - 0.5) * length
        line = min(belt, top * 0.99) if top < high * 0.9 else belt
        sill = clear + 0.12
        end = fraction in (0.0, 1.0)
        low = clear + (0.12 if end else 0.0)
        side = [
            (w * 0.86, low),
            (w * 0.985, max(sill, low + 0.03)),
            (w, line * 0.72),
            (w * 0.965, line * 0.985),
            (w * narrow, top - 0.012),
            (w * narrow * 0.8, top),
        ]
        outline = [*side, *[(-y, z) for y, z in side[::-1]]]
        rings.append([(x, y, z) for y, z in outline])
    blind = style == "van" and chance(rng, 0.4)  # a delivery van has no side glass in the rear

    def glass(row: int, edge: int) -> str | None:
        glazed = 2 <= row <= 5
        if glazed and edge in (3, 7):
            return "body" if blind and row in (2, 3) else "window"
        if row in (2, 5) and edge in (4, 5, 6):
            return "body" if blind and row == 2 else "window"
        if row in (3, 4) and edge in (4, 5, 6):
            return "roof"
        return None

    shape.add_loft(rings, ["body"] * (len(rings) - 1), ("body", "body"), glass)
    radius = rng.uniform(0.29, 0.34) + (0.05 if style == "suv" else 0.0) - (0.03 if style == "city" else 0.0)
    rear_axle, front_axle = rng.uniform(0.17, 0.22), rng.uniform(0.79, 0.84)
    wheels(
        shape, [(rear_axle - 0.5) * length, (front_axle - 0.5) * length], half * 1.01, radius, rng.uniform(0.18, 0.25)
    )
    if chance(rng, 0.8):
        x, z = (front_glass - 0.5) * length - 0.25, belt + 0.04
        for side in (-1, 1):
            shape.add("body", superellipsoid((x, side * (half + 0.08), z + 0.04), (0.1, 0.2, 0.14), 0.6, 0.6, 8, 4))
    if style in ("estate", "suv", "van") and chance(rng, 0.45):
        x0, x1 = (roof_rear - 0.48) * length, (roof_front - 0.52) * length
        sides = np.array([-1, 1])[:, None] * (0, half * 0.6, 0)
        shape.add("roof", rods(sides + (x0, 0, high + 0.03), sides + (x1, 0, high + 0.03), 0.02))
        if chance(rng, 0.3):
            shape.add("roof", superellipsoid(((x0 + x1) / 2, 0, high + 0.2), ((x1 - x0) * 0.8, half, 0.36), 0.4, 0.5))
    if style in ("saloon", "coupe", "hatch") and chance(rng, 0.2):
        x = -length / 2 + 0.12
        z = high * 0.97 if style == "hatch" else deck + 0.1
        shape.add("body", box((x + (0.25 if style == "hatch" else 0), 0, z), (0.25, half * 1.5, 0.03)))
        if style != "hatch":
            shape.add("body", *[box((x, s * half * 0.5, deck + 0.04), (0.1, 0.04, 0.12)) for s in (-1, 1)])
    return shape.mesh()


MAKERS = {"car": car}
