# SPDX-License-Identifier: Apache-2.0
"""What the perceiver answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from foundry_core.scene.segment import SceneResult, Segment

UNKNOWN = "unknown"
OTHER = "other"


@dataclass(frozen=True)
class Prediction:
    """The answer for one object of n points.

    Attributes:
        label: class name, or "unknown".
        class_id: index into the classes of the model's object head, -1 for unknown.
        probability: of the most probable class, after temperature scaling; also for unknown.
        top5: the most probable classes with their probabilities, best first; "other" may be among them.
        unknown: the class "other" won, or the probability is below the head's threshold.
        part_ids: int16 [n], index into the parts of the model's part head for every point; -1 where there is none.
        part_probability: float32 [n], among the parts that the class can have; 0 where there is none.
    """

    label: str
    class_id: int
    probability: float
    top5: list[tuple[str, float]]
    unknown: bool
    part_ids: np.ndarray
    part_probability: np.ndarray

    def __post_init__(self) -> None:
        if self.unknown != (self.class_id < 0) or self.unknown != (self.label == UNKNOWN):
            raise ValueError(f"label {self.label!r}, class_id {self.class_id} and unknown={self.unknown} contradict")
        if self.part_ids.shape != self.part_probability.shape or self.part_ids.ndim != 1:
            raise ValueError("part_ids and part_probability must be [n]")


def no_answer(points: int) -> Prediction:
    """The prediction for an object of n points that there was no time for: unknown, with probability 0."""
    return Prediction(UNKNOWN, -1, 0.0, [], True, np.full(points, -1, np.int16), np.zeros(points, np.float32))


@dataclass(frozen=True)
class Object:
    """A segment and what it is."""

    segment: Segment
    prediction: Prediction

    def __post_init__(self) -> None:
        if len(self.segment.index) != len(self.prediction.part_ids):
            raise ValueError("the prediction must label every point of the segment")


@dataclass(frozen=True)
class Perception:
    """The answer for one cloud.

    Attributes:
        objects: nearest (or largest) first.
        phases_ms: milliseconds for crop, ground, clusters, group, network and labels.
        scene: segments, ground and what was left out.
        budgets: supertokens that each object was answered with; 0 where there was no time, and for a teacher.
    """

    objects: list[Object]
    phases_ms: dict[str, float]
    scene: SceneResult
    budgets: list[int] = field(default_factory=list)
