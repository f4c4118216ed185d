# SPDX-License-Identifier: Apache-2.0
"""What counts as a fault: any error but InputError, a hang, and memory without bound."""

from __future__ import annotations

import contextlib
import resource
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path


class Hang(BaseException):
    """Not an Exception, so that no reader's own "whatever went wrong" takes it for bad input."""


def resident_mb() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`Hang` in the main thread when the block takes longer."""

    def ring(*_: object) -> None:
        raise Hang(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def strict(memory_mb: int = 1024) -> Iterator[None]:
    """Every warning is an error, and address space beyond what is used now plus ``memory_mb`` a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_mb * 2**20, hard))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
