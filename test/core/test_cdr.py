# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from foundry_core import cdr, pointcloud2
from foundry_core.data.bags import POINT_CLOUD, message_class, typestore
from foundry_core.errors import InputError


def wire(frame: str = "lidar", points: int = 5, fields: int = 3) -> bytes:
    """Serialised by the library that writes bags, which shares nothing with our reader."""
    time = message_class("builtin_interfaces/msg/Time")(-3, 7)
    names = ["x", "y", "z", *[f"extra{k}" for k in range(fields)]][:fields]
    described = [message_class("sensor_msgs/msg/PointField")(name, 4 * (k % 3), 7, 1) for k, name in enumerate(names)]
    data = np.arange(3 * points, dtype=np.float32).view(np.uint8)
    header = message_class("std_msgs/msg/Header")(time, frame)
    message = message_class(POINT_CLOUD)(header, 1, points, described, False, 12, 12 * points, data, True)
    return bytes(typestore().serialize_cdr(message, POINT_CLOUD))


@pytest.mark.parametrize("frame", ["", "l", "lidar", "lidar_front", "größe"])  # every alignment behind the name
def test_what_another_library_wrote_is_read(frame):
    message = cdr.read_point_cloud(wire(frame))
    assert message.header == cdr.Header(cdr.Stamp(-3, 7), frame)
    assert (message.height, message.width, message.point_step, message.row_step) == (1, 5, 12, 60)
    assert [field.name for field in message.fields] == ["x", "y", "z"]
    assert message.is_dense and not message.is_bigendian
    np.testing.assert_array_equal(pointcloud2.xyz(pointcloud2.decode(message)).ravel(), np.arange(15))


def test_the_points_are_not_copied():
    data = bytearray(wire())
    points = pointcloud2.decode(cdr.read_point_cloud(data))
    data[-5:-1] = np.float32(77).tobytes()  # z of the last point; is_dense is the last byte
    assert points["z"][0, -1] == 77


def test_every_shorter_message_is_refused():
    data = wire()
    for length in range(len(data)):
        with pytest.raises(InputError, match="^/points: not a serialised PointCloud2"):
            cdr.read_point_cloud(data[:length], "/points")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\3\0\0" + wire()[4:], "no plain CDR"),
        (wire("n" * 2000), "a name of 2001 bytes"),
        (wire(fields=300), "300 fields"),
    ],
)
def test_what_no_driver_sends_is_refused(data, reason):
    with pytest.raises(InputError, match=reason):
        cdr.read_point_cloud(data)
