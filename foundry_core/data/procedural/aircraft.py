# SPDX-License-Identifier: Apache-2.0
"""Aeroplanes, flying along +x."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.primitives import Solid, along, circle, loft, revolve, rods, superellipsoid

_FOIL = np.array(
    [(1.0, 0.0), (0.75, 0.5), (0.3, 0.35), (0.0, 0.05), (0.0, -0.05), (0.3, -0.3), (0.75, -0.4)]
)  # leading edge at 1


def _airfoil(root, tip, root_chord: float, tip_chord: float, thick: float, upright: bool = False) -> Solid:
    """A wing panel between the leading-edge points ``root`` and ``tip``; thickness along z, or along y when upright."""
    rings = []
    for point, chord in ((root, root_chord), (tip, tip_chord)):
        x, t = (_FOIL[:, 0] - 1.0) * chord, _FOIL[:, 1] * thick * chord
        flat = np.zeros_like(x)
        rings.append(np.asarray(point, np.float64) + np.column_stack([x, t, flat] if upright else [x, flat, t]))
    if (rings[1][:, 1].mean() > rings[0][:, 1].mean()) and not upright:
        rings = [ring[::-1] for ring in rings]  # keep the winding outwards on the left side
    return loft(rings)


def plane(rng: np.random.Generator) -> LabeledMesh:
    """Airliners, business jets, light propeller planes, gliders, biplanes and fighters."""
    shape = Assembly()
    style = pick(rng, "airliner", "airliner", "jet", "light", "light", "glider", "biplane", "fighter")
    length = {"airliner": rng.uniform(25, 45), "jet": rng.uniform(12, 20), "fighter": rng.uniform(13, 19)}.get(
        style, rng.uniform(6, 9)
    )
    fat = {
        "airliner": rng.uniform(0.045, 0.06),
        "jet": rng.uniform(0.045, 0.06),
        "glider": rng.uniform(0.045, 0.055),
        "fighter": rng.uniform(0.045, 0.06),
    }.get(style, rng.uniform(0.07, 0.09))
    radius = length * fat
    nose, tail_rise = rng.uniform(0.1, 0.25), rng.uniform(0.2, 0.7)
    t = np.array([0.0, 0.03, 0.1, nose, 0.5, rng.uniform(0.55, 0.7), 0.85, 1.0])  # from the tail (reversed below)
    width = np.array([0.12, 0.5, 0.8, 1.0, 1.0, 1.0, 0.55, rng.uniform(0.08, 0.2)])
    if style == "glider":
        width[5:] = (0.7, 0.3, 0.15)
    ring = circle(14)
    rings = []
    for fraction, w in zip(t[::-1], width[::-1], strict=True):
        rise = radius * tail_rise * max(0.0, fraction - 0.5) * 2 - radius * 0.3 * max(0.0, 0.1 - fraction) * 5
        rings.append(
            np.column_stack(
                [np.full(14, length * (0.5 - fraction)), ring[:, 0] * radius * w, ring[:, 1] * radius * w + rise]
            )
        )
    shape.add("body", loft(rings))
    span = length * {
        "airliner": rng.uniform(0.42, 0.52),
        "jet": rng.uniform(0.4, 0.5),
        "glider": rng.uniform(0.95, 1.25),
        "fighter": rng.uniform(0.28, 0.4),
    }.get(style, rng.uniform(0.55, 0.72))
    chord = length * {
        "airliner": rng.uniform(0.16, 0.22),
        "glider": rng.uniform(0.1, 0.13),
        "fighter": rng.uniform(0.36, 0.52),
    }.get(style, rng.uniform(0.17, 0.22))
    taper = {"airliner": rng.uniform(0.2, 0.35), "fighter": rng.uniform(0.05, 0.3), "jet": rng.uniform(0.25, 0.45)}.get(
        style, rng.uniform(0.6, 1.0)
    )
    sweep = {"airliner": rng.uniform(0.4, 0.6), "fighter": rng.uniform(0.75, 1.1), "jet": rng.uniform(0.25, 0.5)}.get(
        style, rng.uniform(-0.03, 0.08)
    )
    high = {"light": chance(rng, 0.6), "glider": True, "airliner": chance(rng, 0.12), "fighter": chance(rng, 0.5)}.get(
        style, False
    )
    lead = length * (rng.uniform(0.04, 0.12) + (0.08 if style == "fighter" else 0.0))
    dihedral, thick = rng.uniform(0.0, 0.12), rng.uniform(0.09, 0.13)
    levels = [radius * (0.75 if high else -0.6)]
    if style == "biplane":
        levels = [-radius * 0.7, radius * rng.uniform(1.4, 1.9)]
    for z in levels:
        for side in (-1, 1):
            tip = (
                lead - span * np.tan(sweep) * (1 if style != "fighter" else 0.9),
                side * span,
                z + span * np.tan(dihedral),
            )
            shape.add("wing", _airfoil((lead, 0, z), tip, chord, chord * taper, thick))
            if style in ("airliner", "jet") and chance(rng, 0.6):
                top = np.array(tip) + (-chord * taper * 0.8, side * 0.1, span * 0.1)
                shape.add("wing", _airfoil(tip, top, chord * taper, chord * taper * 0.4, 0.1, True))
    if style == "biplane":
        for side in (-1, 1):
            for x in (lead - chord * 0.2, lead - chord * 0.7):
                y = side * span * 0.65
                shape.add(
                    "wing",
                    rods(
                        (x, y, levels[0] + y * side * np.tan(dihedral)),
                        (x, y, levels[1] + y * side * np.tan(dihedral)),
                        radius * 0.05,
                    ),
                )
        shape.add(
            "wing",
            *[
                rods(
                    (lead - chord * 0.3, s * radius * 0.5, radius * 0.5),
                    (lead - chord * 0.3, s * radius * 0.8, levels[1]),
                    radius * 0.05,
                )
                for s in (-1, 1)
            ],
        )
    elif style == "light" and high:
        shape.add(
            "wing",
            *[
                rods(
                    (lead - chord * 0.3, s * radius * 0.8, -radius * 0.6),
                    (lead - chord * 0.3, s * span * 0.5, levels[0] + span * 0.5 * np.tan(dihedral)),
                    radius * 0.06,
                )
                for s in (-1, 1)
            ],
        )
    end = -length / 2
    fin, fin_chord = length * rng.uniform(0.13, 0.19), length * rng.uniform(0.12, 0.17)
    root_x = end + fin_chord * 1.1
    base_z = radius * tail_rise
    tee = style in ("glider", "jet") and chance(rng, 0.7)
    fin_sweep = fin * (0.7 if style in ("airliner", "jet", "fighter") else rng.uniform(0.1, 0.4))
    fins = (-radius * 0.9, radius * 0.9) if style == "fighter" and chance(rng, 0.5) else (0.0,)
    for y in fins:
        shape.add(
            "tail",
            _airfoil(
                (root_x, y, base_z),
                (root_x - fin_sweep, y * 1.5, base_z + fin),
                fin_chord,
                fin_chord * rng.uniform(0.4, 0.6),
                0.1,
                True,
            ),
        )
    stab = length * rng.uniform(0.14, 0.19)
    z, x = (
        (base_z + fin * 0.96, root_x - fin_sweep) if tee else (base_z * rng.uniform(0.6, 1.1), root_x - fin_chord * 0.1)
    )
    for side in (-1, 1):
        tip = (x - stab * np.tan(min(sweep, 0.6)), side * stab, z + stab * 0.03)
        shape.add("tail", _airfoil((x, 0, z), tip, fin_chord * 0.8, fin_chord * 0.4, 0.09))
    size = radius * rng.uniform(0.5, 0.65)
    nacelle = [
        (0, 0),
        (size * 0.4, 0),
        (size * 0.9, size * 1.2),
        (size, size * 2.4),
        (size * 0.9, size * 3.2),
        (size * 0.75, size * 3.2),
        (size * 0.7, size * 2.9),
        (0, size * 2.9),
    ]
    if style == "airliner" and chance(rng, 0.8):
        for share in (0.33,) if chance(rng, 0.75) else (0.3, 0.6):
            for side in (-1, 1):
                y, below = side * span * share, levels[0] + span * share * np.tan(dihedral) - size * 1.15
                start = np.array([lead - abs(y) * np.tan(sweep) - size * 1.6, y, below])
                shape.add("engine", along(revolve(nacelle, 14), start, start + (1, 0, 0)))
                shape.add(
                    "engine",
                    rods(start + (size, 0, size * 0.5), start + (size * 0.6, 0, size * 1.3), size * 0.25, segments=4),
                )
    elif style in ("airliner", "jet"):
        for side in (-1, 1):
            start = np.array([end + fin_chord * 1.5, side * (radius + size * 0.9), radius * 0.55])
            shape.add("engine", along(revolve(nacelle, 14), start, start + (1, 0, 0)))
            shape.add(
                "engine",
                rods(start + (size * 1.5, -side * size * 1.6, 0), start + (size * 1.5, 0, 0), size * 0.3, segments=4),
            )
    elif style in ("light", "biplane"):
        blades = int(rng.integers(2, 4))
        spin = circle(blades, float(rng.integers(12)) / 6) * length * rng.uniform(0.1, 0.13)
        nose_at = np.array([length / 2 + 0.02, 0.0, rings[-1][:, 2].mean()])
        tips = nose_at + np.column_stack([np.zeros(blades), spin])
        shape.add(
            "engine",
            superellipsoid(nose_at, (radius * 0.8, radius * 0.4, radius * 0.4)),
            rods(np.tile(nose_at, (blades, 1)), tips, 0.06, 0.035, 4),
        )
    elif style == "fighter":
        for y in (-0.5, 0.5) if chance(rng, 0.5) else (0.0,):
            start = np.array([end + radius * 0.8, y * radius * 1.3, base_z * 0.6])
            shape.add(
                "engine",
                along(
                    revolve(
                        [
                            (0, 0.1),
                            (radius * 0.45, 0.1),
                            (radius * 0.5, 0),
                            (radius * 0.62, radius * 1.6),
                            (0, radius * 1.6),
                        ],
                        14,
                    ),
                    start,
                    start - (1, 0, 0),
                ),
            )
    bump = length * (0.5 - nose)
    if style in ("light", "glider", "fighter", "biplane"):
        shape.add("body", superellipsoid((bump, 0, radius * 0.85), (length * 0.2, radius * 1.2, radius * 0.9)))
    if chance(rng, 0.6):  # the undercarriage is down
        tire = radius * 0.28 if style in ("airliner", "jet", "fighter") else radius * 0.4
        ground = -radius * (1.5 if style in ("airliner", "jet") else 1.8)
        spots = [(length * 0.36, 0.0)] if style != "biplane" else [(end + 0.4, 0.0)]
        spots += (
            [(-0.01 * length, s * radius * 1.4) for s in (-1, 1)]
            if style != "biplane"
            else [(lead, s * radius * 1.2) for s in (-1, 1)]
        )
        for x, y in spots:
            hub = np.array([x, y, ground])
            top = 0.3 * radius if (style == "biplane" and x < 0) else -radius * 0.5
            shape.add(
                "wheel",
                rods(hub - (0, tire * 0.4, 0), hub + (0, tire * 0.4, 0), tire, segments=12),
                rods(hub, (x, y * 0.6, top), tire * 0.22),
            )
    return shape.mesh()


MAKERS = {"plane": plane}
