# SPDX-License-Identifier: Apache-2.0
"""What a robot runs for every cloud: the perceiver, and around it what lasts longer than a frame."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from foundry_core.clouds import Cloud
from foundry_core.errors import InputError
from foundry_core.runtime.fewshot import FewShotHead
from foundry_core.runtime.fusion import ClassFusion
from foundry_core.runtime.objects import Object, Perception, Prediction
from foundry_core.runtime.perceiver import Perceiver
from foundry_core.runtime.teach import TaughtClasses, extend
from foundry_core.scene.segment import Segment
from foundry_core.scene.tracks import Tracked, Tracker, TracksConfig


class Refused(InputError):
    """A click that teaches nothing.

    Attributes:
        reason: why, in a word: ``cloud`` (there is none yet), ``frame``, ``point``, ``place`` or ``time``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Pipeline:
    """A perceiver whose objects may be of taught classes, and are tracked, with their classes fused over each track.

    One thread perceives; clicks and teaching may come from another.

    Attributes:
        perceiver: stateless.
        taught: classes beside the model's own; their ids follow those.
        tracker: None when tracks are off.
    """

    def __init__(
        self, perceiver: Perceiver, tracks: TracksConfig | None = None, taught: TaughtClasses | None = None
    ) -> None:
        tracks = tracks or TracksConfig()
        self.perceiver = perceiver
        self.taught = taught or TaughtClasses(perceiver.card)
        self.tracker = Tracker(tracks) if tracks.enabled else None
        self._fusion = ClassFusion(tracks)
        # of the frame before
        self._head: FewShotHead | None = None
        self._possible = perceiver.answers.possible
        self._last: tuple[Cloud, list[Object]] | None = None

    def clear(self) -> None:
        """Give up all tracks and the last frame; what was taught stays."""
        self._fusion.clear()
        self._last = None
        if self.tracker is not None:
            self.tracker.clear()

    def figures(self) -> dict[str, int]:
        """Diagnostic keys and values: tracks with an id now, how often all were given up by reason, exemplars."""
        figures = {"taught_exemplars": len(self.taught)}
        if self.tracker is not None:
            resets = sorted(dict(self.tracker.resets).items())
            figures |= {"tracks": self.tracker.confirmed, **{f"track_resets.{reason}": n for reason, n in resets}}
        return figures

    def classify(self, clouds: Sequence[np.ndarray]) -> list[Prediction]:
        """Name objects that stand alone, see :meth:`Perceiver.classify`; taught classes are among the answers."""
        return self.with_taught(self.taught.head, clouds, self.perceiver.classify(clouds))

    def perceive(
        self, cloud: Cloud, motion: np.ndarray | None = None, due: Callable[[], float] | None = None
    ) -> Perception:
        """Find, name and track the objects of a cloud, in the cloud's frame.

        Args:
            motion: T_now_before [4,4] of the sensor since the previous cloud, see :meth:`Tracker.update`.
            due: moment of the answer, see :meth:`Perceiver.name`.
        """
        start = time.perf_counter()
        scene = self.perceiver.find(cloud)
        found = time.perf_counter()
        tracked = self._track(cloud, scene.segments, motion)
        # where a deadline leaves no time for all, what is known already waits, and is what its track was
        order = None if tracked is None else self._fusion.longest_without(tracked.key)
        ordered = time.perf_counter()
        perception = self.perceiver.name(scene, start, order, due)
        named = time.perf_counter()
        objects = self._complete(perception.objects, tracked)
        self._last = cloud, objects
        tracks_ms = 1e3 * (ordered - found + time.perf_counter() - named)
        return dataclasses.replace(perception, objects=objects, phases_ms={**perception.phases_ms, "tracks": tracks_ms})

    def _track(self, cloud: Cloud, segments: Sequence[Segment], motion: np.ndarray | None) -> Tracked | None:
        """The tracks of a cloud's segments; None when tracks are off."""
        head, possible = self.taught.head, self.perceiver.answers.possible
        if head is not self._head or not np.array_equal(possible, self._possible):
            self._fusion.clear()  # other classes, or other thresholds: what was fused is of no use
            self._head, self._possible = head, possible
        if self.tracker is None:
            return None
        center = np.array([segment.center for segment in segments]).reshape(-1, 3)
        size = np.array([segment.size for segment in segments]).reshape(-1, 3)
        tracked = self.tracker.update(cloud.stamp_ns, center, size, motion, cloud.frame_id)
        self._fusion.begin(tracked.alive)
        return tracked

    def _complete(self, objects: list[Object], tracked: Tracked | None) -> list[Object]:
        """The objects with taught classes among their answers, and with id and fused class of their tracks."""
        if self._head is not None:
            clouds = [item.segment.points for item in objects]
            answers = self.with_taught(self._head, clouds, [item.prediction for item in objects])
            objects = [Object(item.segment, answer) for item, answer in zip(objects, answers, strict=True)]
        if tracked is None:
            return objects
        tracks = zip(objects, tracked.key.tolist(), tracked.track_id.tolist(), strict=True)
        return [self._fused(*track) for track in tracks]

    def with_taught(
        self, head: FewShotHead | None, clouds: Sequence[np.ndarray], answers: list[Prediction]
    ) -> list[Prediction]:
        """The perceiver's answers for clouds [n,3] with a head's taught classes among them; as they are without."""
        if head is None:
            return answers
        seen = [number for number, answer in enumerate(answers) if answer.evidence]  # not what there was no time for
        evidence = [answers[number].evidence for number in seen]
        extended = extend(head, [item.probabilities for item in evidence], [item.features for item in evidence])
        answers, answer = list(answers), self.perceiver.answers.answer
        for number, item, row in zip(seen, evidence, extended, strict=True):
            answers[number] = answer(clouds[number], item, row, head.labels, before=answers[number])
        return answers

    def _fused(self, item: Object, key: int, track_id: int) -> Object:
        answer = item.prediction
        labels = self._head.labels if self._head else ()
        if answer.evidence is None:  # there was no time for it: it is what its track was
            held = self._fusion.held(key)
            if held is not None:
                answer = self.perceiver.answers.answer(item.segment.points, None, held, labels)
            return Object(item.segment, answer, track_id)
        fused = self._fusion.add(key, answer.probabilities)
        if fused is not answer.probabilities:
            answer = self.perceiver.answers.answer(item.segment.points, answer.evidence, fused, labels, before=answer)
        return Object(item.segment, answer, track_id)

    # -- teaching ----------------------------------------------------------------------------------------------------

    def object_at(self, point: np.ndarray, frame_id: str, tolerance: float) -> Object:
        """The object of the last cloud with a point nearest to ``point`` [3].

        Args:
            frame_id: of the point; must be that of the cloud.
            tolerance: metres; nothing farther away is taken.

        Raises:
            Refused: no cloud yet, another frame, or no object so near.
        """
        if self._last is None:
            raise Refused("cloud", "no cloud has been answered yet; publish clouds and subscribe to an output")
        cloud, objects = self._last
        if frame_id != cloud.frame_id:
            text = f"clicked in frame '{frame_id}', the clouds are in '{cloud.frame_id}'; make it fixed"
            raise Refused("frame", text)
        point = np.asarray(point, float)
        if not np.isfinite(point).all():
            raise Refused("point", "the clicked point is not finite")
        distances = [float(((cloud.points[item.segment.index] - point) ** 2).sum(axis=1).min()) for item in objects]
        if not distances or min(distances) > tolerance**2:
            place = ", ".join(f"{value:.2f}" for value in point)
            raise Refused("place", f"no object within {tolerance:g} m of ({place})")
        return objects[int(np.argmin(distances))]

    def teach(self, label: str, point: np.ndarray, frame_id: str, tolerance: float) -> str:
        """Add the object at a point of the last cloud to a taught class; returns what was done, in words.

        Raises:
            InputError: see :meth:`TaughtClasses.add`.
            Refused: see :meth:`object_at`; or there was no time for the object.
        """
        self.taught.check_label(label)
        item = self.object_at(point, frame_id, tolerance)
        evidence = item.prediction.evidence
        if evidence is None:
            raise Refused("time", "there was no time to look at that object; raise deadline_ms or click again")
        count = self.taught.add(label, evidence.features, evidence.probabilities.max())
        place = ", ".join(f"{value:.1f}" for value in item.segment.center)
        return f"'{label.strip()}': exemplar {count}, the object at ({place}) m, so far {item.prediction.label}"
