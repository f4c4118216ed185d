# SPDX-License-Identifier: Apache-2.0
"""Counters of a node and latencies of a replay, without ROS and safe between threads."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_COUNTED = ("received", "processed", "dropped", "skipped", "rejected", "repaired")


class Recent(NamedTuple):
    """What happened since the last diagnostics; ``latency_ms`` is the mean from arrival to answer, 0 without any."""

    processed: int = 0
    dropped: int = 0
    rejected: int = 0
    latency_ms: float = 0.0


class NodeStatistics:
    """What a node received and did with it since it was activated."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = dict.fromkeys(_COUNTED, 0)
        self._rejected: dict[str, int] = {}
        self._total_ms: dict[str, float] = defaultdict(float)
        self._budgets: dict[int, int] = {}
        self._nonfinite = 0
        self._objects = 0
        self._latency_ms = self._worst_ms = 0.0
        self._seen: tuple[dict[str, int], dict[str, float], float] = (dict(self._counts), {}, 0.0)

    def count(self, name: str, number: int = 1) -> None:
        """Add to ``received``, ``dropped`` (overtaken by a newer frame), ``skipped`` (nobody subscribes any more) or
        ``repaired`` (row_step)."""
        with self._lock:
            self._counts[name] += number

    def reject(self, reason: str) -> None:
        """Count a message that could not be used."""
        with self._lock:
            self._counts["rejected"] += 1
            self._rejected[reason] = self._rejected.get(reason, 0) + 1

    def processed(
        self,
        phases_ms: Mapping[str, float],
        objects: int,
        nonfinite: int,
        budgets: Sequence[int] = (),
        latency_ms: float = 0.0,
    ) -> None:
        """Count a frame that was answered: phase times in ms, the supertokens of each object (0: no time), and the ms
        from its arrival to the answer."""
        with self._lock:
            for budget in budgets:
                self._budgets[budget] = self._budgets.get(budget, 0) + 1
            self._counts["processed"] += 1
            self._objects += objects
            self._nonfinite += nonfinite
            self._latency_ms += latency_ms
            self._worst_ms = max(self._worst_ms, latency_ms)
            for phase, value in phases_ms.items():
                self._total_ms[phase] += value

    def values(self) -> tuple[dict[str, Any], Recent]:
        """Diagnostic keys and values, and what happened since the last call.

        ``phase_ms.<phase>`` and ``latency_ms`` are means over the frames since the last call, ``latency_max_ms`` is
        their maximum, ``phase_total_ms.<phase>`` the sum since activation.
        """
        with self._lock:
            before, phases_before, latency_before = self._seen
            new = {name: number - before[name] for name, number in self._counts.items()}
            frames = new["processed"]
            values: dict[str, Any] = dict(self._counts)
            values.update({f"rejected.{reason}": number for reason, number in sorted(self._rejected.items())})
            values.update({"nonfinite_points_dropped": self._nonfinite, "objects": self._objects})
            for budget, number in sorted(self._budgets.items()):
                values[f"objects_at_budget.{budget}" if budget else "objects_without_time"] = number
            latency_ms = (self._latency_ms - latency_before) / frames if frames else 0.0
            if frames:
                values |= {"latency_ms": latency_ms, "latency_max_ms": self._worst_ms}
            for phase, total in self._total_ms.items():
                if frames:
                    values[f"phase_ms.{phase}"] = (total - phases_before.get(phase, 0.0)) / frames
                values[f"phase_total_ms.{phase}"] = total
            self._seen = (dict(self._counts), dict(self._total_ms), self._latency_ms)
            self._worst_ms = 0.0
            return values, Recent(frames, new["dropped"], new["rejected"], latency_ms)


class Ledger:
    """Frames sent and answers received, matched by the stamp of the header.

    A frame's latency is the time from just before it is published to the arrival of the objects with its stamp. Frames
    that share a stamp (a bag that is played again) are answered in the order in which they were sent; one that was sent
    before a frame that has its answer was overtaken, and a later one of its stamp is meant.

    Attributes:
        unexpected: answers to no frame that was waited for: to one that was given up, or to another publisher's.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._pending: dict[int, deque[tuple[int, float]]] = defaultdict(deque)
        self._latency_ms: dict[int, float] = {}
        self._objects: list[int] = []
        self._sent_at: list[float] = []
        self._last_answer, self._newest = 0.0, -1
        self.frames_sent = 0
        self.unexpected = 0

    def sent(self, stamp_ns: int, now: float) -> int:
        """Note a frame that is about to be published at ``now`` (s, monotonic); returns its number."""
        with self._change:
            number = self.frames_sent
            self._pending[stamp_ns].append((number, now))
            self._sent_at.append(now)
            self.frames_sent += 1
            return number

    def answered(self, stamp_ns: int, now: float, objects: int) -> None:
        """Note the arrival of a frame's objects; an answer to no pending frame is counted apart."""
        with self._change:
            waiting = self._pending.get(stamp_ns)
            if not waiting:
                self.unexpected += 1
                return
            number, start = waiting.popleft()
            while waiting and number < self._newest:
                number, start = waiting.popleft()
            self._latency_ms[number] = (now - start) * 1e3
            self._last_answer, self._newest = now, max(self._newest, number)
            self._objects.append(objects)
            self._change.notify_all()

    def wait(self, number: int, timeout: float) -> bool:
        """Wait until a frame is answered; False when ``timeout`` (s) has passed, or a later frame has its answer."""
        with self._change:
            self._change.wait_for(lambda: self._newest >= number, timeout)
            return number in self._latency_ms

    def give_up(self, stamp_ns: int) -> None:
        """Stop expecting the oldest frame with this stamp, so that its late answer is nobody else's."""
        with self._change:
            if self._pending.get(stamp_ns):
                self._pending[stamp_ns].popleft()

    def timeline(self) -> dict[str, list[float | None]]:
        """For each frame when it was sent (s from the first), and its latency in ms, None for one without answer."""
        with self._change:
            return {
                "sent_s": [round(moment - self._sent_at[0], 4) for moment in self._sent_at],
                "latency_ms": [_rounded(self._latency_ms.get(number)) for number in range(self.frames_sent)],
            }

    @property
    def frames_processed(self) -> int:
        """Frames that were answered."""
        return len(self._latency_ms)

    def report(self) -> dict[str, Any]:
        """frames_sent, frames_processed, frames_dropped, latency_ms {p50, p95, max}, objects_per_frame (mean), and
        frames_per_s, processed from the first frame's sending to the last answer."""
        with self._change:
            values = np.array(list(self._latency_ms.values()))
            p50, p95 = (float(value) for value in np.percentile(values, (50, 95))) if len(values) else (None, None)
            worst = float(values.max()) if len(values) else None
            return {
                "frames_sent": self.frames_sent,
                "frames_processed": len(values),
                "frames_dropped": self.frames_sent - len(values),
                "latency_ms": {"p50": _rounded(p50), "p95": _rounded(p95), "max": _rounded(worst)},
                "frames_per_s": _rounded(self._frames_per_s()),
                "objects_per_frame": _rounded(float(np.mean(self._objects)) if self._objects else None),
            }

    def _frames_per_s(self) -> float | None:
        seconds = self._last_answer - self._sent_at[0] if self._latency_ms else 0.0
        return len(self._latency_ms) / seconds if seconds > 0 else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
