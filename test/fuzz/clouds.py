# SPDX-License-Identifier: Apache-2.0
"""Malformed PointCloud2 messages from a seed, and what decoding must make of them.

A message begins as a lawful one of random layout; lies are then told about it, and its serialised form may be damaged.
What decoding accepts is compared, point for point, with values read by ``struct`` at the places that the message names.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from foundry_core import cdr, pointcloud2
from foundry_core.cdr import Header, Stamp, StampedCloud
from foundry_core.clouds import MAX_COORDINATE
from foundry_core.errors import InputError
from foundry_core.pointcloud2 import DATATYPES, PointField
from fuzz import guard

_FORMS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 8: "d"}
_SIZES = {code: struct.calcsize(form) for code, form in _FORMS.items()}
_LIES = (0, 1, 2, 3, 7, 12, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 16, 2**32 - 1)
_NAMES = ("x", "y", "z", "", "intensity", "rgb", "ring", "x\n", "\0", "X", "ünï", "n" * 300)
_EXTREMES = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 3.4e38, 1e300, 5e6, -5e6)


def lawful(rng: np.random.Generator) -> StampedCloud:
    """A message that must be accepted: any order and types of fields, gaps, byte order, rows, padding."""
    names = [*"xyz", *rng.choice(["intensity", "ring", "t", "rgb"], rng.integers(0, 3), replace=False)]
    rng.shuffle(names)
    fields, offset = [], int(rng.integers(0, 5))
    for name in names:
        code = int(rng.choice([7, 8, 7, 7, 3, 5])) if name in "xyz" else int(rng.integers(1, 9))
        count = 1 if name in "xyz" else int(rng.choice([0, 1, 1, 3]))
        fields.append(PointField(str(name), offset, code, count))
        offset += _SIZES[code] * max(count, 1) + int(rng.choice([0, 0, 1, 4]))
    step = offset + int(rng.choice([0, 0, 3, 16]))
    height, width = (1, int(rng.integers(0, 40))) if rng.random() < 0.5 else tuple(map(int, rng.integers(0, 8, 2)))
    row = width * step + (int(rng.choice([0, 0, 5])) if height > 1 else 0)
    big = bool(rng.random() < 0.2)
    data = bytearray(rng.bytes(height * row) if rng.random() < 0.3 else height * row)
    for at in range(0, height * row - step + 1, max(step, 1)) if row == width * step and step else ():
        for field in fields:
            if field.datatype > 6 and field.name in "xyz":
                value = float(rng.choice(_EXTREMES)) if rng.random() < 0.1 else float(rng.normal(0, 20))
                if field.datatype == 7 and 3.4e38 < abs(value) < math.inf:
                    value = math.inf
                struct.pack_into((">" if big else "<") + _FORMS[field.datatype], data, at + field.offset, value)
    header = Header(Stamp(int(rng.integers(-5, 2**31)), int(rng.integers(0, 2**32))), "lidar")
    sent_row = 0 if row == width * step and rng.random() < 0.2 else row
    return StampedCloud(header, height, width, tuple(fields), big, step, sent_row, bytes(data), True)


def lie(message: StampedCloud, rng: np.random.Generator) -> StampedCloud:
    """One thing about the message is no longer true, or no longer usual."""
    kind = int(rng.integers(0, 12))
    number = int(rng.choice(_LIES)) if rng.random() < 0.7 else int(rng.integers(0, 2**32))
    fields = list(message.fields)
    if kind < 4:
        return message._replace(**{("height", "width", "point_step", "row_step")[kind]: number})
    if kind == 4:
        return message._replace(is_bigendian=not message.is_bigendian)
    if kind == 5:
        return message._replace(data=message.data[: int(rng.integers(0, len(message.data) + 1))])
    if kind == 6:
        return message._replace(data=message.data + rng.bytes(int(rng.integers(1, 64))))
    if kind == 7:
        return message._replace(data=rng.bytes(len(message.data)))
    if kind == 8 or not fields:
        many = int(rng.choice([1, 1, 2, 300]))
        name = str(rng.choice(_NAMES))
        new = PointField(name, number, int(rng.integers(0, 12)), int(rng.choice(_LIES)))
        return message._replace(fields=(*fields, *[new] * many))
    at = int(rng.integers(0, len(fields)))
    if kind == 9:
        del fields[at]
    elif kind == 10:
        fields[at] = fields[at]._replace(name=str(rng.choice(_NAMES)))
    else:
        key = ("offset", "datatype", "count")[int(rng.integers(0, 3))]
        fields[at] = fields[at]._replace(**{key: number % 256 if key == "datatype" else number})
    return message._replace(fields=tuple(fields))


def serialise(message: StampedCloud, big_endian: bool = False) -> bytes:
    """CDR, written independently of the reader."""
    order, out = (">" if big_endian else "<"), bytearray()

    def numbers(form: str, *values: int) -> None:
        out.extend(bytes(-len(out) % 4))
        out.extend(struct.pack(order + form, *values))

    def text(value: str) -> None:
        encoded = value.encode() + b"\0"
        numbers("I", len(encoded))
        out.extend(encoded)

    numbers("iI", *message.header.stamp)
    text(message.header.frame_id)
    numbers("III", message.height, message.width, len(message.fields))
    for field in message.fields:
        text(field.name)
        numbers("I", field.offset)
        out.append(field.datatype)
        numbers("I", field.count)
    out.append(message.is_bigendian)
    numbers("II", message.point_step, message.row_step)
    numbers("I", len(message.data))
    out.extend(message.data)
    out.append(message.is_dense)
    return bytes([0, 0 if big_endian else 1, 0, 0]) + bytes(out)


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, cut, doubled, or overwritten by a length that is a lie."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, max(len(out), 1)))
        if rng.random() < 0.5:  # where the lengths are
            at = min(at, 120)
        kind = int(rng.integers(0, 5))
        if kind == 0 and out:
            out[min(at, len(out) - 1)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            out[at:at] = out[at : at + int(rng.integers(1, 33))]
        elif kind == 3:
            at -= at % 4
            out[at : at + 4] = struct.pack("<I", int(rng.choice(_LIES)))
        else:
            out[at : at + 8] = rng.bytes(8)
    return bytes(out)


class Case(NamedTuple):
    """One message of the sequence that a seed gives."""

    seed: tuple[int, int]
    message: StampedCloud
    wire: bytes
    is_lawful: bool


def case(seed: int, number: int) -> Case:
    """The case ``number`` of ``seed``: one in ten lawful, half of the others damaged on the wire."""
    rng = np.random.default_rng((seed, number))
    message = lawful(rng)
    if number % 10 == 0:
        return Case((seed, number), message, serialise(message, bool(rng.random() < 0.5)), True)
    for _ in range(int(rng.integers(1, 4))):
        message = lie(message, rng)
    wire = serialise(message, bool(rng.random() < 0.1))
    return Case((seed, number), message, damage(wire, rng) if rng.random() < 0.5 else wire, False)


def _expected(message: Any, row: int, column: int) -> list[float]:
    """x, y and z of one point as float32, read with struct."""
    length = message.row_step if message.height > 1 else 0
    at = row * (length or message.width * message.point_step) + column * message.point_step
    order = ">" if message.is_bigendian else "<"
    by_name = {field.name: field for field in message.fields}
    values = []
    for axis in "xyz":
        field = by_name[axis]
        (value,) = struct.unpack_from(order + _FORMS[field.datatype], message.data, at + field.offset)
        with np.errstate(all="ignore"):
            values.append(float(np.float64(value).astype(np.float32)))
    return values


_REASONS = {
    "the message has": "shorter than its sizes say",
    "ends at byte": "field beyond the point",
    "unknown datatype": "unknown datatype",
    "used twice": "field name empty or twice",
    "no point cloud": "no points or no fields",
    "no field": "no x, y, z",
    "serialised": "not a serialised message",
}


def _in_short(text: str) -> str:
    return "refused: " + next((reason for words, reason in _REASONS.items() if words in text), text[:60])


def check(message: Any) -> str:
    """Decode as the node does; returns how it ended, in short.

    Raises:
        AssertionError: accepted, with points that the message does not hold.
    """
    try:
        decoded = pointcloud2.decode(message, "fuzz")
        coordinates = pointcloud2.xyz(decoded, "fuzz")
        cloud = pointcloud2.to_cloud(message, "fuzz")
    except InputError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 2000 and text.startswith("fuzz: "), text
        return _in_short(text)
    rows, columns = decoded.shape
    assert rows * columns == message.height * message.width == len(coordinates)
    for number in {0, len(coordinates) // 2, len(coordinates) - 1} if len(coordinates) else ():
        expected = _expected(message, number // columns, number % columns)
        np.testing.assert_array_equal(coordinates[number], np.float32(expected))
    with np.errstate(invalid="ignore"):
        kept = (np.abs(coordinates) <= MAX_COORDINATE).all(axis=1)
    np.testing.assert_array_equal(cloud.points, coordinates[kept])
    assert cloud.dropped_nonfinite == len(coordinates) - len(cloud)
    return "accepted" if len(coordinates) else "accepted, no points"


def judge(wire: bytes) -> tuple[str, Any]:
    """Read a serialised message and decode it; returns how it ended, in short, and the message, None if refused.

    Raises:
        AssertionError: see :func:`check`; or refused in more than one line.
    """
    try:
        message = cdr.read_point_cloud(wire, "fuzz")
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
        return _in_short(str(error)), None
    return check(message), message


def run(count: int, seed: int, seconds_each: float = 2.0) -> dict[str, Any]:
    """Send ``count`` cases through the reader of the wire and the decoder.

    Returns:
        messages, outcomes {text: count}, faults [text], memory_mb grown.
    """
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    before = 0.0
    for number in range(count):
        item = case(seed, number)
        if number == min(1000, count - 1):
            before = guard.resident_mb()
        try:
            with guard.time_limit(seconds_each), guard.strict():
                outcome, message = judge(item.wire)
                if item.is_lawful:
                    assert message == item.message, "another message was read than was written"
                    assert outcome.startswith("accepted"), f"lawful, but {outcome}"
        except (Exception, guard.Hang) as error:
            outcome = "FAULT"
            if len(faults) < 20:
                faults.append(f"case {item.seed}: {type(error).__name__}: {str(error)[:300]}")
        outcomes[outcome] += 1
    grown = guard.resident_mb() - before
    return {"messages": count, "seed": seed, "outcomes": dict(outcomes.most_common()), "faults": faults,
            "memory_grown_mb": round(grown, 1)}  # fmt: skip


assert set(_FORMS) == set(DATATYPES)
