# SPDX-License-Identifier: Apache-2.0
"""What the C library does with memory that is freed: a training keeps it, a node gives it back.

Only glibc has these settings; other C libraries (musl, macOS) are left as they are.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # malloc.h
_NEVER = 2**31 - 1
_AT_ONCE = 2**26  # bytes by which the heap grows


def _set(settings: dict[int, int]) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(name, value) == 1 for name, value in settings.items()])


def keep_freed_memory() -> bool:
    """Let the C library reuse large blocks instead of giving each back to the system and asking for it again.

    PyTorch on a CPU allocates every activation anew. By default glibc maps each large one and unmaps it when it is
    freed, and the system clears every page again: a quarter to a third of a training step's CPU time
    (`docs/training.md`). The process then keeps the memory of its peak.

    Returns:
        whether the C library could be told.
    """
    return _set({_MMAP_THRESHOLD: _NEVER, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _AT_ONCE})


def share_one_heap() -> bool:
    """Let all threads that are started from here on allocate from one heap.

    By default each has one of its own, and what one thread has freed is of no use to another.

    Returns:
        whether the C library could be told.
    """
    return _set({_ARENA_MAX: 1})


def give_back() -> bool:
    """Give the free pages of the heap back to the system; whether there were any."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and trim(0) == 1
