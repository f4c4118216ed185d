# SPDX-License-Identifier: Apache-2.0
"""The deadline that a node gives itself, where it has none, so that it keeps up with its sensor."""

from __future__ import annotations

import math
import threading
from collections import deque
from statistics import median


class Pace:
    """Notices when clouds come faster than all their objects can be answered, and says when an answer is due.

    Nothing is due until a cloud overtakes: it comes while an earlier one is at work, and not just as that work began,
    as from a source that always has one waiting. From then on every cloud, also the one at work, is due :data:`SHARE`
    of the sensor's period after it came, until :data:`CALM` clouds in a row were answered in full and none overtook.
    A source that waits for each answer is never hurried. One thread notes arrivals while another works. All moments
    are seconds on one clock; nothing here looks at it.
    """

    SHARE = 0.7  # of the sensor's period; the rest is for publishing, and for what an answer takes beyond its moment
    CALM = 100  # clouds
    RECENT = 9  # intervals between arrivals whose median is the period
    LATE = 0.3  # of an interval: what comes sooner after the beginning of work does not overtake
    SHORTEST = 0.02  # s; nothing is due sooner, and clouds that come still faster are dropped
    SILENCE = 1.0  # s without a cloud, after which everything begins anew

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget the sensor, as after a pause."""
        with self._lock:
            self._last = -math.inf
            self._begun: float | None = None  # when the cloud at work was begun
            self._intervals: deque[float] = deque(maxlen=self.RECENT)
            self._calm = self.CALM

    def arrived(self, moment: float) -> None:
        """A cloud came."""
        with self._lock:
            interval, self._last = moment - self._last, moment
            if interval > self.SILENCE:
                self._intervals.clear()
                self._calm = self.CALM
                return
            self._intervals.append(interval)
            if self._begun is not None and moment - self._begun >= max(self.LATE * interval, self.SHORTEST):
                self._calm = 0

    def begun(self, moment: float) -> None:
        """The work on a cloud begins."""
        with self._lock:
            self._begun = moment

    def answered(self, complete: bool) -> None:
        """The work on that cloud is done; ``complete``: no object had to wait for another cloud."""
        with self._lock:
            self._begun = None
            self._calm = min(self._calm + 1, self.CALM) if complete else 0

    @property
    def allowance(self) -> float:
        """Seconds from a cloud's arrival until its answer is due; infinite where nothing overtook."""
        with self._lock:
            if self._calm >= self.CALM or not self._intervals:
                return math.inf
            return max(self.SHARE * median(self._intervals), self.SHORTEST)
