# SPDX-License-Identifier: Apache-2.0
"""A recording of the street, and the `foundry` command as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from street_scene import street

from foundry_core import pointcloud2
from foundry_core.data.bag_writer import write_bag
from foundry_core.data.bags import POINT_CLOUD, message_class

ROOT = Path(__file__).resolve().parents[1]
FRAMES, START_NS = 12, 1_700_000_000_000_000_000
#: of the report of a replay
KEYS = {
    "frames_sent", "frames_processed", "frames_dropped", "latency_ms", "phases_ms", "objects_per_frame", "model",
    "budget", "rate", "counts", "frames_per_s", "timeline", "left_out",
}  # fmt: skip


def write_street_bag(path: Path, frames: int = FRAMES, copies: int = 1, topic: str = "/lidar/points") -> Path:
    """A 10 Hz recording of the street; ``copies`` makes the clouds larger."""
    header, stamp = message_class("std_msgs/msg/Header"), message_class("builtin_interfaces/msg/Time")
    field, cloud = message_class("sensor_msgs/msg/PointField"), message_class(POINT_CLOUD)
    with write_bag(path) as bag:
        bag.add_topic(topic, POINT_CLOUD)
        for number in range(frames):
            points = np.tile(street(number), (copies, 1))
            packed = pointcloud2.encode({axis: points[:, k] for k, axis in enumerate("xyz")})
            now = START_NS + number * 100_000_000
            message = cloud(
                header(stamp(now // 10**9, now % 10**9), "lidar"), packed.height, packed.width,
                [field(*item) for item in packed.fields], packed.is_bigendian, packed.point_step, packed.row_step,
                np.asarray(packed.data, np.uint8).reshape(-1), True,
            )  # fmt: skip
            bag.write(topic, now, message)
    return path


def environment() -> dict[str, str]:
    """Of a process that finds this checkout and keeps its ROS traffic on this machine."""
    path = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def command(*arguments) -> list[str]:
    """`foundry ARGUMENTS` as a command line."""
    return [sys.executable, "-m", "foundry_core.cli.main", *map(str, arguments)]


def foundry(*arguments, timeout: float = 120.0) -> subprocess.CompletedProcess:
    """Run `foundry ARGUMENTS` to its end."""
    return subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=timeout, cwd=ROOT
    )


def children(parent: int, count: int, timeout: float = 60.0) -> list[int]:
    """Process ids of the children of a process, once there are so many."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                if int(entry.read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(entry.parent.name))
            except OSError:
                continue
        if len(found) == count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{count} child processes did not appear")
