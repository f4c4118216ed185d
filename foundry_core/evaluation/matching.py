# SPDX-License-Identifier: Apache-2.0
"""What a robot found, against the ground truth of a simulated recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from foundry_core.errors import InputError
from foundry_core.evaluation.part_metrics import part_iou
from foundry_core.records import FrameResult, names_of, positions
from foundry_core.runtime.objects import UNKNOWN
from foundry_core.scene.config import SceneConfig
from foundry_core.scene.segment import crop_and_thin

MIN_POINTS = 50
MIN_IOU = 0.5

#: the rule in words, for reports
RULE = (
    "Counted per object and frame. The visible points of a true object are its points that the scene's crop box and "
    "thinning keep; those of a found object are the input points that carry its id. A found object matches the true "
    f"object with which it shares points at an intersection over union of at least {MIN_IOU}; each matches at most "
    "once, best pairs first. Points lost to ground removal count against the match. True objects with fewer than "
    f"{MIN_POINTS} visible points are left out. class_accuracy: share of matched objects with the right class; unknown "
    "is wrong. part_miou: over the points that a matched pair shares, the mean IoU of the parts that are present in "
    "truth or answer, averaged over the matched objects of all frames (instance mIoU)."
)


class Match(NamedTuple):
    """One matched object in one frame.

    Attributes:
        stamp_ns: of the frame.
        true_object, found_object: ids in the truth and in the results.
        true_class, found_class: names; ``unknown`` where the answer was unknown.
        iou: of the two point sets.
        part_iou: mean IoU over parts.
        points: number of points that the pair shares.
    """

    stamp_ns: int
    true_object: int
    found_object: int
    true_class: str
    found_class: str
    iou: float
    part_iou: float
    points: int


@dataclass
class Matching:
    """Counts and matches of one or more frames."""

    matches: list[Match] = field(default_factory=list)
    true_classes: Counter = field(default_factory=Counter)
    objects_left_out: int = 0
    objects_found: int = 0
    frames: int = 0

    def report(self) -> dict[str, Any]:
        """Plain figures; a mean over nothing is None."""
        matches = self.matches
        per_class = {}
        for name in sorted(self.true_classes):
            own = [match for match in matches if match.true_class == name]
            per_class[name] = {
                "true": self.true_classes[name],
                "matched": len(own),
                "class_accuracy": _mean([match.found_class == name for match in own]),
                "part_miou": _mean([match.part_iou for match in own]),
            }
        confusion: dict[str, dict[str, int]] = {}
        for (true, found), count in sorted(Counter((m.true_class, m.found_class) for m in matches).items()):
            confusion.setdefault(true, {})[found] = count
        return {
            "objects_true": sum(self.true_classes.values()),
            "objects_matched": len(matches),
            "objects_left_out": self.objects_left_out,
            "objects_found": self.objects_found,
            "objects_found_unmatched": self.objects_found - len(matches),
            "class_accuracy": _mean([match.found_class == match.true_class for match in matches]),
            "class_unknown": _mean([match.found_class == UNKNOWN for match in matches]),
            "part_miou": _mean([match.part_iou for match in matches]),
            "frames_matched": self.frames,
            "per_class": per_class,
            "confusion": confusion,
            "rule": RULE,
        }


def _mean(values: list) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def kept_points(points: np.ndarray, scene: SceneConfig) -> np.ndarray:
    """Mask bool [N] of the points [N,3] that the scene's crop box, ego box and thinning leave."""
    mask = np.zeros(len(points), bool)
    mask[crop_and_thin(points, scene)] = True
    return mask


def _key(points: np.ndarray) -> np.ndarray:
    points = np.ascontiguousarray(points, np.float32) + np.float32(0.0)  # -0.0 becomes 0.0
    return points.view("V12").reshape(-1)


