# SPDX-License-Identifier: Apache-2.0
"""What is asked of a part probe: which categories of a shape set, and which parts each of them has.

Both are read off the train shapes. A category is judged where at least half of its train shapes, and at least ten, show
two parts or more. It has the parts that at least a tenth of its train shapes show; points of rarer parts count as
unknown. (With every part that occurs anywhere, most would be absent almost always, and each would count as 1.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from foundry_core.data.shapes import ShapeSet, names_of, renumbering
from foundry_core.errors import InputError
from foundry_core.evaluation.probe import Split

#: least share of multi-part shapes, least number of them, and least share of shapes that show a part
MULTI_SHARE, MULTI_LEAST, PART_SHARE = 0.5, 10, 0.1


@dataclass(frozen=True)
class PartClouds:
    """points float [M,P,3]; category int64 [M]; part int64 [M,P], -1 where it is unknown."""

    points: np.ndarray
    category: np.ndarray
    part: np.ndarray

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class PartTask:
    """Categories [C], parts [K], which category has which (allowed bool [C,K]), and the clouds of both sides."""

    categories: tuple[str, ...]
    parts: tuple[str, ...]
    allowed: np.ndarray
    train: PartClouds
    test: PartClouds

    @classmethod
    def of(cls, data: ShapeSet, train: ShapeSet | None = None, validation: bool = False) -> PartTask:
        """The task of a shape set, twins left out; with ``validation`` the test split is never looked at.

        With ``train`` that set is learned from, and says what the categories and their parts are; both are matched by
        name, and points of parts that it does not have count as unknown.

        Raises:
            InputError: labels, parts or a split are missing, no category has enough shapes of several parts, or none
                of them can be judged.
        """
        learned = train or data
        for shapes in (data, learned):
            if shapes.part_label is None:
                raise InputError(f"{shapes.name}: part_label: missing; give a set with a part for each point")
        split = Split.of(data if train is None else _with_parts_of(data, train), train, validation)
        label, part = split.train.label, split.train.part_label.astype(np.int64)
        names = names_of(learned.class_names, learned.label)
        parts = names_of(learned.part_names, learned.part_label)
        shown = np.zeros((len(part), len(parts)), bool)  # (M, K)
        for kind in range(len(parts)):
            shown[:, kind] = (part == kind).any(axis=1)
        several = shown.sum(axis=1) >= 2
        chosen, allowed = [], []
        for category in range(len(names)):
            members = label == category
            if several[members].sum() >= max(MULTI_LEAST, MULTI_SHARE * members.sum()):
                chosen.append(category)
                allowed.append(shown[members].mean(axis=0) >= PART_SHARE)
        if not chosen:
            raise InputError(
                f"{learned.name}: part_label: no category has {MULTI_LEAST} train shapes of two parts or more; "
                "give a set with more of them"
            )
        own = np.array(allowed)
        sides = [_side(part, chosen, own) for part in (split.train, split.test)]
        categories = tuple(names[category] for category in chosen)
        if not len(sides[1]):
            raise InputError(
                f"{data.name}: part_label: no test shape of {', '.join(categories)} has their parts "
                f"({', '.join(parts)}); correct the names"
            )
        return cls(categories, parts, own, *sides)

    def unknown_percent(self) -> float:
        """Percent of the points of the test clouds that are left out."""
        return 100.0 * float((self.test.part < 0).mean())


def _with_parts_of(data: ShapeSet, train: ShapeSet) -> ShapeSet:
    """``data`` with the part list of ``train``; parts that it does not have become unknown."""
    names, known = (names_of(shapes.part_names, shapes.part_label) for shapes in (data, train))
    if names == known:
        return data
    return replace(data, part_label=renumbering(names, known)[data.part_label], part_names=train.part_names)


def _side(shapes: ShapeSet, chosen: list[int], allowed: np.ndarray) -> PartClouds:
    number = np.full(1 + max(int(shapes.label.max()), *chosen), -1)
    number[chosen] = np.arange(len(chosen))
    category = number[shapes.label]
    part = shapes.part_label.astype(np.int64)
    keep = category >= 0
    category, part = category[keep], part[keep]
    fits = np.take_along_axis(allowed[category], np.maximum(part, 0), axis=1)
    part = np.where(fits & (part >= 0), part, -1)
    judged = (part >= 0).any(axis=1)  # a shape without a known point says nothing
    return PartClouds(shapes.points[keep][judged], category[judged], part[judged])
