# SPDX-License-Identifier: Apache-2.0
"""Tracks and the classes fused over them, against the ground truth of a simulated world; in process, without ROS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from foundry_core import records
from foundry_core.clouds import Cloud
from foundry_core.data.procedural import CATEGORIES, PART_NAMES
from foundry_core.data.world.config import WorldConfig
from foundry_core.data.world.simulate import Frame, Simulator
from foundry_core.evaluation.matching import MIN_IOU, MIN_POINTS, Matcher
from foundry_core.runtime.objects import UNKNOWN, Object
from foundry_core.runtime.perceiver import Perceiver, PerceiverConfig
from foundry_core.runtime.pipeline import Pipeline
from foundry_core.scene.config import SceneConfig, room_config, street_config
from foundry_core.scene.tracks import TracksConfig

#: frames out of sight after which a true object counts as another one
ABSENCE = 10

#: the rule in words, for reports
RULE = (
    f"True objects with at least {MIN_POINTS} visible points are matched to found ones frame by frame, by the points "
    f"that they share (IoU >= {MIN_IOU}). id_switches: a true object's track id differs from the last one it had. "
    "fragmentations: a true object that had an id goes without, though visible, and gets one again. An "
    f"object that was out of sight for {ABSENCE} frames counts as another one. misses: visible "
    "true objects without a track id. false_named: objects with an id and a class that match no true object. "
    "mota = 1 - (misses + false_named + id_switches) / visible true objects (Bernardin and Stiefelhagen, 2008, with "
    "clutter that is called unknown not held against it). flicker: changes of the label from one sighting of a track "
    "to the next, per track; class_accuracy: share of the matched objects with the right class, unknown is wrong: each "
    "for the label of the single frame (_frame) and for the fused one (_fused). Over the same sightings. looked_at: "
    "share of the found objects that the network was asked about; a deadline leaves no time for the others, which are "
    "unknown by the frame alone."
)


@dataclass
class Score:
    """Counts over one recording.

    Attributes:
        counts: visible (true objects, summed over frames), matched, misses, false_named, id_switches, fragmentations.
        labels: track id -> (frame's label, fused label) of its sightings, in order.
        right: matched objects that have the right class (of the frame, fused).
        found, looked_at: found objects, and those of them that the network was asked about.
    """

    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("frames", "visible", "matched", "misses", "false_named", "id_switches", "fragmentations"), 0
        )
    )
    labels: dict[int, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    right: list[int] = field(default_factory=lambda: [0, 0])
    found: int = 0
    looked_at: int = 0
    _last: dict[int, int] = field(default_factory=dict)  # true object -> its last track id
    _lost: set[int] = field(default_factory=set)  # true objects that had an id and, visible, are without
    _seen: dict[int, int] = field(default_factory=dict)  # true object -> frame in which it was visible last

    def add(
        self, visible: Iterable[int], pairs: Sequence[tuple[int, int, str]], tracks: Sequence[tuple[int, str, str]]
    ) -> None:
        """Count one frame.

        Args:
            visible: true objects that count.
            pairs: (true object, index into ``tracks``, true class) of the matched ones.
            tracks: of each found object (track id or -1, label of the frame, fused label).
        """
        visible, counts = set(visible), self.counts
        counts["frames"] += 1
        for true in visible:
            if counts["frames"] - self._seen.get(true, counts["frames"]) > ABSENCE:
                self._last.pop(true, None)
                self._lost.discard(true)
            self._seen[true] = counts["frames"]
        counts["visible"] += len(visible)
        counts["matched"] += len(pairs)
        held = {}
        for true, index, name in pairs:
            track, *labels = tracks[index]
            for k, label in enumerate(labels):
                self.right[k] += label == name
            if track >= 0:
                held[true] = track
        for true in visible - held.keys():
            counts["misses"] += 1
            if true in self._last:
                self._lost.add(true)
        for true, track in held.items():
            counts["id_switches"] += self._last.get(true, track) != track
            counts["fragmentations"] += true in self._lost
            self._lost.discard(true)
            self._last[true] = track
        taken = {index for _, index, _ in pairs}
        for index, (track, frame, fused) in enumerate(tracks):
            if track >= 0:
                self.labels[track].append((frame, fused))
                counts["false_named"] += index not in taken and fused != UNKNOWN

    def metrics(self) -> dict[str, float]:
        """Plain figures; a share of nothing is 0."""
        counts = self.counts
        visible, matched = max(counts["visible"], 1), max(counts["matched"], 1)
        errors = counts["misses"] + counts["false_named"] + counts["id_switches"]
        figures = {**{name: float(value) for name, value in counts.items()}, "tracks": float(len(self.labels))}
        figures["mota"] = 1.0 - errors / visible
        for k, kind in enumerate(("frame", "fused")):
            changes = sum(
                before[k] != after[k]
                for sightings in self.labels.values()
                for before, after in zip(sightings, sightings[1:], strict=False)
            )
            figures[f"flicker_{kind}"] = changes / max(len(self.labels), 1)
            figures[f"class_accuracy_{kind}"] = self.right[k] / matched
        figures["looked_at"] = self.looked_at / max(self.found, 1)
        return figures


def scene_of(world: WorldConfig) -> SceneConfig:
    """Segmentation for the kind of scene."""
    return room_config() if world.kind == "room" else street_config()


def track_world(
    pipeline: Pipeline, world: WorldConfig, odometry: bool = False, advance: Callable[[int, int], None] | None = None
) -> Score:
    """Run a pipeline over a simulated recording and score it.

    Args:
        odometry: tell the tracker how the sensor moved.
        advance: called with (frames done, frames in all).
    """
    simulator = Simulator(world)
    perceiver = pipeline.perceiver
    heads = perceiver.card.heads
    found_names = (dict(enumerate(heads.objects.classes)), dict(enumerate(heads.parts.parts if heads.parts else [])))
    names = (dict(enumerate(CATEGORIES)), dict(enumerate(PART_NAMES)))
    matcher = Matcher(perceiver.config.scene, names, found_names)
    score, before = Score(), None
    for number in range(world.frames):
        frame = simulator.frame(number)
        motion = None
        if odometry and before is not None:
            motion = np.linalg.inv(frame.pose_world_from_sensor) @ before
        before = frame.pose_world_from_sensor
        _score_frame(pipeline, matcher, score, frame, world.frame_id, motion)
        if advance is not None:
            advance(number + 1, world.frames)
    return score


def _score_frame(pipeline: Pipeline, matcher: Matcher, score: Score, frame: Frame, frame_id: str, motion) -> None:
    cloud = Cloud.from_points(frame.points, frame_id=frame_id, stamp_ns=frame.stamp_ns)
    tracked = pipeline.perceive(cloud, motion)
    parts = records.part_records(cloud.points, tracked.objects)
    result = records.FrameResult(frame.stamp_ns, records.object_records(tracked.objects), parts)
    matches = matcher.add(frame, result)
    tracks = [(item.track_id, _alone(pipeline, item), item.prediction.label) for item in tracked.objects]
    score.looked_at += np.count_nonzero([item.prediction.evidence is not None for item in tracked.objects])
    score.found += len(tracked.objects)
    pairs = [(match.true_object, match.found_object, match.true_class) for match in matches]
    score.add(matcher.visible(frame), pairs, tracks)


def _alone(pipeline: Pipeline, item: Object) -> str:
    """The label of an object by this frame alone; unknown where a deadline left no time for it."""
    evidence = item.prediction.evidence
    if evidence is None:
        return UNKNOWN
    return pipeline.perceiver.answers.answer(item.segment.points, None, evidence.probabilities).label


def evaluate_tracks(
    model: str,
    worlds: Sequence[WorldConfig],
    tracks: TracksConfig | None = None,
    odometry: bool = False,
    threads: int = 1,
    deadline_ms: float | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Mean and deviation of the figures over recordings that differ in their seed, as a row of ``foundry evaluate``.

    With a deadline they depend on the machine.
    """
    config = PerceiverConfig(scene=scene_of(worlds[0]), threads=threads, deadline_ms=deadline_ms)
    perceiver = Perceiver(model, config)
    perceiver.warm_up()
    every = []
    total = sum(world.frames for world in worlds)
    for number, world in enumerate(worlds):
        done = sum(earlier.frames for earlier in worlds[:number])
        step = None if advance is None else (lambda frame, _, done=done: advance(done + frame, total))
        every.append(track_world(Pipeline(perceiver, tracks), world, odometry, step).metrics())
    metrics = {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values))}
        for name, values in ((name, [figures[name] for figures in every]) for name in every[0])
    }
    return {
        "protocol": "tracks",
        "data": f"simulated {worlds[0].kind}, {worlds[0].sensor}, {worlds[0].seconds:g} s",
        "model": perceiver.card.name,
        "budget": perceiver.budget,
        "seed": worlds[0].seed,
        "seeds": len(worlds),
        "odometry": odometry,
        "deadline_ms": deadline_ms,
        "metrics": metrics,
        "rule": RULE,
    }
