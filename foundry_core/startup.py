# SPDX-License-Identifier: Apache-2.0
"""Signals while a program still imports its modules, which takes seconds: they end it at once, without a traceback.

Only what a program starts with calls this, before its other imports; as a library the project leaves signals alone.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_before: dict[int, Any] = {}
_interrupted = threading.Event()


def quiet() -> None:
    """From here on SIGINT, SIGTERM and SIGHUP end the process with exit code 128 + number; what is ignored stays so.

    When the interpreter has ended all that it runs at its exit, they are ignored: its very last act would give them
    back to the system, whose way is to kill.
    """
    if not _before:
        atexit.register(_ignore)  # first come, last called
    for number in _SIGNALS:
        handler = signal.getsignal(number)
        if handler in (signal.default_int_handler, signal.SIG_DFL, _note):
            _before.setdefault(number, handler)
            signal.signal(number, _end)


def _end(number: int, _: Any) -> None:
    os._exit(128 + number)  # no exception: a module that is being imported might swallow it, or make another of it


def _ignore() -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_IGN)


def usual(number: int, handler: Any) -> Any:
    """The handler that a signal would have without :func:`quiet`, given the one that it has."""
    return _before.get(number, handler) if handler is _end else handler


def finished() -> None:
    """The imports are done: signals mean again what they did before :func:`quiet`, and :func:`interrupted` is kept."""
    for number in _before:
        handler = usual(number, signal.getsignal(number))
        signal.signal(number, _note if handler is signal.default_int_handler else handler)


def _note(number: int, frame: Any) -> None:
    _interrupted.set()
    signal.default_int_handler(number, frame)


def interrupted() -> bool:
    """Whether SIGINT came since :func:`finished`, whatever a library made of its KeyboardInterrupt."""
    return _interrupted.is_set()


def foundry() -> int:
    """The command ``foundry``."""
    quiet()
    from foundry_core.cli.main import main

    try:
        return main()
    finally:
        quiet()  # the interpreter's own end takes a moment, too
