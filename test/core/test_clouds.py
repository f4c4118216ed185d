# SPDX-License-Identifier: Apache-2.0
import io
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from foundry_core import cloud_files, clouds
from foundry_core.clouds import Cloud, read_cloud, require_shape, write_ply
from foundry_core.errors import InputError


@pytest.fixture
def points():
    return np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)


def _lzf_literals(data: bytes) -> bytes:
    blocks = [data[k : k + 32] for k in range(0, len(data), 32)]
    return b"".join(bytes([len(block) - 1]) + block for block in blocks)


def _pcd(points, storage, payload, intensity=False):
    names = ["x", "y", "z"] + ["intensity"] * intensity
    header = (
        f"# .PCD v0.7\nVERSION 0.7\nFIELDS {' '.join(names)}\nSIZE {'4 ' * len(names)}\nTYPE {'F ' * len(names)}\n"
        f"COUNT {'1 ' * len(names)}\nWIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\n"
        f"DATA {storage}\n"
    )
    return header.encode() + payload


def _rows(points):
    return "\n".join(" ".join(f"{value:.9g}" for value in row) for row in points).encode() + b"\n"


def _ply(points, form, payload):
    return f"ply\nformat {form} 1.0\ncomment c\nelement vertex {len(points)}\n".encode() + (
        b"property float x\nproperty float y\nproperty float z\nend_header\n" + payload
    )


def _saved(save, **arrays):
    stream = io.BytesIO()
    save(stream, **arrays) if save is not np.save else np.save(stream, *arrays.values())
    return stream.getvalue()


def _files(points):
    soa = np.ascontiguousarray(points.T).tobytes()
    packed = _lzf_literals(soa)
    return {
        "ascii.ply": _ply(points, "ascii", _rows(points)),
        "little.ply": _ply(points, "binary_little_endian", points.tobytes()),
        "big.ply": _ply(points, "binary_big_endian", points.astype(">f4").tobytes()),
        "ascii.pcd": _pcd(points, "ascii", _rows(points)),
        "binary.pcd": _pcd(points, "binary", points.tobytes()),
        "compressed.pcd": _pcd(points, "binary_compressed", struct.pack("<II", len(packed), len(soa)) + packed),
        "a.npy": _saved(np.save, points=points),
        "fortran.npy": _saved(np.save, points=np.asfortranarray(points)),
        "a.npz": _saved(np.savez_compressed, other=np.zeros(4), points=points),
        "first.npz": _saved(np.savez, label=np.zeros(4), cloud=points.astype(np.float64)),
        "a.xyz": _rows(points),
        "count.xyz": b"50\n" + _rows(points),
        "heading.txt": b"x,y,z\n# comment\n" + _rows(points).replace(b" ", b", "),
        "a.bin": np.c_[points, np.ones(50, np.float32)].tobytes(),
    }


@pytest.mark.parametrize("name", list(_files(np.zeros((50, 3), np.float32))))
def test_every_format_gives_the_same_points(name, points, tmp_path):
    path = tmp_path / name
    path.write_bytes(_files(points)[name])
    cloud = read_cloud(path)
    assert cloud.points.dtype == np.float32 and cloud.dropped_nonfinite == 0 and cloud.source_index is None
    np.testing.assert_array_equal(cloud.points, points)


