# SPDX-License-Identifier: Apache-2.0
"""Fast DDS segments in /dev/shm, told apart by the process that they belong to."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

SHM = Path("/dev/shm")


def own_segments(process: int) -> set[str]:
    """Names of the Fast DDS segments in /dev/shm that a process owns: it holds the lock file of each open.

    Ports are left out: they outlive a process that was killed, and are taken over by the next one of the domain.
    """
    found = set()
    for handle in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed in the meantime
            path = Path(os.readlink(handle))
            if path.parent == SHM and path.name.endswith("_el") and "port" not in path.name:
                found.add(path.name.removesuffix("_el"))
    return found


def left_behind(names: set[str]) -> list[str]:
    """Files of these segments that are still there, unless a living process has taken the segment over."""
    left = []
    for name in sorted(names):
        if not _held(SHM / f"{name}_el"):
            left += [file for file in (name, f"{name}_el", f"sem.{name}_mutex") if (SHM / file).exists()]
    return left


def _held(lock: Path) -> bool:
    try:
        with open(lock, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
