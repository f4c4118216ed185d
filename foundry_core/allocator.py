# SPDX-License-Identifier: Apache-2.0
"""Memory that a training frees stays with the process."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_NEVER = 2**31 - 1
_AT_ONCE = 2**26  # bytes by which the heap grows


def keep_freed_memory() -> bool:
    """Let the C library reuse large blocks instead of giving each back to the system and asking for it again.

    PyTorch on a CPU allocates every activation anew. By default glibc maps each large one and unmaps it when it is
    freed, and the system clears every page again: a quarter to a third of a training step's CPU time
    (`docs/training.md`). The process then keeps the memory of its peak.

    Returns:
        whether the C library could be told; musl and macOS have no such setting and are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_MMAP_THRESHOLD: _NEVER, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _AT_ONCE}
    return all([mallopt(name, value) == 1 for name, value in settings.items()])
