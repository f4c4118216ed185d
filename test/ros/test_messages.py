# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from foundry_core import pointcloud2
from foundry_core.errors import InputError
from foundry_core.records import OBJECT, PART
from foundry_ros import messages


def header(stamp_ns: int = 12_000_000_034, frame: str = "lidar") -> Header:
    return Header(stamp=messages.to_time(stamp_ns), frame_id=frame)


@pytest.mark.parametrize("dtype", [OBJECT, PART])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_records_survive_the_wire(dtype, count):
    rng = np.random.default_rng(count)
    records = np.zeros(count, dtype)
    for name in dtype.names:
        records[name] = rng.integers(-1, 100, count)
    message = messages.records_message(header(), records)
    received = deserialize_message(serialize_message(message), PointCloud2)
    assert received.header == header()
    assert (received.height, received.width, received.is_dense) == (1, count, True)
    np.testing.assert_array_equal(messages.read_records(received, dtype, "topic"), records)
    if count:  # a stranger's decoder reads the same
        np.testing.assert_array_equal(pointcloud2.decode(received)["class_id"].reshape(-1), records["class_id"])


def test_records_of_another_layout_are_refused():
    message = messages.records_message(header(), np.zeros(3, OBJECT))
    with pytest.raises(InputError, match="no field 'object_id'"):
        messages.read_records(message, PART, "~/parts")
    with pytest.raises(ValueError, match="not packed"):
        messages.records_message(header(), np.zeros(3, np.dtype([("x", "<f4"), ("id", "<i2")], align=True)))


@pytest.mark.parametrize("stamp", [0, 1, 999_999_999, 1_700_000_000_123_456_789])
def test_stamp_of_serialised_message(stamp):
    message = PointCloud2(header=header(stamp))
    assert messages.cdr_stamp_ns(serialize_message(message)) == stamp == pointcloud2.stamp_ns(message.header.stamp)
    seconds, rest = divmod(stamp, 1_000_000_000)
    big_endian = b"\x00\x00\x00\x00" + seconds.to_bytes(4, "big") + rest.to_bytes(4, "big")
    assert messages.cdr_stamp_ns(big_endian) == stamp


@pytest.mark.parametrize("data", [b"", b"\x00\x01\x00\x00", b"\xff" * 40])
def test_no_stamp_in_garbage(data):
    with pytest.raises(ValueError, match="CDR"):
        messages.cdr_stamp_ns(data)


def test_markers_show_box_and_name():
    records = np.zeros(2, OBJECT)
    records["class_id"], records["size_z"], records["yaw"] = [1, -1], [2.0, 1.0], [np.pi / 2, 0]
    records["probability"], records["track_id"] = 0.9, [12, -1]
    markers = messages.markers_message(header(), records, {1: "car"}, 0.5).markers
    assert markers[0].action == markers[0].DELETEALL
    boxes, names = markers[1::2], markers[2::2]
    assert [name.text for name in names] == ["#12 car 90%", "unknown"]
    assert boxes[0].scale.z == 2.0 and boxes[0].pose.orientation.z == pytest.approx(np.sqrt(0.5))
    assert all(marker.header == header() for marker in markers)
    assert boxes[0].lifetime.nanosec == 500_000_000
    serialize_message(messages.markers_message(header(), records, {1: "car"}, 0.5))


def test_labels_name_every_id():
    labels = json.loads(messages.labels_message(["car", "pole"], ["wheel"]).data)
    assert labels == {"classes": {"-1": "unknown", "0": "car", "1": "pole"}, "parts": {"-1": "none", "0": "wheel"}}


def test_diagnostics_can_be_read_back():
    values = {"a": 0.1, "b": 3}
    message = messages.diagnostics_message(messages.to_time(5), "node: perception", "m", b"\x01", "x", values)
    assert messages.read_diagnostics(message, "node: perception") == {"a": "0.1", "b": "3"}
    assert messages.read_diagnostics(message, "other") is None
    assert message.status[0].level == b"\x01"
