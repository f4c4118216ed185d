# SPDX-License-Identifier: Apache-2.0
"""How kernels are compiled: with numba, without the interpreter's lock, and kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba


def jit(function: Callable) -> Any:
    """Compile a kernel when it is first called, or take what was compiled before, until its sources change.

    numba compares the kernel's own file with that of its cache. A kernel has compiled into it what it calls, so here
    the files of all the kernels that its module knows count, too.
    """
    compiled = numba.njit(cache=True, nogil=True)(function)
    known = [getattr(item, "kernel_sources", ()) for item in function.__globals__.values()]
    compiled.kernel_sources = frozenset({function.__code__.co_filename}).union(*known)
    with contextlib.suppress(AttributeError):  # there is no cache where numba is told not to compile
        compiled._cache._cache_file._source_stamp = _digest(compiled.kernel_sources)
    return compiled


@cache
def _digest(files: frozenset[str]) -> str:
    content = b"\0".join(_content(name) for name in sorted(files))
    return hashlib.sha256(content).hexdigest()


@cache
def _content(name: str) -> bytes:
    return Path(name).read_bytes()
