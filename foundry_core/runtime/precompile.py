# SPDX-License-Identifier: Apache-2.0
"""Compiles the kernels ahead of their first use, into numba's cache: ``python -m foundry_core.runtime.precompile``.

Compilation takes tens of seconds, and a hundred megabytes that a process keeps: so it has a process of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

import foundry_core
from foundry_core.children import end_with_parent
from foundry_core.files import write_atomically

_PATIENCE_S = 600.0


def compile_kernels() -> None:
    """Compile (or load from numba's cache) every kernel between a sweep and its objects."""
    from foundry_core import geometry
    from foundry_core.clouds import Cloud
    from foundry_core.runtime import parts
    from foundry_core.scene import tracks
    from foundry_core.scene.config import ClusterConfig, SceneConfig
    from foundry_core.scene.segment import find_segments

    geometry.warm_up()
    parts.warm_up()
    tracks.warm_up()
    rng = np.random.default_rng(0)
    floor = rng.uniform([-5, -5, -1], [5, 5, -0.98], (4000, 3))
    block = rng.uniform([2, 0, -1], [3, 1, 0.2], (600, 3))
    cloud = Cloud.from_points(np.concatenate([floor, block]))
    for clusters in (ClusterConfig(), ClusterConfig(method="voxel")):
        find_segments(cloud, SceneConfig(clusters=clusters))


def _stamp() -> Path:
    """File that is there when this version of the kernels was compiled here, for this interpreter and processor."""
    digest = hashlib.sha256(f"{sys.version} {version('numba')} {sys.prefix}".encode())
    for path in sorted(Path(foundry_core.__file__).parent.rglob("*.py")):
        stat = path.stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "foundry" / f"kernels-{digest.hexdigest()[:16]}"


def precompile() -> bool:
    """Have a child process fill numba's cache, unless it was done before; whether one was started.

    A child that fails is no error: the kernels are then compiled when they are first called.
    """
    stamp = _stamp()
    if stamp.is_file():
        return False
    silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    with contextlib.suppress(subprocess.SubprocessError):
        subprocess.run([sys.executable, "-m", __name__], **silent, timeout=_PATIENCE_S, check=True)
    return True


def main() -> None:
    """Fill numba's cache and leave the stamp."""
    end_with_parent()
    compile_kernels()
    with contextlib.suppress(OSError):  # a home that cannot be written: the next start asks again
        _stamp().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_stamp(), b"")


if __name__ == "__main__":
    main()
