# SPDX-License-Identifier: Apache-2.0
"""SIGINT ends a training between two steps."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class StepwiseInterrupt:
    """Inside, SIGINT waits for the end of the step under way, then saves and raises KeyboardInterrupt.

    A wait for data is ended at once, and another SIGINT, a second or more later, waits for nothing. Only the main
    thread can do this.

    Args:
        save: keeps the state between two steps.
        together: other processes take the same steps: SIGINT only sets ``asked``, and they stop after a common one.
    """

    def __init__(self, save: Callable[[], None], together: bool = False):
        self.save, self.together = save, together
        self.in_step = False
        self.asked: float | None = None

    def __enter__(self) -> StepwiseInterrupt:
        self.previous = None
        heeded = signal.getsignal(signal.SIGINT) != signal.SIG_IGN  # a job in the background may ignore it
        if heeded and threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self._on_sigint)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            if kind is KeyboardInterrupt and not self.in_step:
                self.save()
        finally:
            if self.previous is not None:
                signal.signal(signal.SIGINT, self.previous)

    def _on_sigint(self, *_: Any) -> None:
        now = time.monotonic()
        if self.asked is not None and now - self.asked < 1.0:
            return  # the same event: when a parent dies, the system sends the signal for each of its threads
        again, self.asked = self.asked is not None, now
        if again or not (self.in_step or self.together):
            raise KeyboardInterrupt

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step: it is finished, or what it leaves is not saved."""
        self.in_step = True
        yield
        self.in_step = False  # not after an error: what a broken step leaves is not saved
        if self.asked is not None and not self.together:
            raise KeyboardInterrupt