@pytest.mark.parametrize("name", list(_files(np.zeros((50, 3), np.float32))))
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.6, 0.97])
def test_truncated_and_empty_files(name, kept, points, tmp_path):
    data = _files(points)[name]
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * kept)])
    if name.endswith(("xyz", "txt")) and kept or name == "a.bin" and int(len(data) * kept) % 16 == 0 and kept:
        return  # a headerless file cut between two points cannot be told from a shorter one
    with pytest.raises(InputError) as caught:
        read_cloud(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_open3d_reads_what_we_write_and_the_reverse(points, tmp_path):
    open3d = pytest.importorskip("open3d", exc_type=ImportError)
    write_ply(tmp_path / "a.ply", Cloud.from_points(points), np.full((50, 3), 7, np.uint8))
    theirs = open3d.t.io.read_point_cloud(str(tmp_path / "a.ply"))
    np.testing.assert_array_equal(theirs.point.positions.numpy(), points)
    assert (theirs.point.colors.numpy() == 7).all()
    repeated = np.tile(points.round(1), (40, 1))  # repetition makes LZF use its back references
    cloud = open3d.t.geometry.PointCloud(open3d.core.Tensor(repeated))
    for ascii_, compressed in [(True, False), (False, False), (False, True)]:
        open3d.t.io.write_point_cloud(str(tmp_path / "b.pcd"), cloud, write_ascii=ascii_, compressed=compressed)
        np.testing.assert_allclose(read_cloud(tmp_path / "b.pcd").points, repeated, atol=1e-6)


def test_ply_round_trip_with_intensity_leaves_no_partial_file(points, tmp_path):
    write_ply(tmp_path / "sub" / "a.ply", Cloud.from_points(points, intensity=np.arange(50)))
    cloud = read_cloud(tmp_path / "sub" / "a.ply")
    np.testing.assert_array_equal(cloud.points, points)
    np.testing.assert_array_equal(cloud.intensity, np.arange(50))
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.ply"]


def test_other_elements_and_properties_of_a_ply(points, tmp_path):
    header = (
        "ply\nformat binary_little_endian 1.0\nelement camera 2\nproperty double f\nelement vertex 50\n"
        "property uchar red\nproperty double x\nproperty double y\nproperty double z\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    kind = np.dtype([("red", "u1"), ("p", "<f8", 3)])
    rows = np.zeros(50, kind)
    rows["p"] = points
    (tmp_path / "a.ply").write_bytes(header.encode() + bytes(16) + rows.tobytes() + b"\3" + bytes(12))
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.ply").points, points)


def test_nonfinite_points_are_dropped_and_counted(points, tmp_path):
    points[3, 0], points[4, 2], points[9, 1] = np.nan, -np.inf, 1e30
    np.save(tmp_path / "a.npy", points)
    for cloud in (read_cloud(tmp_path / "a.npy"), Cloud.from_points(points, intensity=np.arange(50))):
        assert cloud.dropped_nonfinite == 3 and len(cloud) == 47
        np.testing.assert_array_equal(cloud.points, points[cloud.source_index])
    assert list(cloud.intensity) == list(cloud.source_index)


def test_map_coordinates_keep_their_precision(points, tmp_path):
    far = points.astype(np.float64) + [691_000.0, 5_336_000.0, 500.0]
    np.save(tmp_path / "a.npy", far)
    cloud = read_cloud(tmp_path / "a.npy")
    np.testing.assert_allclose(cloud.points + np.array(cloud.origin), far, atol=1e-6)


_GARBAGE = np.random.default_rng(0).integers(0, 256, 4096, np.uint8).tobytes()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.ply", _GARBAGE, "not a PLY file"),
        ("a.pcd", _GARBAGE, "not a PCD file"),
        ("a.npy", _GARBAGE, "not a NumPy array"),
        ("a.npz", _GARBAGE, "not an .npz archive"),
        ("a.xyz", _GARBAGE, "not text"),
        ("a.bin", _GARBAGE, "not KITTI points"),
        ("a.xyz", b"hello world\nthis is prose\n", "not a table"),
        ("a.xyz", b"1 2\n3 4\n", "columns"),
        ("a.xyz", b"1 2 3\n1 2 3 4\n", "not a table"),
        ("a.las", b"LASF", "unknown kind of file '.las'"),
        ("cloud", b"1 2 3", "unknown kind of file ''"),
        ("a.npy", pickle.dumps(np.zeros((4, 3))), "not a NumPy array"),
        ("a.npy", _saved(np.save, a=np.array([[1, 2, 3]], object)), "pickled objects"),
        ("a.npz", _saved(np.savez, points=np.array([{}], object)), "pickled objects"),
        ("a.npz", _saved(np.savez, points=np.zeros((2, 9, 3))), "holds float64 \\[2, 9, 3\\]"),
        ("a.npz", _saved(np.savez, label=np.zeros(3)), "no array 'points'"),
        ("a.npy", _saved(np.save, a=np.zeros((3, 900))), "holds float64 \\[3, 900\\]"),
        ("a.npy", _saved(np.save, a=np.zeros((9, 3), complex)), "complex"),
        ("a.npy", _saved(np.save, a=np.zeros((0, 3))), "holds no points"),
        ("a.npy", _saved(np.save, a=np.full((5, 3), np.nan)), "none of its 5 points is finite"),
        ("a.bin", np.full((5, 4), np.nan, np.float32).tobytes(), "none of its 5 points is finite"),
        ("a.ply", _ply(range(10**9), "binary_little_endian", b""), "truncated"),
        ("a.ply", _ply([], "ascii", b""), "holds no points"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement face 1\nend_header\n", "no vertices"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "no field y, z"),
        ("a.pcd", _pcd(range(10), "binary_compressed", struct.pack("<II", 8, 120) + b"\xff" * 8), "damaged"),
        ("a.pcd", _pcd(range(10**9), "binary_compressed", struct.pack("<II", 8, 1) + b"\0" * 8), "contradicts"),
        ("a.pcd", _pcd([1], "zip", b""), "header is damaged"),
    ],
)
def test_bad_files_are_named_in_one_line(name, data, reason, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=reason) as caught:
        read_cloud(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_damaged_archive_member(points, tmp_path):
    data = bytearray(_saved(np.savez, points=points))
    data[300] ^= 0xFF  # inside the stored array: the checksum fails
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_cloud(tmp_path / "a.npz")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_cloud(tmp_path / "none.ply")
    (tmp_path / "dir.ply").mkdir()
    for folder in (tmp_path / "dir.ply", tmp_path):
        with pytest.raises(InputError, match="is a folder"):
            read_cloud(folder)


@pytest.mark.parametrize("name", [name for name in _files(np.zeros((50, 3), np.float32)) if not name.endswith(".bin")])
def test_another_kind_of_file_is_no_kitti_sweep(name, points, tmp_path):
    content = _files(points)[name]
    content += b"\n" * (-len(content) % 16)  # whole KITTI points, by chance
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(InputError, match="not a KITTI sweep"):
        read_cloud(tmp_path / "a.bin")


def test_a_truncated_kitti_sweep(tmp_path):
    np.ones((50, 4), "<f4").tofile(tmp_path / "a.bin")
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.bin").read_bytes()[:-3])
    with pytest.raises(InputError, match="797 bytes are not whole KITTI points .*; copy or write the file again"):
        read_cloud(tmp_path / "a.bin")


@pytest.mark.parametrize(("count", "reason"), [(1, "1 usable point"), (40, "all 40 points are identical")])
def test_no_shape_without_extent(count, reason):
    with pytest.raises(InputError, match=f"a.ply: .*{reason}"):
        require_shape(Cloud.from_points(np.full((count, 3), 2.5)), "a.ply")


def test_an_extended_cloud_is_a_shape(points):
    cloud = Cloud.from_points(points)
    assert require_shape(cloud, "a.ply") is cloud


@pytest.mark.parametrize("limit", [1, 7, 49, 50, 1000])
def test_thinning_is_even_and_bounded_whatever_the_chunks(limit, monkeypatch, tmp_path):
    values = np.arange(50, dtype=np.float32)[:, None].repeat(3, axis=1)
    values[10:13] = np.nan
    np.save(tmp_path / "a.npy", values)
    seen = []
    for chunk in (3, 8, 64):
        monkeypatch.setattr(cloud_files, "CHUNK", chunk)
        cloud = read_cloud(tmp_path / "a.npy", max_points=limit)
        assert len(cloud) <= limit and cloud.dropped_nonfinite == 3
        np.testing.assert_array_equal(cloud.points[:, 0], cloud.source_index)
        finite = np.delete(np.arange(50), [10, 11, 12])
        steps = np.diff(np.searchsorted(finite, cloud.source_index))
        assert len(set(steps.tolist())) <= 1 and (limit < 47 or len(cloud) == 47)
        seen.append(cloud.source_index.tolist())
    assert seen[0] == seen[1] == seen[2]


def test_ten_million_points_in_bounded_memory(tmp_path):
    path = tmp_path / "large.npz"
    block = np.random.default_rng(0).normal(size=(100_000, 3)).astype(np.float32).tobytes()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10_000_000, 3)}
    )  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive, archive.open("points.npy", "w") as stream:
        stream.write(header.getvalue())
        for _ in range(100):
            stream.write(block)
    code = (
        "import resource, sys; from foundry_core.clouds import read_cloud\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "cloud = read_cloud(sys.argv[1], max_points=500_000)\n"
        "print(len(cloud), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    kept, grown = done.stdout.split()
    assert 250_000 <= int(kept) <= 500_000
    assert float(grown) < 60  # MB; the array alone has 120


def test_cloud_validates_itself(points):
    for bad in (points.astype(np.float64), points[:, :2], np.full((2, 3), np.nan, np.float32)):
        with pytest.raises(ValueError):
            Cloud(bad)
    with pytest.raises(ValueError):
        Cloud(points, intensity=np.zeros(3, np.float32))
    assert len(Cloud.from_points(np.empty((0, 3)))) == 0
    assert clouds.MAX_POINTS <= 4_000_000
