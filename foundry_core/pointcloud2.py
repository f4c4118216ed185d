# SPDX-License-Identifier: Apache-2.0
"""The sensor_msgs/PointCloud2 layout in plain numpy, for bags and nodes alike, without ROS.

A message is any object with the attributes height, width, fields (each with name, offset, datatype, count),
is_bigendian, point_step, row_step and data: a ROS message, a rosbags message or a :class:`PointCloud2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from foundry_core.clouds import Cloud
from foundry_core.errors import InputError

#: sensor_msgs/PointField datatype -> numpy type without byte order
DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_CODES = {np.dtype(kind): code for code, kind in DATATYPES.items()}
#: more fields than any sensor has; each costs time before a single point is read
MAX_FIELDS = 256
_MAX_STEP = (1 << 31) - 1  # bytes of a numpy record
_INTENSITY = ("intensity", "Intensity", "i", "reflectivity", "reflectance")


class PointField(NamedTuple):
    """One field of a point: ``offset`` in bytes from the point's start, ``datatype`` a key of :data:`DATATYPES`."""

    name: str
    offset: int
    datatype: int
    count: int = 1


class PointCloud2(NamedTuple):
    """The payload of a sensor_msgs/PointCloud2, without its header."""

    height: int
    width: int
    fields: tuple[PointField, ...]
    is_bigendian: bool
    point_step: int
    row_step: int
    data: Any
    is_dense: bool = True


def _shown(field: Any) -> str:
    """A field's name as one short line, whatever it holds."""
    text = ascii(str(field))[1:-1]
    return text if len(text) <= 40 else f"{text[:40]}..."


def _listed(fields: Any) -> str:
    names = [_shown(field) for field in fields]
    return ", ".join(names[:16]) + (f" and {len(names) - 16} more" if len(names) > 16 else "")


def _point_type(message: Any, name: str) -> np.dtype:
    order = ">" if message.is_bigendian else "<"
    step = int(message.point_step)
    names, formats, offsets = [], [], []
    for field in message.fields:
        shown = _shown(field.name)
        if field.datatype not in DATATYPES:
            raise InputError(f"{name}: field '{shown}' has the unknown datatype {field.datatype}; expected 1 to 8")
        if not field.name or field.name in names:
            raise InputError(f"{name}: field name '{shown}' is empty or used twice; fix the publisher")
        kind, count = DATATYPES[field.datatype], max(int(field.count), 1)  # drivers are known to leave count at 0
        end = int(field.offset) + int(kind[1]) * count
        if field.offset < 0 or end > step:
            raise InputError(
                f"{name}: field '{shown}' ends at byte {end} of a point of {step} bytes; fix the publisher"
            )
        names.append(str(field.name))
        formats.append(order + kind if count == 1 else (order + kind, (count,)))
        offsets.append(int(field.offset))
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": step})


def decode(message: Any, name: str = "point cloud") -> np.ndarray:
    """The points of a message as a structured array [height, width], one column per field: a view, nothing is copied.

    Any field order, padding, byte order and row length is read as it is; a row_step of 0 (or, for a single row, any
    row_step) is repaired, see :func:`is_repaired`. A cloud without points is [0, 0].

    Args:
        name: topic or file that a complaint should name.

    Raises:
        InputError: fields and sizes contradict each other, there are more than MAX_FIELDS fields, or the buffer is
            shorter than they say.
    """
    height, width, step = int(message.height), int(message.width), int(message.point_step)
    if min(height, width) < 0 or not 1 <= step <= _MAX_STEP or not 1 <= len(message.fields) <= MAX_FIELDS:
        raise InputError(
            f"{name}: {height} x {width} points of {step} bytes with {len(message.fields)} fields is no point cloud"
        )
    kind = _point_type(message, name)
    if height == 0 or width == 0:
        return np.empty((0, 0), kind)  # the other size may be any lie
    row = int(message.row_step) if height > 1 else 0
    row = row or width * step
    try:
        buffer = np.frombuffer(message.data, np.uint8)
    except (TypeError, ValueError, AttributeError):  # lists, empty buffers
        buffer = np.asarray(message.data, np.uint8)
    needed = (height - 1) * row + width * step
    if row < width * step or buffer.size < needed:
        raise InputError(
            f"{name}: {height} x {width} points of {step} bytes with row_step {row} need {needed} bytes, "
            f"the message has {buffer.size}; fix the publisher"
        )
    return np.ndarray((height, width), kind, buffer=buffer, strides=(row, step))


