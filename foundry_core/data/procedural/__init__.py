# SPDX-License-Identifier: Apache-2.0
"""Parametric categories with an exact part label per triangle; every parameter is drawn from the generator."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural import (
    aircraft,
    containers,
    cups,
    cycles,
    furniture,
    heavy,
    interior,
    living,
    lounge,
    seating,
    street,
    trees,
    vehicles,
    vessels,
)
from foundry_core.data.procedural.vocabulary import CATEGORIES, CATEGORY_PARTS, CATEGORY_PLACES, ON_TABLE, PART_NAMES

__all__ = ["CATEGORIES", "CATEGORY_PARTS", "CATEGORY_PLACES", "ON_TABLE", "PART_NAMES", "make_shape"]

_FAMILIES = (
    *(aircraft, containers, cups, cycles, furniture, heavy, interior),
    *(living, lounge, seating, street, trees, vehicles, vessels),
)
_MAKERS = {name: maker for family in _FAMILIES for name, maker in family.MAKERS.items()}


def make_shape(category: str, rng: np.random.Generator) -> LabeledMesh:
    """A new member of a category: metres, z up, +x forward, standing on z=0, centred on x=y=0.

    Raises:
        ValueError: ``category`` is not one of ``CATEGORIES``.
    """
    if category not in _MAKERS:
        raise ValueError(f"unknown category '{category}'; choose one of {', '.join(CATEGORIES)}")
    return _MAKERS[category](rng)
