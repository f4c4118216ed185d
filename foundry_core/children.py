# SPDX-License-Identifier: Apache-2.0
"""Child processes that do not outlive what started them, however that ends."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Called by a child: the system sends it this signal once the thread that started it is gone; 0 takes it back.

    Kept over exec. Only Linux can do this; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
