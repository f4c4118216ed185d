# SPDX-License-Identifier: Apache-2.0
"""Trees with closed crowns, crowns of separate leaves, or none."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.primitives import (
    blob,
    leaves,
    moved,
    revolve,
    rods,
)


def _branches(rng: np.random.Generator, bottom: np.ndarray, top: np.ndarray, count: int, reach: float, first: float):
    """Starts and ends [count,3] of branches that leave the trunk above the fraction ``first`` of its height."""
    at = rng.uniform(first, 1.0, count)[:, None]
    angle, rise = rng.uniform(0, 6.283, count), rng.uniform(0.1, 1.1, count)
    out = np.column_stack([np.cos(angle) * np.cos(rise), np.sin(angle) * np.cos(rise), np.sin(rise)])
    starts = bottom + (top - bottom) * at
    return starts, starts + out * reach * rng.uniform(0.5, 1.0, (count, 1)) * (1.2 - 0.6 * at)


def tree(rng: np.random.Generator) -> LabeledMesh:
    """Broad-leaved trees, conifers, poplars, palms, shrubs with a trunk and bare trees in winter."""
    shape = Assembly()
    style = pick(rng, "broad", "broad", "broad", "conifer", "conifer", "column", "palm", "bare")
    tall = rng.uniform(2.5, 9.0)
    thick = tall * rng.uniform(0.012, 0.03) + 0.03
    clear = tall * {
        "broad": rng.uniform(0.18, 0.45),
        "conifer": rng.uniform(0.04, 0.2),
        "column": rng.uniform(0.08, 0.25),
    }.get(style, 0.4)
    bottom, top = np.zeros(3), np.array([*rng.normal(0, 0.02, 2) * tall, tall * 0.8])
    leafy = chance(rng, 0.45)  # a crown of separate leaves instead of closed surfaces
    if style == "conifer":
        top[2] = tall * 0.95
    elif style in ("broad", "column") and not leafy:
        top[2] = (tall + clear) / 2  # the trunk ends inside the crown
    shape.add("trunk", rods(bottom, top, thick, thick * 0.35, 8))
    if chance(rng, 0.5):
        shape.add("trunk", revolve([(thick * 1.7, 0), (thick * 1.15, thick * 1.2), (thick, thick * 3)], 8))
    spread = (tall - clear) * rng.uniform(0.28, 0.48)
    if style in ("broad", "bare"):
        inside = 1.0 if leafy or style == "bare" else 0.55  # closed crowns hide their branches
        starts, ends = _branches(rng, bottom, top, int(rng.integers(5, 12)), spread * inside, clear / tall)
        shape.add("trunk", rods(starts, ends, thick * 0.4, thick * 0.12, 5))
    if style == "bare":
        for reach, width in ((0.7, 0.16), (0.45, 0.08)):
            count = 3 * len(ends)
            twigs = np.repeat(ends, 3, axis=0)
            direction = rng.normal(0, 1, (count, 3)) + (0, 0, 0.6)
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            ends = twigs + direction * spread * reach * rng.uniform(0.4, 1.0, (count, 1))
            shape.add("trunk", rods(twigs, ends, thick * width, thick * width * 0.5, 3))
    elif style == "broad":
        crown = (tall + clear) / 2
        if leafy:
            count = int(rng.integers(150, 500))
            direction = rng.normal(0, 1, (count, 3))
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            at = direction * rng.uniform(0.3, 1.0, (count, 1)) ** 0.5 * (spread, spread, (tall - clear) / 2) + (
                0,
                0,
                crown,
            )
            shape.add(
                "foliage",
                leaves(
                    at, rng.normal(0, 1, (count, 3)), rng.uniform(0.15, 0.4, count) * spread**0.5, 0.2 * spread**0.5
                ),
            )
        else:
            size = (
                spread * rng.uniform(1.4, 2.0),
                spread * rng.uniform(1.4, 2.0),
                (tall - clear) * rng.uniform(0.75, 1.0),
            )
            shape.add("foliage", blob(rng, (0, 0, crown), size, rng.uniform(0.1, 0.2), 12, 8))
            for _ in range(int(rng.integers(0, 6))):
                middle = rng.normal(0, 0.33, 3) * (spread, spread, (tall - clear) * 0.35) + (0, 0, crown)
                shape.add(
                    "foliage", blob(rng, middle, rng.uniform(0.9, 1.7, 3) * spread, rng.uniform(0.1, 0.25), 12, 8)
                )
    elif style == "column":
        size = (spread * 0.8, spread * 0.8, tall - clear)
        shape.add("foliage", blob(rng, (0, 0, (tall + clear) / 2), size, rng.uniform(0.08, 0.2), 12, 12))
    elif style == "palm":
        count = int(rng.integers(8, 18))
        angle, rise = rng.uniform(0, 6.283, count), rng.uniform(-0.2, 1.0, count)
        start, length = np.tile(top, (count, 1)), tall * rng.uniform(0.14, 0.22)
        for _ in range(3):  # three segments that droop
            direction = np.column_stack([np.cos(angle) * np.cos(rise), np.sin(angle) * np.cos(rise), np.sin(rise)])
            shape.add("foliage", leaves(start, direction, length * 1.3, length * 0.35))
            start, rise = start + direction * length * 0.8, rise - rng.uniform(0.4, 0.7)
    else:
        tiers, reach = int(rng.integers(3, 8)), (tall - clear) * rng.uniform(0.18, 0.34)
        if leafy:
            count = int(rng.integers(120, 300))
            t, angle = rng.uniform(0, 1, count) ** 1.3, rng.uniform(0, 6.283, count)
            out = np.column_stack([np.cos(angle), np.sin(angle), np.full(count, -rng.uniform(0.1, 0.5))])
            start = np.column_stack([np.zeros((count, 2)), clear + (tall - clear) * t + reach * 0.3 * (1 - t)])
            length = reach * (1 - t) + 0.1 * reach
            shape.add("foliage", leaves(start, out, length * 1.1, 0.25 * length + 0.05))
        else:
            z = np.linspace(clear, tall, tiers + 1)
            sharp = rng.uniform(1.1, 1.9)
            for i in range(tiers):
                radius = reach * (1 - i / tiers * 0.85) * rng.uniform(0.9, 1.1)
                peak = min(z[i] + (z[i + 1] - z[i]) * sharp, tall)
                sides = int(rng.integers(7, 13))
                shape.add(
                    "foliage",
                    moved(
                        revolve(
                            [
                                (0, z[i] + radius * 0.2),
                                (radius, z[i]),
                                (radius * 0.25, peak - (peak - z[i]) * 0.25),
                                (0, peak),
                            ],
                            sides,
                        )
                    ),
                )
    return shape.mesh()


MAKERS = {"tree": tree}
