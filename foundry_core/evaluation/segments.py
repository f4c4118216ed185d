# SPDX-License-Identifier: Apache-2.0
"""How well the segments of a scene follow the true objects of the simulated world; no model takes part, nor torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from foundry_core.clouds import Cloud
from foundry_core.data.world.config import WorldConfig
from foundry_core.data.world.simulate import simulate
from foundry_core.evaluation.matching import MIN_IOU, MIN_POINTS, kept_points
from foundry_core.scene.config import SceneConfig
from foundry_core.scene.segment import find_segments

#: share of a true object's points from which on a segment counts as a piece of it
PIECE = 0.1

#: the rule in words, for reports
RULE = (
    f"Counted per object and frame. True objects have at least {MIN_POINTS} points that the crop box and the thinning "
    f"keep. A segment and a true object match at an intersection over union of at least {MIN_IOU}. precision: share of "
    "the segments that match; segments of the surroundings (walls, poles that are no object) count against it. recall: "
    "share of the true objects that match. over_segmentation: share of the true objects of which two or more segments "
    f"hold {PIECE:.0%} each. under_segmentation: share of the true objects whose largest piece lies in a segment that "
    f"is mostly something else. missed: share of the true objects of which no segment holds {PIECE:.0%}. iou: mean of "
    "the matches. All in percent."
)


@dataclass
class SegmentCounts:
    """Counts over frames; two of them can be added."""

    segments: int = 0
    objects: int = 0
    matched: int = 0
    split: int = 0
    merged: int = 0
    missed: int = 0
    iou_sum: float = 0.0

    def __add__(self, other: SegmentCounts) -> SegmentCounts:
        names = [field.name for field in fields(self)]
        return SegmentCounts(*(getattr(self, name) + getattr(other, name) for name in names))

    def metrics(self) -> dict[str, float]:
        """Percentages; 0 where there was nothing to count."""
        objects, segments = max(self.objects, 1), max(self.segments, 1)
        return {
            "precision": 100 * self.matched / segments,
            "recall": 100 * self.matched / objects,
            "over_segmentation": 100 * self.split / objects,
            "under_segmentation": 100 * self.merged / objects,
            "missed": 100 * self.missed / objects,
            "iou": 100 * self.iou_sum / max(self.matched, 1),
        }


def compare(true_id: np.ndarray, found_id: np.ndarray, min_points: int = MIN_POINTS) -> SegmentCounts:
    """Compare the points [N] of one frame: ids of true objects and of segments, -1 for none.

    A point that the scene leaves out (crop, thinning) has -1 in both.
    """
    segments = np.bincount(found_id[found_id >= 0])  # (S)
    points = np.bincount(true_id[true_id >= 0])  # (T)
    both = (true_id >= 0) & (found_id >= 0)
    shared = np.zeros((len(points), max(len(segments), 1)), np.int64)  # (T, S)
    np.add.at(shared, (true_id[both], found_id[both]), 1)
    shown = points >= min_points
    shared, points = shared[shown], points[shown]
    sizes = segments if len(segments) else np.zeros(1, np.int64)
    iou = shared / np.maximum(points[:, None] + sizes[None, :] - shared, 1)
    best = iou.max(axis=1, initial=0.0)  # above a half at most one segment can be
    pieces = shared >= np.maximum(PIECE * points[:, None], 1)
    largest = shared.argmax(axis=1)
    purity = shared.max(axis=1, initial=0) / np.maximum(sizes[largest], 1)
    held = pieces.any(axis=1)
    matched = best >= MIN_IOU
    return SegmentCounts(
        segments=int(np.count_nonzero(segments)),
        objects=len(points),
        matched=int(matched.sum()),
        split=int((pieces.sum(axis=1) >= 2).sum()),
        merged=int((held & (purity < 0.5)).sum()),
        missed=int((~held).sum()),
        iou_sum=float(best[matched].sum()),
    )


def evaluate_segments(
    worlds: Sequence[WorldConfig], scene: SceneConfig, progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, dict[str, float]], SegmentCounts]:
    """Find the segments of every frame of simulated recordings and compare them with the ground truth.

    Args:
        progress: called with (frames done, frames in all).

    Returns:
        metric -> mean and deviation over the recordings, in percent (see :data:`RULE`), and the counts of all.
    """
    total, done = sum(world.frames for world in worlds), 0
    rows, sums = [], SegmentCounts()
    for world in worlds:
        counts = SegmentCounts()
        for frame in simulate(world):
            found = find_segments(Cloud.from_points(frame.points), scene)
            kept = kept_points(frame.points, scene)
            counts += compare(np.where(kept, frame.object_id, -1), found.segment_id)
            done += 1
            if progress is not None:
                progress(done, total)
        rows.append(counts.metrics())
        sums += counts
    return {name: _summary([row[name] for row in rows]) for name in rows[0]}, sums


def _summary(values: list[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}
