# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import numpy as np
import pytest

from foundry_core import pointcloud2
from foundry_core.errors import InputError
from foundry_core.pointcloud2 import PointCloud2, PointField


def _points(count=7):
    return np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)


def _message(kind, values, height=1, row_padding=0, big=False):
    """Build the bytes by hand, independently of encode()."""
    array = np.zeros(len(values["x"]), kind)
    for name, column in values.items():
        array[name] = column
    width = len(array) // height
    rows = [array[k * width : (k + 1) * width].tobytes() + b"\xaa" * row_padding for k in range(height)]
    codes = {np.dtype(form): code for code, form in pointcloud2.DATATYPES.items()}
    fields = [
        PointField(name, offset, codes[form.newbyteorder("=")]) for name, (form, offset) in array.dtype.fields.items()
    ]
    step = array.dtype.itemsize
    return PointCloud2(height, width, tuple(fields), big, step, width * step + row_padding, b"".join(rows))


@pytest.mark.parametrize("form", ["<f4", "<f8", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["xyz", "zyx", "yxz"])
def test_any_order_type_and_endianness(form, order):
    points = _points()
    message = _message([(axis, form) for axis in order], dict(zip("xyz", points.T)), big=form[0] == ">")
    decoded = pointcloud2.xyz(pointcloud2.decode(message))
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, points)


def test_padded_points_and_rows_of_an_organised_cloud():
    points = _points(12)
    kind = np.dtype({"names": ["x", "y", "z", "ring"], "formats": ["<f4"] * 3 + ["<u2"], "offsets": [4, 8, 12, 20],
                     "itemsize": 32})  # fmt: skip
    values = {**dict(zip("xyz", points.T)), "ring": np.arange(12)}
    message = _message(kind, values, height=3, row_padding=13)
    decoded = pointcloud2.decode(message)
    assert decoded.shape == (3, 4)
    np.testing.assert_array_equal(pointcloud2.xyz(decoded), points)
    np.testing.assert_array_equal(decoded["ring"].ravel(), np.arange(12))


def test_integer_coordinates_and_field_counts():
    kind = np.dtype([("x", "<i2"), ("y", "<i2"), ("z", "<i2"), ("normal", "<f4", (3,))])
    array = np.zeros(4, kind)
    array["x"], array["normal"] = [1, 2, 3, 4], 0.5
    fields = (PointField("x", 0, 3, 0), PointField("y", 2, 3), PointField("z", 4, 3), PointField("normal", 6, 7, 3))
    decoded = pointcloud2.decode(PointCloud2(1, 4, fields, False, 18, 72, array.tobytes()))
    np.testing.assert_array_equal(pointcloud2.xyz(decoded)[:, 0], [1, 2, 3, 4])
    assert decoded["normal"].shape == (1, 4, 3)


def test_decoding_copies_nothing():
    message = pointcloud2.encode(dict(zip("xyz", _points().T)))
    buffer = np.array(message.data)
    decoded = pointcloud2.decode(message._replace(data=buffer))
    assert np.shares_memory(decoded, buffer)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, list])
def test_any_buffer(wrap):
    points = _points()
    message = pointcloud2.encode(dict(zip("xyz", points.T)))
    data = wrap(np.asarray(message.data).tobytes())
    np.testing.assert_array_equal(pointcloud2.xyz(pointcloud2.decode(message._replace(data=data))), points)


def test_row_step_zero_is_repaired():
    points = _points(12)
    message = pointcloud2.encode(dict(zip("xyz", points.T)))._replace(height=3, width=4, row_step=0)
    np.testing.assert_array_equal(pointcloud2.xyz(pointcloud2.decode(message)), points)


def test_repairs_are_told():
    message = pointcloud2.encode(dict(zip("xyz", _points(12).T)))
    assert not pointcloud2.is_repaired(message)
    assert pointcloud2.is_repaired(message._replace(row_step=7))  # one row: what it says does not matter
    assert pointcloud2.is_repaired(message._replace(height=3, width=4, row_step=0))
    assert not pointcloud2.is_repaired(message._replace(height=3, width=4, row_step=48))


def test_an_empty_cloud_may_have_any_other_size():
    message = pointcloud2.encode(dict(zip("xyz", _points(0).T)))
    for height, width in ((0, 2**32 - 1), (2**32 - 1, 0), (0, 0)):
        lying = message._replace(height=height, width=width, point_step=2**31 - 1)
        assert pointcloud2.xyz(pointcloud2.decode(lying)).shape == (0, 3)


