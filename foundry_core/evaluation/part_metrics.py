# SPDX-License-Identifier: Apache-2.0
"""Part IoU as ShapeNetPart counts it (Yi et al., 2016), and the same without credit for absent parts.

Each shape is judged on the parts of its category. A part that neither the truth nor the answer has counts as 1, points
of unknown part are left out. Instance mIoU is the mean over the shapes, category mIoU the mean over the categories of
the mean over their shapes. Where a category lists many rare parts, the ones make figures high; the strict figures are
means over the parts that the truth or the answer has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def part_iou(true: np.ndarray, found: np.ndarray, parts: np.ndarray) -> float:
    """Mean over ``parts`` of the intersection over union of true and found parts int [n] of one shape; a part that is
    in neither counts as 1."""
    both = [((true == part) & (found == part)).sum() for part in parts]
    either = [((true == part) | (found == part)).sum() for part in parts]
    return float(np.mean([a / b if b else 1.0 for a, b in zip(both, either, strict=True)]))


@dataclass(frozen=True)
class PartScores:
    """IoU of shapes, float64 [M]; NaN for a shape without a known point.

    Attributes:
        category: int [M].
        iou: mean over the parts of the shape's category; strict: over those present in the truth or the answer.
    """

    category: np.ndarray
    iou: np.ndarray
    strict: np.ndarray

    def metrics(self) -> dict[str, float]:
        """Instance and category mIoU in percent; NaN if no shape has a known point."""
        values = {}
        for name, iou in (("", self.iou), ("strict_", self.strict)):
            values[f"{name}instance_miou_percent"] = 100.0 * _mean(iou)
            values[f"{name}category_miou_percent"] = 100.0 * _mean(np.array(list(self._means(iou).values())))
        return values

    def by_category(self) -> dict[int, float]:
        """Mean IoU of each category in percent; categories without a shape that could be judged are left out."""
        return {category: 100.0 * mean for category, mean in self._means(self.iou).items()}

    def _means(self, iou: np.ndarray) -> dict[int, float]:
        judged = np.isfinite(iou)
        return {int(c): float(iou[judged & (self.category == c)].mean()) for c in np.unique(self.category[judged])}


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def part_scores(true, found, category, allowed) -> PartScores:
    """Compare answers with the truth.

    Args:
        true: int [M,P], the part of each point, -1 where it is unknown.
        found: int [M,P], the answer.
        category: int [M], the category of each shape.
        allowed: bool [C,K], the parts of each category, one or more.

    Raises:
        ValueError: shapes that do not fit, a category without parts, or a part outside the shape's category.
    """
    true, found, category, allowed = map(np.asarray, (true, found, category, allowed))
    if true.ndim != 2 or true.shape != found.shape or category.shape != true.shape[:1] or allowed.ndim != 2:
        raise ValueError(f"expected [M,P], [M,P], [M], [C,K]; got {true.shape}, {found.shape}, {category.shape}")
    own = allowed.astype(bool)[category]  # (M, K)
    known = true >= 0
    parts = own.shape[1]
    for name, values in (("truth", true), ("answer", found)):
        inside = (values >= 0) & (values < parts)
        fits = inside & np.take_along_axis(own, np.where(inside, values, 0), axis=1)
        if not fits[known].all():
            raise ValueError(f"{name}: a part that the shape's category does not have")
    if not own.any(axis=1).all():
        raise ValueError("a category without parts")
    intersection, union = np.zeros(own.shape), np.zeros(own.shape)
    for part in range(parts):
        ours, theirs = known & (true == part), known & (found == part)
        intersection[:, part], union[:, part] = (ours & theirs).sum(axis=1), (ours | theirs).sum(axis=1)
    iou = np.where(union > 0, intersection / np.maximum(union, 1), 1.0)
    present = union > 0
    judged = known.any(axis=1)
    mean = np.where(judged, (iou * own).sum(axis=1) / own.sum(axis=1), np.nan)
    strict = np.where(judged, (iou * present).sum(axis=1) / np.maximum(present.sum(axis=1), 1), np.nan)
    return PartScores(category, mean, strict)
