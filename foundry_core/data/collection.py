# SPDX-License-Identifier: Apache-2.0
"""Segments that a robot collects for training: a bounded random sample without repeated sightings, kept on disk."""

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


class SegmentCollection:
    """At most ``capacity`` segments: every one that was accepted has the same chance to be among them.

    A segment is refused when its last kept sighting at the same place has its size and shape: a robot that stands still
    collects each thing once. Safe between threads.

    Args:
        capacity: segments that are kept.
        points: points P of each kept segment.
        seed: of the random sample.
    """

    def __init__(self, capacity: int, points: int = 1024, seed: int = 0) -> None:
        if capacity < 1 or points < 1:
            raise ValueError(f"capacity and points must be at least 1, got {capacity} and {points}")
        self.capacity, self.points = capacity, points
        self.accepted = self.repeated = 0
        self._kept = np.empty((capacity, points, 3), np.float16)
        self._count = 0
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()
        # the sightings last kept, in a ring: box centre and edges in metres, normalised points
        memory = min(MEMORY, capacity)
        self._centers = np.full((memory, 3), np.inf, np.float32)
        self._edges = np.zeros((memory, 3), np.float32)
        self._shapes = np.empty((memory, points, 3), np.float16)
        # mean distance to P samples of half a unit sphere's surface, and the sensor's noise
        self._tolerance = 0.03 + 0.5 * np.sqrt(2 * np.pi / points)

    def __len__(self) -> int:
        return self._count

    def offer(self, points: np.ndarray, center: np.ndarray) -> bool:
        """Consider a segment.

        Args:
            points: float [n,3], metres, n >= 1.
            center: [3], metres, in the sensor frame: while the robot moves, a thing's place changes and its new views
                are collected.

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
            self.accepted += 1
            # reservoir sampling (Vitter's algorithm R)
            place = self._count if self._count < self.capacity else int(self._rng.integers(self.accepted))
            if place < self.capacity:
                self._kept[place] = shape
                self._count = max(self._count, place + 1)
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
        """A copy of the kept segments: float16 [N,P,3], normalised."""
        with self._lock:
            return self._kept[: self._count].copy()

    def save(self, path: str | Path) -> int:
        """Write an ``.npz`` shape set of the kept segments, under a temporary name first; returns their number.

        Raises:
            InputError: there is none.
        """
        with self._lock:
            kept, accepted = self._kept[: self._count].copy(), self.accepted
        if not len(kept):
            raise InputError(f"{path}: no segments to write; is there something to see on the input?")
        with replacing(path) as stream:
            np.savez(stream, points=kept, accepted=np.int64(accepted))
        return len(kept)

    def restore(self, path: str | Path) -> None:
        """Go on from a file of :meth:`save`; places are forgotten, the chances of the random sample are not.

        Raises:
            InputError: not a shape set, or one of another number of points per segment.
        """
        kept = load_shapes(path).points
        if kept.shape[1] != self.points:
            raise InputError(f"{path}: {kept.shape[1]} points per segment, expected {self.points}; move the file away")
        accepted = len(kept)
        with np.load(path, allow_pickle=False) as archive:
            if "accepted" in archive.files and archive["accepted"].shape == ():
                accepted = max(accepted, int(archive["accepted"]))
        with self._lock:
            if len(kept) > self.capacity:
                kept = kept[self._rng.permutation(len(kept))[: self.capacity]]
            self._kept[: len(kept)] = kept
            self._count, self.accepted = len(kept), accepted
