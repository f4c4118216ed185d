# SPDX-License-Identifier: Apache-2.0
"""A simulated recording as a rosbag2, with its ground truth on topics of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foundry_core import pointcloud2
from foundry_core.data import bags
from foundry_core.data.bag_writer import BagWriter, write_bag
from foundry_core.data.procedural import CATEGORIES, PART_NAMES
from foundry_core.data.world.config import START_NS, WorldConfig
from foundry_core.data.world.simulate import Frame, Simulator
from foundry_core.errors import InputError
from foundry_core.records import names_of

POINTS, TRUTH, LABELS, ODOMETRY = "/points", "/truth/points", "/truth/labels", "/odom"


@dataclass(frozen=True)
class Truth:
    """Ground truth of one sweep: points float32 [N,3] in the sensor frame, and ids [N] (-1: surroundings)."""

    stamp_ns: int
    points: np.ndarray
    object_id: np.ndarray
    class_id: np.ndarray
    part_id: np.ndarray


def _header(stamp_ns: int, frame_id: str) -> Any:
    stamp = bags.message_class("builtin_interfaces/msg/Time")(stamp_ns // 10**9, stamp_ns % 10**9)
    return bags.message_class("std_msgs/msg/Header")(stamp, frame_id)


def _cloud_message(header: Any, columns: dict[str, np.ndarray]) -> Any:
    cloud = pointcloud2.encode(columns)
    make_field = bags.message_class("sensor_msgs/msg/PointField")
    fields = [make_field(field.name, field.offset, field.datatype, field.count) for field in cloud.fields]
    return bags.message_class(bags.POINT_CLOUD)(
        header, cloud.height, cloud.width, fields, cloud.is_bigendian, cloud.point_step, cloud.row_step,
        np.frombuffer(cloud.data, np.uint8), cloud.is_dense,
    )  # fmt: skip


def _odometry(header: Any, child: str, pose: np.ndarray) -> Any:
    from scipy.spatial.transform import Rotation

    def make(name: str, *values: Any) -> Any:
        return bags.message_class(f"geometry_msgs/msg/{name}")(*values)

    at = make("Pose", make("Point", *pose[:3, 3]), make("Quaternion", *Rotation.from_matrix(pose[:3, :3]).as_quat()))
    still = make("Twist", make("Vector3", 0.0, 0.0, 0.0), make("Vector3", 0.0, 0.0, 0.0))
    return bags.message_class("nav_msgs/msg/Odometry")(
        header, child, make("PoseWithCovariance", at, np.zeros(36)), make("TwistWithCovariance", still, np.zeros(36))
    )


def _labels() -> str:
    return json.dumps({"classes": dict(enumerate(CATEGORIES)), "parts": dict(enumerate(PART_NAMES))})


def write_world_bag(
    path: str | Path, config: WorldConfig, force: bool = False, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Simulate a recording and write it as an mcap bag.

    Topics: ``/points`` (PointCloud2 x y z intensity, frame ``lidar`` or ``camera``), ``/truth/points`` (same stamps,
    same points in the same order: x y z object_id class_id part_id), ``/truth/labels`` (latched JSON of names) and
    ``/odom`` (the sensor's true pose in the frame ``world``; the twist is left at zero).

    Args:
        force: replace a bag that is there.
        progress: called with (frames written, frames in all).

    Raises:
        InputError: the path cannot be written.
    """
    with write_bag(path, force=force) as bag:
        simulator = Simulator(config)
        bag.add_topic(LABELS, "std_msgs/msg/String", latched=True)
        bag.add_topic(POINTS, bags.POINT_CLOUD)
        bag.add_topic(TRUTH, bags.POINT_CLOUD)
        bag.add_topic(ODOMETRY, "nav_msgs/msg/Odometry")
        bag.write(LABELS, START_NS, bags.message_class("std_msgs/msg/String")(_labels()))
        for number in range(config.frames):
            frame = simulator.frame(number)
            _write_frame(bag, frame, config.frame_id)
            if progress is not None:
                progress(number + 1, config.frames)
    return Path(path)


def _write_frame(bag: BagWriter, frame: Frame, frame_id: str) -> None:
    stamp = frame.stamp_ns
    xyz = {axis: frame.points[:, column] for column, axis in enumerate("xyz")}
    header = _header(stamp, frame_id)
    ids = {"object_id": frame.object_id, "class_id": frame.class_id, "part_id": frame.part_id}
    bag.write(TRUTH, stamp, _cloud_message(header, {**xyz, **ids}))
    bag.write(ODOMETRY, stamp, _odometry(_header(stamp, "world"), frame_id, frame.pose_world_from_sensor))
    bag.write(POINTS, stamp, _cloud_message(header, {**xyz, "intensity": frame.intensity}))


def read_truth(path: str | Path) -> Iterator[Truth]:
    """Ground truth of the sweeps of a simulated bag, in order.

    Raises:
        InputError: no bag, or one without ground truth.
    """
    for _, _, message in bags.read_messages(path, TRUTH):
        points = pointcloud2.decode(message, TRUTH).reshape(-1)
        missing = [name for name in ("object_id", "class_id", "part_id") if name not in points.dtype.fields]
        if missing:
            raise InputError(
                f"{path}: topic '{TRUTH}' has no field {', '.join(missing)}; write it with 'foundry world'"
            )
        yield Truth(
            stamp_ns=pointcloud2.stamp_ns(message.header.stamp),
            points=pointcloud2.xyz(points, TRUTH),
            object_id=points["object_id"].astype(np.int32),
            class_id=points["class_id"].astype(np.int16),
            part_id=points["part_id"].astype(np.int16),
        )


def read_labels(path: str | Path) -> tuple[dict[int, str], dict[int, str]]:
    """Names of the classes and of the parts of a simulated bag, by id."""
    for _, _, message in bags.read_messages(path, LABELS):
        return names_of(message.data, f"{path}: topic '{LABELS}'")
    raise InputError(f"{path}: topic '{LABELS}' is empty; write the bag with 'foundry world'")
