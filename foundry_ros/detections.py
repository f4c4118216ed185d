# SPDX-License-Identifier: Apache-2.0
"""The optional outputs ``~/detections`` and ``~/label_info``, where vision_msgs is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

try:
    from vision_msgs.msg import (
        Detection3D,
        Detection3DArray,
        LabelInfo,
        ObjectHypothesisWithPose,
        VisionClass,
    )
except ImportError:
    Detection3DArray = LabelInfo = None


def available() -> bool:
    """Whether vision_msgs can be imported."""
    return Detection3DArray is not None


def detections_message(header: Any, records: np.ndarray) -> Any:
    """Object records [n] as a Detection3DArray; class ids are decimal text, as in ``~/label_info``.

    ``id`` is the track's, decimal; empty for an object that is not tracked.
    """
    detections = []
    for row in records:
        detection = Detection3D(header=header, id=str(row["track_id"]) if row["track_id"] >= 0 else "")
        pose, size = detection.bbox.center, detection.bbox.size
        pose.position.x, pose.position.y, pose.position.z = float(row["x"]), float(row["y"]), float(row["z"])
        pose.orientation.z, pose.orientation.w = float(np.sin(row["yaw"] / 2)), float(np.cos(row["yaw"] / 2))
        size.x, size.y, size.z = float(row["size_x"]), float(row["size_y"]), float(row["size_z"])
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = str(int(row["class_id"]))
        hypothesis.hypothesis.score = float(row["probability"])
        hypothesis.pose.pose = pose
        detection.results = [hypothesis]
        detections.append(detection)
    return Detection3DArray(header=header, detections=detections)


def label_info_message(stamp: Any, names: Mapping[int, str]) -> Any:
    """The class map as a vision_msgs/LabelInfo."""
    message = LabelInfo()
    message.header.stamp = stamp
    message.class_map = [VisionClass(class_id=index, class_name=name) for index, name in names.items()]
    return message
