# SPDX-License-Identifier: Apache-2.0
"""The target frame, beside a stand-in for tf2 that keeps transforms as tf2 does."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from geometry_msgs.msg import TransformStamped

from foundry_core.cdr import Header, Stamp
from foundry_core.errors import InputError
from foundry_ros.frames import TargetFrame


class Buffer:
    """Answers for what it was told, and takes nothing that is 10 s older than its newest."""

    def __init__(self) -> None:
        self.told: list[float] = []

    def tell(self, seconds: float) -> None:
        if not self.told or seconds > max(self.told) - 10:
            self.told.append(seconds)

    def clear(self) -> None:
        self.told = []

    def lookup_transform(self, target, source, stamp, timeout):
        if round(stamp.nanoseconds * 1e-9, 3) not in self.told:
            raise RuntimeError("extrapolation into the past")
        found = TransformStamped()
        found.transform.rotation.w = 1.0
        found.transform.translation.x = 1.0
        return found


@pytest.fixture
def frame(monkeypatch):
    tf2 = ModuleType("tf2_ros")
    tf2.Buffer = Buffer
    tf2.TransformListener = lambda buffer, node: None
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2)
    return TargetFrame(None, "base_link", 0.1)


def moved(frame: TargetFrame, seconds: int) -> np.ndarray:
    frame._buffer.tell(float(seconds))
    return frame.move(np.zeros((1, 3), np.float32), Header(Stamp(seconds, 0), "lidar"))[0]


def test_a_bag_that_is_played_again_finds_its_transforms_again(frame):
    for seconds in (100, 115, 130):
        assert moved(frame, seconds).tolist() == [[1, 0, 0]]
    with pytest.raises(InputError, match="no transform from 'lidar' to 'base_link'"):
        moved(frame, 100)  # the first cloud, whose transform came before it
    for seconds in (101, 102):
        assert moved(frame, seconds).tolist() == [[1, 0, 0]]


def test_a_cloud_that_is_a_little_late_costs_nothing(frame):
    moved(frame, 100)
    frame._buffer.tell(98.0)
    moved(frame, 101)
    assert moved(frame, 98).tolist() == [[1, 0, 0]] and frame._buffer.told == [100, 98, 101, 98]
