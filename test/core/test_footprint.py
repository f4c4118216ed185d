# SPDX-License-Identifier: Apache-2.0
"""What keeps a node's process small, each in a process of its own."""

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

ONE_HEAP = """
import ctypes, sys, threading
from pathlib import Path
from foundry_core.allocator import share_one_heap
if sys.argv[1] == "one" and not share_one_heap():
    sys.exit("no mallopt")
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p
found = []
thread = threading.Thread(target=lambda: found.append(malloc(4000)))
thread.start()
thread.join()
(heap,) = (line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]"))
start, end = (int(side, 16) for side in heap.split("-"))
print(start <= found[0] < end)
"""

KERNELS = """
import sys
import numpy as np
from foundry_core import geometry
from foundry_core.runtime import footprint
if sys.argv[1] == "small":
    footprint.load_numba()
geometry.warm_up()
print("scipy.linalg" in sys.modules)
import scipy.linalg
assert scipy.linalg.det(np.eye(3)) == 1.0
"""

CODE = """
import gc
from pathlib import Path
import numba
from foundry_core.runtime import footprint
def resident():
    kilobytes, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            ours = "libllvmlite" in line and words[1] == "r-xp"
        elif ours and words[0] == "Rss:":
            kilobytes += int(words[1])
    return kilobytes
assert numba.njit(lambda a: a + 1)(1) == 2
before = resident()
footprint.settle()
print(before, resident())
assert numba.njit(lambda a: a + 2)(1) == 3  # LLVM still works
frozen = gc.get_freeze_count()
assert frozen > 10_000
footprint.settle()
assert abs(gc.get_freeze_count() - frozen) < frozen / 2
"""


def printed(code: str, *arguments: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    if "no mallopt" in done.stderr:
        pytest.skip("this C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_threads_share_one_heap():
    assert printed(ONE_HEAP, "one") == ["True"]
    assert printed(ONE_HEAP, "default") == ["False"]


@pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="needs scipy")
def test_kernels_are_loaded_without_linear_algebra():
    assert printed(KERNELS, "usual") == ["True"]
    assert printed(KERNELS, "small") == ["False"]


def test_the_compiler_gives_its_code_back_and_still_works():
    before, after = map(int, printed(CODE))
    assert before > 10_000 and after * 10 < before
