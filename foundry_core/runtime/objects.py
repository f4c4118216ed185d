# SPDX-License-Identifier: Apache-2.0
"""What the perceiver answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from foundry_core.scene.segment import SceneResult, Segment

UNKNOWN = "unknown"
OTHER = "other"


@dataclass(frozen=True)
class Evidence:
    """What the network said of one object, from which a class and parts are chosen.

    Attributes:
        probabilities: float64 [C], of the object head's classes.
        features: float32 [2d], mean and max over the token features, as ``foundry embed`` writes them.
        sampled: int64 [N], indices of the network's points into the object's.
        part_logits: float32 [N,P], or None without a part head.
    """

    probabilities: np.ndarray
    features: np.ndarray
    sampled: np.ndarray
    part_logits: np.ndarray | None


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
        evidence: what the network said of the object in this frame.
        probabilities: float64 [C], of all classes, taught ones included; the label was chosen from them. Fused over
            the frames of a track, they are not those of the evidence.
    """

    label: str
    class_id: int
    probability: float
    top5: list[tuple[str, float]]
    unknown: bool
    part_ids: np.ndarray
    part_probability: np.ndarray
    evidence: Evidence | None = None
    probabilities: np.ndarray | None = None

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
    """A segment, what it is, and the track that it belongs to (-1: none)."""

    segment: Segment
    prediction: Prediction
    track_id: int = -1

    def __post_init__(self) -> None:
        if len(self.segment.index) != len(self.prediction.part_ids):
            raise ValueError("the prediction must label every point of the segment")


@dataclass(frozen=True)
class Perception:
    """The answer for one cloud.

    Attributes:
        objects: nearest (or largest) first.
        phases_ms: milliseconds for crop, ground, clusters, group, network and labels; in a pipeline also tracks.
        scene: segments, ground and what was left out.
        budgets: supertokens that each object was answered with; 0 where there was no time, and for a teacher.
    """

    objects: list[Object]
    phases_ms: dict[str, float]
    scene: SceneResult
    budgets: list[int] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether there was time to look at every object."""
        return all(item.prediction.evidence is not None for item in self.objects)
