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


#: s by the wall clock after which anything counts as a hang, however busy the machine is
BACKSTOP = 600.0


@contextlib.contextmanager
def time_limit(seconds: float, wall: float = BACKSTOP) -> Iterator[None]:
    """Raise :class:`Hang` in the main thread when the block takes more than ``seconds`` of this process's CPU time.

    On a busy machine the wall clock goes on while the process does not; after ``wall`` s of it a block that waits
    for ever is a hang too.
    """

    def ring(number: int, _: object) -> None:
        raise Hang(f"more than {seconds} s of CPU time" if number == signal.SIGPROF else f"longer than {wall} s")

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, wall))
    before = {number: signal.signal(number, ring) for number, _, _ in timers}
    try:
        for _, timer, bound in timers:
            signal.setitimer(timer, bound)
        yield
    finally:
        for number, timer, _ in timers:
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


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
