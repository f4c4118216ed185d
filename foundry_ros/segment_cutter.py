# SPDX-License-Identifier: Apache-2.0
"""Sweeps of a topic or of a bag, cut into segments at low priority, into a collection."""

from __future__ import annotations

import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

from foundry_core import pointcloud2
from foundry_core.data.bags import open_bag
from foundry_core.data.collection import SegmentCollection
from foundry_core.scene.config import SceneConfig
from foundry_core.scene.segment import find_segments


class SegmentCutter:
    """Cuts at most one sweep per period; one thread at a time.

    Args:
        collection: takes the segments.
        period: s.
        hold_out: share of the sweeps that is held out, see :class:`SegmentCollection`, evenly over time.
        nice: niceness of the thread that cuts.
    """

    def __init__(
        self, collection: SegmentCollection, scene: SceneConfig, period: float, hold_out: float, nice: int
    ) -> None:
        self.collection, self.scene, self.hold_out, self.nice = collection, scene, hold_out, nice
        self.sweeps = 0
        self._period_ns = int(period * 1e9)
        self._last_ns: int | None = None
        self._reader: threading.Thread | None = None
        self._ending = threading.Event()
        self.failure = ""

    def due(self, now_ns: int) -> bool:
        """Whether a sweep of this moment would be cut; a clock that jumps back starts a new period."""
        return self._last_ns is None or not 0 <= now_ns - self._last_ns < self._period_ns

    def cut(self, message: Any, now_ns: int, source: str) -> None:
        """Offer the segments of a PointCloud2, if it is due.

        Raises:
            InputError: it is no cloud; the line names ``source``.
        """
        if not self.due(now_ns):
            return
        if sys.platform == "linux":  # there the niceness of a thread is its own
            thread = threading.get_native_id()
            if os.getpriority(os.PRIO_PROCESS, thread) < self.nice:
                os.setpriority(os.PRIO_PROCESS, thread, self.nice)
        cloud = pointcloud2.to_cloud(message, source)
        self._last_ns = now_ns
        held_out = math.floor((self.sweeps + 1) * self.hold_out) > math.floor(self.sweeps * self.hold_out)
        for segment in find_segments(cloud, self.scene).segments if len(cloud) else ():
            self.collection.offer(segment.points, segment.center, held_out)
        self.sweeps += 1

    def read_bag(self, path: Path, topic: str | None) -> None:
        """Cut a recording in a thread; see :meth:`reading` and ``failure``.

        Raises:
            InputError: no bag, or no such topic.
        """
        with open_bag(path) as bag:
            topic = bag.choose_point_cloud_topic(topic)
        self._reader = threading.Thread(target=self._read, args=(path, topic), name="bag", daemon=True)
        self._reader.start()

    def _read(self, path: Path, topic: str) -> None:
        try:
            with open_bag(path) as bag:
                for name, stamp_ns, data in bag.messages(topic):
                    if self._ending.is_set():
                        return
                    if self.due(stamp_ns):
                        self.cut(bag.decode(name, data), stamp_ns, f"{path}: topic '{topic}'")
        except Exception as error:  # told on /diagnostics
            self.failure = str(error) or f"{path}: {error.__class__.__name__}"

    def reading(self) -> bool:
        """Whether a bag is being read."""
        return self._reader is not None and self._reader.is_alive()

    def close(self) -> None:
        """End the reading."""
        self._ending.set()
        if self._reader is not None:
            self._reader.join()
