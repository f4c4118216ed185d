# SPDX-License-Identifier: Apache-2.0
"""What SIGINT, SIGTERM and SIGHUP do to a process of this package while it starts, works and ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from foundry_core import startup

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _handle(handler: Any) -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    hangup_is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # under nohup; it stays so
    numbers = [number for number in _SIGNALS if number != signal.SIGHUP or not hangup_is_ignored]
    return {number: signal.signal(number, handler) for number in numbers}


def _restore(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def one_interrupt() -> Iterator[None]:
    """SIGINT, SIGTERM or SIGHUP raise KeyboardInterrupt in the block, once, and again at its end.

    From then on the process is ending: they are ignored until it has, so that nothing disturbs its cleaning up.
    """
    interrupted = False

    def first(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        ignore_signals()
        raise KeyboardInterrupt

    before = {number: startup.usual(number, handler) for number, handler in _handle(first).items()}
    try:
        yield
    finally:
        if interrupted:  # whatever became of it: an extension that was being loaded makes an ImportError of it
            raise KeyboardInterrupt
        _restore(before)


def ignore_signals() -> None:
    """Called by a process that is ending: only SIGKILL and SIGQUIT disturb it from here on."""
    _handle(signal.SIG_IGN)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """No signal but SIGKILL and SIGQUIT disturbs the block; it must be short."""
    before = _handle(signal.SIG_IGN)
    try:
        yield
    finally:
        _restore(before)


def hangup_terminates() -> None:
    """Called by a node that spins: SIGHUP is to it what SIGTERM is, unless it is ignored (nohup)."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
