# SPDX-License-Identifier: Apache-2.0
"""What keeps the process of a node small. For a process of one's own only: it changes numba and the C library in it."""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
from pathlib import Path

from foundry_core import allocator

_LINEAR_ALGEBRA = "scipy.linalg"


def load_numba() -> None:
    """Load numba as if SciPy's linear algebra were not there, before kernels are used.

    numba would import all of it, for kernels that multiply matrices. Ours do not. SciPy itself stays available.
    """
    if _LINEAR_ALGEBRA in sys.modules:
        return
    sys.modules[_LINEAR_ALGEBRA] = None  # an import raises ImportError
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules[_LINEAR_ALGEBRA]


def settle() -> None:
    """Called when everything is loaded and has run once: give back what only that needed.

    That is freed memory, and the code of LLVM, which loads and compiles kernels; the system reads it from its file
    again where it is needed. What lives now lives as long as the node: the garbage collector need not go through it
    again and again, which takes it 100 ms each time.
    """
    if gc.get_freeze_count():  # an earlier configuration, which may have become garbage
        gc.unfreeze()
        gc.collect()
    gc.freeze()
    allocator.give_back()
    release_code("libllvmlite")


def release_code(library: str) -> None:
    """Give back the pages of a shared library's code, on Linux; they are unmodified copies of its file."""
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        addresses, access, _, _, _, *path = line.split(maxsplit=5)
        if path and access == "r-xp" and Path(path[0]).name.startswith(library):  # never what may have been written to
            start, end = (int(address, 16) for address in addresses.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
