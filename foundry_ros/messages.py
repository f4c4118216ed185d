# SPDX-License-Identifier: Apache-2.0
"""Conversion between foundry_core values and ROS messages; message layouts are those of the README's tables."""

from __future__ import annotations

import array
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, Quaternion, Vector3
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header, String
from visualization_msgs.msg import Marker, MarkerArray

from foundry_core import cdr, pointcloud2
from foundry_core.colors import class_color
from foundry_core.errors import InputError


def to_time(nanoseconds: int) -> Time:
    """Nanoseconds as a ROS time."""
    seconds, rest = divmod(int(nanoseconds), 1_000_000_000)
    return Time(sec=seconds, nanosec=rest)


def to_header(header: cdr.Header) -> Header:
    """A header as it was read, stamp and frame_id unchanged."""
    return Header(stamp=Time(sec=header.stamp.sec, nanosec=header.stamp.nanosec), frame_id=header.frame_id)


def status_name(node: str, subject: str) -> str:
    """Name of a node's status on /diagnostics; ``node`` with its namespace, if it has one."""
    return f"{node.strip('/')}: {subject}"


def cdr_stamp_ns(data: bytes) -> int:
    """Stamp of a serialised message (CDR, either byte order) that begins with a std_msgs/Header."""
    if len(data) < 12 or data[0] != 0 or data[1] > 3:
        raise ValueError("not a CDR message with a header")
    order = "little" if data[1] & 1 else "big"
    seconds = int.from_bytes(data[4:8], order, signed=True)
    return seconds * 1_000_000_000 + int.from_bytes(data[8:12], order)


def records_message(header: Header, records: np.ndarray) -> PointCloud2:
    """A packed structured array [N], such as of ``records.OBJECT`` or ``records.PART``, as a dense PointCloud2."""
    layout = pointcloud2.encode({name: records[name][:0] for name in records.dtype.names})
    if layout.point_step != records.itemsize:
        raise ValueError(f"records of {records.itemsize} bytes are not packed ({layout.point_step} bytes)")
    message = PointCloud2(header=header, height=1, width=len(records), is_bigendian=False, is_dense=True)
    message.fields = [PointField(name=f.name, offset=f.offset, datatype=f.datatype, count=1) for f in layout.fields]
    message.point_step, message.row_step = records.itemsize, records.nbytes
    data = array.array("B")
    data.frombytes(memoryview(np.ascontiguousarray(records)).cast("B") if len(records) else b"")
    message.data = data  # bytes or a list would be checked value by value
    return message


def read_records(message: PointCloud2, dtype: np.dtype, name: str) -> np.ndarray:
    """The points of a message as a contiguous structured array [N] of ``dtype``.

    Raises:
        InputError: not a cloud, or one of other fields.
    """
    points = pointcloud2.decode(message, name).reshape(-1)
    if points.dtype == dtype:
        return points.copy()
    out = np.empty(len(points), dtype)
    for field in dtype.names:
        if field not in (points.dtype.names or ()):
            raise InputError(f"{name}: no field '{field}'; is it from perception_node?")
        out[field] = points[field]
    return out


def markers_message(header: Header, records: np.ndarray, names: Mapping[int, str], lifetime_s: float) -> MarkerArray:
    """A box and a caption per object record [n], after a marker that clears the previous frame's."""
    lifetime = Duration(sec=int(lifetime_s), nanosec=int(lifetime_s % 1 * 1e9))
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for index, row in enumerate(records):
        class_id = int(row["class_id"])
        red, green, blue = class_color(class_id)
        x, y, z, yaw = (float(row[name]) for name in ("x", "y", "z", "yaw"))
        size = Vector3(x=float(row["size_x"]), y=float(row["size_y"]), z=float(row["size_z"]))
        box = Marker(header=header, ns="boxes", id=index, type=Marker.CUBE, action=Marker.ADD, lifetime=lifetime)
        box.pose.position = Point(x=x, y=y, z=z)
        box.pose.orientation = Quaternion(z=float(np.sin(yaw / 2)), w=float(np.cos(yaw / 2)))
        box.scale, box.color = size, ColorRGBA(r=red, g=green, b=blue, a=0.35)
        text = Marker(header=header, ns="names", id=index, type=Marker.TEXT_VIEW_FACING, lifetime=lifetime)
        text.pose.position = Point(x=x, y=y, z=z + size.z / 2 + 0.3)
        text.pose.orientation.w = 1.0
        text.scale, text.color = Vector3(z=0.4), ColorRGBA(r=red, g=green, b=blue, a=1.0)
        name = names.get(class_id, "unknown")
        text.text = f"#{int(row['track_id'])} {name}" if row["track_id"] >= 0 else name
        if class_id >= 0:
            text.text += f" {float(row['probability']):.0%}"
        markers += [box, text]
    return MarkerArray(markers=markers)


def labels_message(classes: Sequence[str], parts: Sequence[str]) -> String:
    """``~/labels``: JSON ``{"classes": {"-1": "unknown", "0": name, ...}, "parts": {"0": name, ...}}``."""
    names = {"-1": "unknown", **{str(index): name for index, name in enumerate(classes)}}
    part_names = {"-1": "none", **{str(index): name for index, name in enumerate(parts)}}
    return String(data=json.dumps({"classes": names, "parts": part_names}))


def diagnostics_message(
    stamp: Time, name: str, hardware_id: str, level: bytes, text: str, values: Mapping[str, Any]
) -> DiagnosticArray:
    """``/diagnostics`` with one status; numbers are written with enough digits to be read back."""
    pairs = [KeyValue(key=key, value=f"{value:.12g}" if isinstance(value, float) else str(value))
             for key, value in values.items()]  # fmt: skip
    status = DiagnosticStatus(level=level, name=name, message=text, hardware_id=hardware_id, values=pairs)
    return DiagnosticArray(header=Header(stamp=stamp), status=[status])


def read_diagnostics(message: DiagnosticArray, name: str) -> dict[str, str] | None:
    """Key -> value of the status ``name``, or None when the message has no such status."""
    for status in message.status:
        if status.name == name:
            return {pair.key: pair.value for pair in status.values}
    return None
