# SPDX-License-Identifier: Apache-2.0
"""The optional vision_msgs outputs, with the messages' fields as in vision_msgs 4."""

from __future__ import annotations

import importlib
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest

from foundry_core.records import OBJECT


def message(**fields):
    """A class that, like a ROS message, takes known fields only."""

    class Message:
        def __init__(self, **given):
            for name, make in fields.items():
                setattr(self, name, make())
            for name, value in given.items():
                assert name in fields, name
                setattr(self, name, value)

    return Message


def xyz() -> SimpleNamespace:
    return SimpleNamespace(x=0.0, y=0.0, z=0.0)


def pose() -> SimpleNamespace:
    return SimpleNamespace(position=xyz(), orientation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0))


@pytest.fixture
def detections(monkeypatch):
    from foundry_ros import detections

    fakes = types.ModuleType("vision_msgs.msg")
    fakes.Detection3D = message(
        header=lambda: None, results=list, bbox=lambda: SimpleNamespace(center=pose(), size=xyz()), id=str
    )
    fakes.Detection3DArray = message(header=lambda: None, detections=list)
    fakes.LabelInfo = message(header=lambda: SimpleNamespace(stamp=None), class_map=list, threshold=float)
    fakes.VisionClass = message(class_id=int, class_name=str)
    fakes.ObjectHypothesisWithPose = message(
        hypothesis=lambda: SimpleNamespace(class_id="", score=0.0), pose=lambda: SimpleNamespace(pose=None)
    )
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "vision_msgs", types.ModuleType("vision_msgs"))
        patch.setitem(sys.modules, "vision_msgs.msg", fakes)
        yield importlib.reload(detections)
    importlib.reload(detections)


def test_objects_become_detections(detections):
    assert detections.available()
    records = np.zeros(2, OBJECT)
    records["x"], records["size_y"], records["class_id"], records["probability"] = [1, 2], [3, 4], [5, -1], [0.5, 0.25]
    records["yaw"], records["track_id"] = [np.pi, 0], [7, -1]
    array = detections.detections_message("header", records)
    first, second = array.detections
    assert array.header == first.header == "header"
    assert (first.bbox.center.position.x, first.bbox.size.y, first.id) == (1.0, 3.0, "7")
    assert first.bbox.center.orientation.z == pytest.approx(1.0)
    assert (first.results[0].hypothesis.class_id, first.results[0].hypothesis.score) == ("5", 0.5)
    assert second.id == ""  # not tracked
    assert second.results[0].hypothesis.class_id == "-1"


def test_label_info_lists_the_classes(detections):
    info = detections.label_info_message("now", {0: "car", 1: "pole"})
    assert info.header.stamp == "now"
    assert [(item.class_id, item.class_name) for item in info.class_map] == [(0, "car"), (1, "pole")]
