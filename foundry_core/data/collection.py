# SPDX-License-Identifier: Apache-2.0
"""Segments that a robot collects for training: bounded random samples without repeated sightings, kept on disk."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from foundry_core import geometry
from foundry_core.data.shapes import load_shapes
from foundry_core.errors import InputError
from foundry_core.files import replacing

#: metres; sightings with centres farther apart are of different places
PLACE = 0.2
#: recently kept sightings that a new one is compared with
MEMORY = 512
#: points of a segment that are sampled from; more are thinned evenly first
DENSE = 4096
_PROBES = 64
#: one held-out segment is kept for so many to learn from
HELD_OUT_SHARE = 5


class _Reservoir:
    """At most ``capacity`` shapes; every one that was offered has the same chance to be kept (Vitter's algorithm R)."""

    def __init__(self, capacity: int, points: int, rng: np.random.Generator) -> None:
        self._kept = np.empty((capacity, points, 3), np.float16)
        self._rng = rng
        self.count = self.offered = 0

    def offer(self, shape: np.ndarray) -> None:
        self.offered += 1
        place = self.count if self.count < len(self._kept) else int(self._rng.integers(self.offered))
        if place < len(self._kept):
            self._kept[place] = shape
            self.count = max(self.count, place + 1)

    def array(self) -> np.ndarray:
        return self._kept[: self.count].copy()

    def restore(self, kept: np.ndarray, offered: int) -> None:
        if len(kept) > len(self._kept):
            kept = kept[self._rng.permutation(len(kept))[: len(self._kept)]]
        self._kept[: len(kept)] = kept
        self.count, self.offered = len(kept), max(len(kept), offered)


class SegmentCollection:
    """At most ``capacity`` segments: every one that was accepted has the same chance to be among them.

    A segment is refused when its last kept sighting at the same place has its size and shape: a robot that stands still
    collects each thing once. Segments of held-out sweeps are a sample of their own, a fifth as large, and no repeated
    sightings of the others: what is learned from the ones is measured on the others. Safe between threads.

    Args:
        capacity: segments to learn from that are kept.
        points: points P of each kept segment.
        seed: of the random samples.
    """

    def __init__(self, capacity: int, points: int = 1024, seed: int = 0) -> None:
        if capacity < 1 or points < 1:
            raise ValueError(f"capacity and points must be at least 1, got {capacity} and {points}")
        self.capacity, self.points = capacity, points
        self.repeated = 0
        rng = np.random.default_rng(seed)
        self._learned = _Reservoir(capacity, points, rng)
        self._held_out = _Reservoir(-(-capacity // HELD_OUT_SHARE), points, rng)
        self._lock = threading.Lock()
        # the sightings last kept, in a ring: box centre and edges in metres, normalised points
        memory = min(MEMORY, capacity)
        self._centers = np.full((memory, 3), np.inf, np.float32)
        self._edges = np.zeros((memory, 3), np.float32)
        self._shapes = np.empty((memory, points, 3), np.float16)
        # mean distance to P samples of half a unit sphere's surface, and the sensor's noise
        self._tolerance = 0.03 + 0.5 * np.sqrt(2 * np.pi / points)

    def __len__(self) -> int:
        return self._learned.count

    @property
    def accepted(self) -> int:
        """Segments that were no repeated sightings, kept or not."""
        return self._learned.offered + self._held_out.offered

    @property
    def held_out(self) -> int:
        """Segments of held-out sweeps that are kept."""
        return self._held_out.count

    def offer(self, points: np.ndarray, center: np.ndarray, held_out: bool = False) -> bool:
        """Consider a segment.

        Args:
            points: float [n,3], metres, n >= 1.
            center: [3], metres, in the sensor frame: while the robot moves, a thing's place changes and its new views
                are collected.
            held_out: it is of a held-out sweep.

        Returns:
            whether it counts as a new sighting; it may still be left out of a full collection by chance.
        """
        points = points[:: max(1, -(-len(points) // max(DENSE, self.points)))]
        center, edges = np.asarray(center, np.float32), np.ptp(points, axis=0).astype(np.float32)
        shape = geometry.prepare(points, self.points)[0].astype(np.float16)  # (P, 3)
        with self._lock:
            if self._seen_before(shape, center, edges):
                self.repeated += 1
                return False
            slot = self.accepted % len(self._centers)
            self._centers[slot], self._edges[slot], self._shapes[slot] = center, edges, shape
            (self._held_out if held_out else self._learned).offer(shape)
            return True

    def _seen_before(self, shape: np.ndarray, center: np.ndarray, edges: np.ndarray) -> bool:
        near = np.linalg.norm(self._centers - center, axis=1) < PLACE
        alike = (np.abs(self._edges - edges) < 0.05 + 0.1 * edges).all(axis=1)
        probes = shape[np.linspace(0, self.points - 1, _PROBES).astype(int)].astype(np.float32)  # (64, 3)
        for slot in np.flatnonzero(near & alike):
            known = self._shapes[slot].astype(np.float32)
            distance = np.linalg.norm(probes[:, None] - known, axis=2).min(axis=1)  # (64)
            if distance.mean() < self._tolerance:
                return True
        return False

    def array(self) -> np.ndarray:
        """A copy of the kept segments to learn from: float16 [N,P,3], normalised."""
        with self._lock:
            return self._learned.array()

    def save(self, path: str | Path) -> int:
        """Write an ``.npz`` shape set, under a temporary name first; held-out segments are its test split.

        Returns:
            number of segments to learn from.

        Raises:
            InputError: there is none.
        """
        with self._lock:
            learned, held_out = self._learned.array(), self._held_out.array()
            accepted = np.array([self._learned.offered, self._held_out.offered])
        if not len(learned):
            raise InputError(f"{path}: no segments to write; is there something to see on the input?")
        split = np.repeat(np.array([0, 1], np.int8), [len(learned), len(held_out)])
        with replacing(path) as stream:
            np.savez(stream, points=np.concatenate([learned, held_out]), split=split, accepted=accepted)
        return len(learned)

    def restore(self, path: str | Path) -> None:
        """Go on from a file of :meth:`save`; places are forgotten, the chances of the random sample are not.

        Raises:
            InputError: not a shape set, or one of another number of points per segment.
        """
        shapes = load_shapes(path)
        kept = shapes.points
        if kept.shape[1] != self.points:
            raise InputError(f"{path}: {kept.shape[1]} points per segment, expected {self.points}; move the file away")
        held_out = np.zeros(len(kept), bool) if shapes.split is None else shapes.split == 1
        offered = [0, 0]
        with np.load(path, allow_pickle=False) as archive:
            if "accepted" in archive.files and archive["accepted"].shape == (2,):
                offered = archive["accepted"].astype(int).tolist()
        with self._lock:
            self._learned.restore(kept[~held_out], offered[0])
            self._held_out.restore(kept[held_out], offered[1])
