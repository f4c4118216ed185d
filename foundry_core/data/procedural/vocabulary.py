# SPDX-License-Identifier: Apache-2.0
"""Names of categories and parts. Their order is a contract: ids are stored in models, bags and shape sets."""

from __future__ import annotations

CATEGORIES: tuple[str, ...] = (
    "chair", "table", "sofa", "bed", "shelf", "lamp", "monitor", "mug", "bottle", "bowl",
    "can", "box", "suitcase", "plant", "bin", "bench", "person", "dog", "car", "truck",
    "bus", "bicycle", "motorcycle", "plane", "tree", "pole", "sign", "cone",
)  # fmt: skip

PART_NAMES: tuple[str, ...] = (
    "leg", "seat", "back", "armrest", "top", "panel", "board", "drawer", "base", "stem",
    "shade", "cushion", "mattress", "frame", "screen", "body", "handle", "neck", "cap", "lid",
    "wheel", "window", "roof", "cabin", "cargo", "light", "fork", "handlebar", "crank", "tank",
    "wing", "tail", "engine", "head", "torso", "arm", "trunk", "foliage", "pot", "plate",
)  # fmt: skip

CATEGORY_PARTS: dict[str, tuple[str, ...]] = {
    "chair": ("leg", "seat", "back", "armrest", "stem", "base", "wheel"),
    "table": ("top", "leg", "board", "drawer", "stem", "base"),
    "sofa": ("seat", "back", "armrest", "leg"),
    "bed": ("mattress", "frame", "leg", "back", "cushion"),
    "shelf": ("board", "panel", "back", "drawer", "leg"),
    "lamp": ("base", "stem", "shade", "leg"),
    "monitor": ("screen", "stem", "base"),
    "mug": ("body", "handle", "lid"),
    "bottle": ("body", "neck", "cap", "handle"),
    "bowl": ("body", "base"),
    "can": ("body", "lid", "cap", "handle"),
    "box": ("body", "lid"),
    "suitcase": ("body", "handle", "wheel"),
    "plant": ("pot", "stem", "foliage"),
    "bin": ("body", "lid", "wheel", "handle"),
    "bench": ("seat", "back", "leg", "armrest"),
    "person": ("head", "torso", "arm", "leg"),
    "dog": ("head", "torso", "leg", "tail"),
    "car": ("body", "window", "roof", "wheel"),
    "truck": ("cabin", "window", "cargo", "frame", "wheel"),
    "bus": ("body", "window", "roof", "wheel"),
    "bicycle": ("frame", "wheel", "fork", "handlebar", "seat", "crank"),
    "motorcycle": ("body", "wheel", "fork", "handlebar", "seat", "tank"),
    "plane": ("body", "wing", "tail", "engine", "wheel"),
    "tree": ("trunk", "foliage"),
    "pole": ("stem", "light", "arm", "base"),
    "sign": ("stem", "plate", "base"),
    "cone": ("body", "base"),
}

#: where a category occurs: 'street', 'room', both, or neither (a plane is recognised but not placed)
CATEGORY_PLACES: dict[str, tuple[str, ...]] = {
    **{name: ("room",) for name in ("chair", "table", "sofa", "bed", "shelf", "lamp", "monitor", "mug", "bottle")},
    **{name: ("room",) for name in ("bowl", "can")},
    **{name: ("street", "room") for name in ("box", "suitcase", "plant", "bin", "person", "dog")},
    **{name: ("street",) for name in ("bench", "car", "truck", "bus", "bicycle", "motorcycle", "tree", "pole")},
    **{name: ("street",) for name in ("sign", "cone")},
    "plane": (),
}

#: categories that stand on a table (or another raised surface) rather than on the floor
ON_TABLE: frozenset[str] = frozenset({"monitor", "mug", "bottle", "bowl", "can"})

_PART_ID = {name: index for index, name in enumerate(PART_NAMES)}


def part_id(name: str) -> int:
    """Index of a part name in ``PART_NAMES``."""
    return _PART_ID[name]
