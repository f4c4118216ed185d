# SPDX-License-Identifier: Apache-2.0
"""The allocator of a training: page faults of large blocks that come and go."""

import subprocess
import sys

import pytest

CHILD = """
import resource, sys
import numpy as np
from foundry_core.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("no mallopt")
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(16 * 2**20)  # 128 MB, above every threshold that glibc finds by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(sum(faults() for _ in range(4)))
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", CHILD, how], capture_output=True, text=True)
    if "no mallopt" in done.stderr:
        pytest.skip("this C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_freed_blocks_are_used_again():
    assert page_faults("keep") * 10 < page_faults("default")