def is_repaired(message: Any) -> bool:
    """Whether :func:`decode` reads the message with another row_step than it has."""
    row = int(message.width) * int(message.point_step)
    return message.row_step != row and (message.row_step == 0 or message.height == 1)


def xyz(points: np.ndarray, name: str = "point cloud") -> np.ndarray:
    """Coordinates float32 [N,3] of decoded points, NaN and infinite ones included.

    Raises:
        InputError: a field x, y or z is missing or not a scalar.
    """
    fields = points.dtype.fields
    missing = [axis for axis in "xyz" if axis not in fields or fields[axis][0].shape]
    if missing:
        raise InputError(
            f"{name}: no field {', '.join(missing)} among {_listed(fields)}; a cloud with x, y and z is needed"
        )
    kind, offset = fields["x"]
    size = kind.itemsize
    if all(fields[axis] == (kind, offset + k * size) for k, axis in enumerate("xyz")):  # neighbours: one block copy
        block = np.dtype({"names": ["p"], "formats": [(kind, 3)], "offsets": [offset], "itemsize": points.itemsize})
        return _float32(points.view(block)["p"]).reshape(-1, 3)
    out = np.empty((points.size, 3), np.float32)
    for k, axis in enumerate("xyz"):
        out[:, k] = _float32(points[axis]).reshape(-1)
    return out


def _float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # a double beyond float32 becomes infinite, and so no point
        return np.ascontiguousarray(values, np.float32)


def intensity(points: np.ndarray) -> np.ndarray | None:
    """Intensity float32 [N] of decoded points, or None where no field is known to hold it."""
    for field in _INTENSITY:
        if field in points.dtype.fields and not points.dtype[field].shape:
            return _float32(points[field]).reshape(-1)
    return None


def stamp_ns(stamp: Any) -> int:
    """A builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def to_cloud(message: Any, name: str = "point cloud") -> Cloud:
    """A message with its header (if it has one) as a :class:`Cloud`, in the frame of the message.

    ``source_index`` of the cloud counts the message's points row by row.

    Raises:
        InputError: as :func:`decode` and :func:`xyz`.
    """
    points = decode(message, name)
    header = getattr(message, "header", None)
    stamp = stamp_ns(header.stamp) if header is not None else 0
    frame_id = str(header.frame_id) if header is not None else ""
    return Cloud.from_points(xyz(points, name), intensity=intensity(points), frame_id=frame_id, stamp_ns=stamp)


def encode(columns: Mapping[str, np.ndarray]) -> PointCloud2:
    """Equally long columns [N] as one packed, little-endian row of points, in the order and types of the mapping.

    Raises:
        ValueError: columns of different lengths, or a type that PointCloud2 does not have (it has no 64-bit integers).
    """
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    counts = {column.shape for column in arrays.values()}
    if len(counts) != 1 or len(next(iter(counts))) != 1:
        raise ValueError(f"columns must share one shape [N], got {sorted(counts)}")
    fields, offset = [], 0
    for name, column in arrays.items():
        code = _CODES.get(column.dtype.newbyteorder("="))
        if code is None:
            raise ValueError(f"column '{name}' has type {column.dtype}, which PointCloud2 cannot hold")
        fields.append(PointField(name, offset, code))
        offset += column.dtype.itemsize
    kind = np.dtype([(field.name, "<" + DATATYPES[field.datatype]) for field in fields])
    points = np.empty(next(iter(counts)), kind)
    for name, column in arrays.items():
        points[name] = column
    data = points.view(np.uint8) if points.size else np.empty(0, np.uint8)
    return PointCloud2(1, len(points), tuple(fields), False, offset, offset * len(points), data)
