# SPDX-License-Identifier: Apache-2.0
"""A worker that always takes the newest item, so that a slow frame delays nothing but itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class LatestWorker:
    """Runs ``work(item)`` in a thread of its own; while it is busy, a newer item replaces the waiting one.

    Args:
        work: must not raise.
    """

    def __init__(self, work: Callable[[Any], None], name: str = "worker") -> None:
        self._work = work
        self._waiting: list[Any] = []  # at most one
        self._stopping = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def offer(self, item: Any) -> bool:
        """Hand over the newest item.

        Returns:
            whether an older one, not yet begun, was thrown away for it.
        """
        with self._change:
            replaced = bool(self._waiting)
            self._waiting[:] = [item]
            self._change.notify()
        return replaced

    def stop(self) -> int:
        """End after the item at work; returns the number of items (0 or 1) that were waiting and are given up."""
        with self._change:
            self._stopping = True
            given_up = len(self._waiting)
            self._waiting.clear()
            self._change.notify()
        self._thread.join()
        return given_up

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                item = self._waiting.pop()
            self._work(item)
