# SPDX-License-Identifier: Apache-2.0
"""Mugs and bowls, hollow and with a wall."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.primitives import (
    Solid,
    revolve,
    rods,
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


def handle(rng: np.random.Generator, x0: float, x1: float, low: float, high: float, thick: float) -> Solid:
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
    shape.add("handle", handle(rng, at_low, at_high, low, high, rng.uniform(0.0035, 0.007)))
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
    vertices, triangles = hollow(np.column_stack([outer, z]), wall, pick(rng, 24, 24, 24, 6, 8))
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
    wide, deep = np.abs(vertices[:, 0]).max(), np.abs(vertices[:, 1]).max()
    extra = pick(rng, "none", "none", "none", "lugs", "handle", "rim")
    if extra == "lugs":
        shape.add(
            "body", *[torus((s * wide, 0, height * 0.8), height * 0.2, wall, pick(rng, "y", "z"), 12) for s in (-1, 1)]
        )
    elif extra == "handle":  # a soup bowl or a small pan
        shape.add(
            "body",
            rods((wide * 0.95, 0, height * 0.9), (wide * rng.uniform(1.3, 1.9), 0, height), wall * 1.5, wall * 2.5),
        )
    elif extra == "rim" and abs(wide - deep) < 0.02 * wide:
        shape.add("body", torus((0, 0, height), (wide + deep) / 2, wall * 0.8, "z", 24))
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


MAKERS = {"mug": mug, "bowl": bowl}
