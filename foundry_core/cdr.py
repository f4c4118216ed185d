# SPDX-License-Identifier: Apache-2.0
"""A serialised sensor_msgs/PointCloud2 (CDR, as DDS and bags carry it), read without ROS and without trust.

Every length is compared with the bytes that are there before anything is taken, and the points are a view of them.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from foundry_core.errors import InputError
from foundry_core.pointcloud2 import MAX_FIELDS, PointField

#: bytes; a longer frame_id is copied into every answer, and names no frame
MAX_NAME = 1024


class Stamp(NamedTuple):
    """builtin_interfaces/Time."""

    sec: int
    nanosec: int


class Header(NamedTuple):
    """std_msgs/Header."""

    stamp: Stamp
    frame_id: str


class StampedCloud(NamedTuple):
    """A sensor_msgs/PointCloud2 with its header; ``data`` is a view of the bytes that it was read from."""

    header: Header
    height: int
    width: int
    fields: tuple[PointField, ...]
    is_bigendian: bool
    point_step: int
    row_step: int
    data: Any
    is_dense: bool


class _Cursor:
    """Reads values one after the other; alignment counts from behind the 4 bytes of the encapsulation."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data[4:], 0
        self._order = "<" if data[1] & 1 else ">"

    def take(self, size: int) -> memoryview:
        end = self._at + size
        if end > len(self._data):
            raise ValueError(f"needs {size} bytes where {len(self._data) - self._at} are left")
        taken, self._at = self._data[self._at : end], end
        return taken

    def numbers(self, form: str) -> tuple[int, ...]:
        self._at += -self._at % 4
        form = self._order + form
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def text(self) -> str:
        (size,) = self.numbers("I")
        if size > MAX_NAME:
            raise ValueError(f"a name of {size} bytes")
        return str(self.take(size), "utf-8", "replace").rstrip("\0")

    def octets(self) -> memoryview:
        (size,) = self.numbers("I")
        return self.take(size)


def read_point_cloud(data: Any, name: str = "point cloud") -> StampedCloud:
    """The message in a buffer of bytes; its layout is not judged here, :func:`foundry_core.pointcloud2.decode` does.

    Args:
        name: topic or file that a complaint should name.

    Raises:
        InputError: not plain CDR, or shorter than its own lengths say.
    """
    data = memoryview(data)
    try:
        if len(data) < 4 or data[0] != 0 or data[1] > 1:
            raise ValueError("no plain CDR")
        cursor = _Cursor(data)
        header = Header(Stamp(*cursor.numbers("iI")), cursor.text())
        height, width, count = cursor.numbers("III")
        if count > MAX_FIELDS:
            raise ValueError(f"{count} fields")
        fields = []
        for _ in range(count):
            field_name = cursor.text()
            (offset,) = cursor.numbers("I")
            datatype = cursor.take(1)[0]
            fields.append(PointField(field_name, offset, datatype, *cursor.numbers("I")))
        is_bigendian = bool(cursor.take(1)[0])
        point_step, row_step = cursor.numbers("II")
        payload = cursor.octets()
        dense = bool(cursor.take(1)[0])
    except ValueError as error:
        raise InputError(f"{name}: not a serialised PointCloud2 ({error}); fix the publisher") from None
    return StampedCloud(header, height, width, tuple(fields), is_bigendian, point_step, row_step, payload, dense)