def join_points(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Rows int64 [N] of ``others`` [M,3] that have the coordinates of ``points`` [N,3]; -1 where there is none.

    Coordinates are compared exactly, as float32; among equal points the first is taken.
    """
    if points.shape == others.shape and np.array_equal(points, others):
        return np.arange(len(points))
    if len(others) == 0:
        return np.full(len(points), -1)
    ours, theirs = _key(points), _key(others)
    _, code = np.unique(np.concatenate([theirs, ours]), return_inverse=True)
    first = np.full(code.max() + 1, -1)
    first[code[: len(theirs)][::-1]] = np.arange(len(theirs))[::-1]
    return first[code[len(theirs) :]]


def mean_part_iou(true: np.ndarray, found: np.ndarray) -> float:
    """Mean IoU over the parts (ids >= 0) that are present in ``true`` or ``found``, int [n] each."""
    present = np.union1d(true, found)
    present = present[present >= 0]
    return part_iou(true, found, present) if len(present) else 0.0


def _translation(theirs: Mapping[int, str], ours: Mapping[int, str]) -> dict[int, int]:
    """Their ids in our numbering, by name; names that we lack get numbers of their own, so that they count as wrong."""
    number = {name: index for index, name in ours.items()}
    return {index: number.get(name, 10_000 + index) for index, name in theirs.items()}


class Matcher:
    """Compares frames; ids of the results and of the truth are brought together by name.

    Args:
        scene: the settings that the objects were found with.
        true_names, found_names: (classes, parts), each id -> name.
    """

    def __init__(
        self,
        scene: SceneConfig,
        true_names: tuple[Mapping[int, str], Mapping[int, str]],
        found_names: tuple[Mapping[int, str], Mapping[int, str]],
        min_points: int = MIN_POINTS,
        min_iou: float = MIN_IOU,
    ) -> None:
        self._scene, self._min_points, self._min_iou = scene, min_points, min_iou
        self._true_classes, self._found_classes = true_names[0], found_names[0]
        self._parts = _translation(found_names[1], true_names[1])
        self.result = Matching()

    def add(self, truth: Any, found: FrameResult) -> list[Match]:
        """Match one frame: ``truth`` is a :class:`foundry_core.data.world.bag.Truth`; returns its matches."""
        points = positions(found.parts)
        row = join_points(truth.points, points)  # of each true point among the results
        here = row >= 0
        found_id = np.where(here, found.parts["object_id"][row], -1)
        true_id, chosen, shown = self._shown(truth)
        classes = {number: self._class_of(truth, number) for number in shown}
        matches = []
        for number, object_id, iou in self._pairs(true_id, found_id, found.parts["object_id"], chosen, shown):
            shared = (true_id == number) & (found_id == object_id)
            class_id = int(found.objects["class_id"][object_id])
            match = Match(
                stamp_ns=truth.stamp_ns,
                true_object=number,
                found_object=object_id,
                true_class=classes[number],
                found_class=UNKNOWN if class_id < 0 else self._found_classes.get(class_id, f"class {class_id}"),
                iou=iou,
                part_iou=mean_part_iou(truth.part_id[shared], self._part_ids(found.parts["part_id"][row[shared]])),
                points=int(shared.sum()),
            )
            matches.append(match)
        self.result.matches += matches
        self.result.true_classes.update(classes.values())
        self.result.objects_left_out += len(chosen) - len(shown)
        self.result.objects_found += len(found.objects)
        self.result.frames += 1
        return matches

    def visible(self, truth: Any) -> set[int]:
        """True objects of a frame that are not left out."""
        return self._shown(truth)[2]

    def _shown(self, truth: Any) -> tuple[np.ndarray, dict[int, int], set[int]]:
        """Object of each point [N], -1 where it is not visible; visible points of each object; objects that count."""
        visible = kept_points(truth.points, self._scene) & (truth.object_id >= 0)
        true_id = np.where(visible, truth.object_id, -1)
        ids, counts = np.unique(true_id[true_id >= 0], return_counts=True)
        chosen = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        return true_id, chosen, {number for number, count in chosen.items() if count >= self._min_points}

    def _class_of(self, truth: Any, number: int) -> str:
        class_id = int(truth.class_id[np.argmax(truth.object_id == number)])
        return self._true_classes.get(class_id, f"class {class_id}")

    def _part_ids(self, part: np.ndarray) -> np.ndarray:
        values, inverse = np.unique(part, return_inverse=True)
        return np.array([self._parts.get(int(value), -1) for value in values], np.int64)[inverse]

    def _pairs(self, true_id, found_id, found_all, true_count, shown) -> Iterator[tuple[int, int, float]]:
        both = (true_id >= 0) & (found_id >= 0)
        pairs, shared = np.unique(np.stack([true_id[both], found_id[both]]), axis=1, return_counts=True)
        found_count = Counter(found_all[found_all >= 0].tolist())
        scored = []
        for (number, object_id), common in zip(pairs.T.tolist(), shared.tolist(), strict=True):
            iou = common / (true_count[number] + found_count[object_id] - common)
            if number in shown and iou >= self._min_iou:
                scored.append((iou, number, object_id))
        used_true, used_found = set(), set()
        for iou, number, object_id in sorted(scored, reverse=True):
            if number not in used_true and object_id not in used_found:
                used_true.add(number)
                used_found.add(object_id)
                yield number, object_id, iou


def pair_frames(truths: Iterable[Any], results: Iterable[FrameResult]) -> Iterator[tuple[Any, FrameResult]]:
    """(truth, result) of equal stamps; both must rise in time. Frames without a counterpart are passed over."""
    results = iter(results)
    found = next(results, None)
    for truth in truths:
        while found is not None and found.stamp_ns < truth.stamp_ns:
            found = next(results, None)
        if found is None:
            return
        if found.stamp_ns == truth.stamp_ns:
            yield truth, found


def match_bag(bag: str | Path, results: str | Path, scene: SceneConfig) -> Matching:
    """Compare a results file of ``foundry replay`` with the ground truth of the simulated bag that was played.

    Raises:
        InputError: the bag has no ground truth, or no frame of the two files has the same stamp.
    """
    from foundry_core import records
    from foundry_core.data.world import bag as world

    matcher = Matcher(scene, world.read_labels(bag), names_of(records.read_labels(results), results))
    for truth, found in pair_frames(world.read_truth(bag), records.read_results(results)):
        matcher.add(truth, found)
    if matcher.result.frames == 0:
        raise InputError(
            f"{results}: no frame has the stamp of a frame of {bag}; give the results of that bag's replay"
        )
    return matcher.result