def test_doubles_beyond_float32_are_no_points():
    points = _points(3).astype(np.float64)
    points[1, 2] = 1e300
    assert len(pointcloud2.to_cloud(pointcloud2.encode(dict(zip("xyz", points.T))))) == 2


def test_complaints_are_short_whatever_the_names_hold():
    fields = tuple(PointField("n" * 5000 + f"\n{k}", 0, 7) for k in range(200))
    with pytest.raises(InputError) as caught:
        pointcloud2.to_cloud(PointCloud2(1, 1, fields, False, 12, 12, bytes(12)))
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_encode_and_decode_are_inverse():
    columns = {
        "x": np.arange(5, dtype=np.float32),
        "object_id": np.arange(5, dtype=np.int32) - 1,
        "class_id": np.arange(5, dtype=np.int16),
        "t": np.arange(5, dtype=np.float64) / 3,
        "flag": np.arange(5, dtype=np.uint8),
    }
    message = pointcloud2.encode(columns)
    assert message.point_step == 19 and message.row_step == 95 and len(message.data) == 95
    decoded = pointcloud2.decode(message)[0]
    for name, column in columns.items():
        assert decoded.dtype[name] == column.dtype
        np.testing.assert_array_equal(decoded[name], column)


def test_encode_of_nothing():
    message = pointcloud2.encode({axis: np.empty(0, np.float32) for axis in "xyz"})
    assert (message.height, message.width, message.point_step, len(message.data)) == (1, 0, 12, 0)
    assert pointcloud2.xyz(pointcloud2.decode(message)).shape == (0, 3)


@pytest.mark.parametrize("columns", [{"x": np.zeros(3, np.int64)}, {"x": np.zeros(3, "f4"), "y": np.zeros(2, "f4")}])
def test_encode_refuses(columns):
    with pytest.raises(ValueError):
        pointcloud2.encode(columns)


def test_to_cloud_reads_header_intensity_and_drops_nonfinite():
    points = _points()
    points[2, 1], points[4, 0] = np.nan, np.inf
    message = pointcloud2.encode({**dict(zip("xyz", points.T)), "intensity": np.arange(7, dtype=np.uint8)})
    header = SimpleNamespace(frame_id="lidar", stamp=SimpleNamespace(sec=3, nanosec=5))
    cloud = pointcloud2.to_cloud(SimpleNamespace(header=header, **message._asdict()))
    assert (cloud.frame_id, cloud.stamp_ns, cloud.dropped_nonfinite) == ("lidar", 3_000_000_005, 2)
    np.testing.assert_array_equal(cloud.source_index, [0, 1, 3, 5, 6])
    np.testing.assert_array_equal(cloud.intensity, [0, 1, 3, 5, 6])
    assert pointcloud2.to_cloud(pointcloud2.encode(dict(zip("xyz", points.T)))).intensity is None


_XYZ = tuple(PointField(axis, 4 * k, 7) for k, axis in enumerate("xyz"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": bytes(83)}, "the message has 83"),
        ({"data": b""}, "the message has 0"),
        ({"width": 2**32 - 1, "height": 2**32 - 1, "row_step": 0}, "need"),
        ({"height": 2, "width": 3, "row_step": 20}, "row_step 20"),
        ({"point_step": 8}, "ends at byte 12"),
        ({"point_step": 0}, "no point cloud"),
        ({"fields": ()}, "0 fields"),
        ({"fields": (*_XYZ, *(PointField(f"f{k}", 0, 2) for k in range(300)))}, "303 fields"),
        ({"point_step": 2**31}, "no point cloud"),
        ({"fields": (*_XYZ, PointField("i", 0, 9))}, "unknown datatype 9"),
        ({"fields": (*_XYZ, PointField("x", 0, 7))}, "used twice"),
        ({"fields": _XYZ[:2]}, "no field z"),
    ],
)
def test_bad_messages_are_named(change, reason):
    message = PointCloud2(1, 7, _XYZ, False, 12, 84, bytes(84))._replace(**change)
    with pytest.raises(InputError, match=reason) as caught:
        pointcloud2.to_cloud(message, "/points")
    assert str(caught.value).startswith("/points: ") and "\n" not in str(caught.value)
