# SPDX-License-Identifier: Apache-2.0
"""Point clouds: the value that flows through the project, and the files it is read from and written to."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foundry_core import cloud_files
from foundry_core.errors import InputError
from foundry_core.files import replacing

#: a file with more points is thinned evenly while it is read
MAX_POINTS = 4_000_000
#: metres; a coordinate beyond it is no measurement, and its square would leave float32's useful range
MAX_COORDINATE = 1e7
#: metres; doubles beyond it (map coordinates) are moved to a local origin before they become float32
_LOCAL_EXTENT = 1e4

READERS = {
    ".ply": cloud_files.ply_chunks,
    ".pcd": cloud_files.pcd_chunks,
    ".npy": cloud_files.npy_chunks,
    ".npz": cloud_files.npz_chunks,
    ".xyz": cloud_files.text_chunks,
    ".txt": cloud_files.text_chunks,
    ".bin": cloud_files.kitti_chunks,
}


@dataclass(frozen=True)
class Cloud:
    """Finite points of one sensor reading or one file.

    Attributes:
        points: float32 [N,3], metres, in ``frame_id`` (REP-103 axes for a sensor: x forward, y left, z up).
        intensity: float32 [N] in the sensor's own unit, or None.
        frame_id: name of the coordinate frame, "" if unknown.
        stamp_ns: time of the reading, nanoseconds.
        dropped_nonfinite: points of the source that were NaN, infinite or beyond MAX_COORDINATE.
        source_index: int64 [N], each point's index in the source; None when all source points were kept, in order.
        origin: metres, what was subtracted from the source's coordinates (only map-sized ones are moved).
    """

    points: np.ndarray
    intensity: np.ndarray | None = None
    frame_id: str = ""
    stamp_ns: int = 0
    dropped_nonfinite: int = 0
    source_index: np.ndarray | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        points = self.points
        if points.dtype != np.float32 or points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"expected float32 points [N,3], got {points.dtype} {points.shape}")
        if len(points) and not np.abs(points).max() <= MAX_COORDINATE:
            raise ValueError("points must be finite; use Cloud.from_points")
        for column in (self.intensity, self.source_index):
            if column is not None and column.shape != (len(points),):
                raise ValueError(f"expected one value per point, [{len(points)}], got {column.shape}")

    def __len__(self) -> int:
        return len(self.points)

    @classmethod
    def from_points(cls, points, intensity=None, frame_id: str = "", stamp_ns: int = 0) -> Cloud:
        """A cloud from points [N,3] of any real type: NaN, infinite and absurd ones are dropped and counted.

        Raises:
            ValueError: another shape than [N,3].
        """
        points = np.asarray(points)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"expected points [N,3], got shape {points.shape}")
        if intensity is not None:
            intensity = np.asarray(intensity, np.float32)
        with np.errstate(over="ignore"):
            single = np.ascontiguousarray(points, np.float32)
        if not len(single) or np.abs(single).max() <= MAX_COORDINATE:  # False for NaN
            return cls(single, intensity, frame_id, stamp_ns)
        kept = np.flatnonzero((np.abs(single) <= MAX_COORDINATE).all(axis=1))
        intensity = None if intensity is None else intensity[kept]
        return cls(single[kept], intensity, frame_id, stamp_ns, len(single) - len(kept), kept)


class _Thinner:
    """Collects chunks [n,3 or 4] of points; keeps every stride-th finite one and never more than ``limit``."""

    def __init__(self, limit: int) -> None:
        self.limit, self.stride, self.kept = limit, 1, 0
        self.rows, self.finite = 0, 0
        self.origin: np.ndarray | None = None
        self.parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, chunk: np.ndarray) -> None:
        usable = np.flatnonzero((np.abs(chunk[:, :3]) <= MAX_COORDINATE).all(axis=1))
        chosen = usable[(-self.finite) % self.stride :: self.stride]
        index = self.rows + chosen
        self.rows, self.finite = self.rows + len(chunk), self.finite + len(usable)
        if len(chosen) == 0:
            return
        values = chunk[chosen]
        if self.origin is None:
            self.origin = np.zeros(3)
            if chunk.dtype == np.float64 and np.abs(values[:, :3]).max() > _LOCAL_EXTENT:
                self.origin = np.round(values[0, :3])
        if self.origin.any():
            values[:, :3] -= self.origin
        self.parts.append((values.astype(np.float32), index))
        self.kept += len(chosen)
        while self.kept > self.limit:
            self._halve()

    def _halve(self) -> None:
        seen, parts = 0, []
        for values, index in self.parts:
            odd = seen % 2
            seen += len(index)
            parts.append((values[odd::2].copy(), index[odd::2].copy()))
        self.parts, self.stride = parts, self.stride * 2
        self.kept = sum(len(index) for _, index in parts)

    def cloud(self) -> Cloud:
        values = np.concatenate([part[0] for part in self.parts])
        index = np.concatenate([part[1] for part in self.parts]).astype(np.int64)
        intensity = np.ascontiguousarray(values[:, 3]) if values.shape[1] > 3 else None
        complete = len(index) == self.rows
        return Cloud(
            np.ascontiguousarray(values[:, :3]),
            intensity,
            dropped_nonfinite=self.rows - self.finite,
            source_index=None if complete else index,
            origin=tuple(float(value) for value in self.origin),
        )


def read_cloud(path: str | Path, max_points: int = MAX_POINTS) -> Cloud:
    """Read a .ply (vertices), .pcd, .npy or .npz ([N,3+]), .xyz or .txt (x y z per line) or KITTI .bin file.

    The file is read in chunks. NaN, infinite and absurd points are dropped and counted; where more than ``max_points``
    remain, every 2nd, 4th, ... is kept, so memory stays bounded. Coordinates are taken as metres.

    Raises:
        InputError: missing, empty, truncated or damaged file, unknown or wrong extension, pickled objects, another
            shape than a cloud's, or no finite point.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder; give a point cloud file")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: unknown kind of file '{path.suffix}'; give one of {' '.join(READERS)}")
    thinner = _Thinner(max_points)
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty; write it again")
        for chunk in _chunks(reader, path):
            thinner.add(chunk)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None
    if thinner.rows == 0:
        raise InputError(f"{path}: holds no points; write it again")
    if thinner.finite == 0:
        raise InputError(f"{path}: none of its {thinner.rows} points is finite; check how the file was written")
    return thinner.cloud()


def _chunks(reader, path: Path) -> Iterator[np.ndarray]:
    try:
        yield from reader(path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        raise InputError(f"{path}: not an .npz archive, or a damaged one; write it again with numpy.savez") from None


def require_shape(cloud: Cloud, name: str | Path) -> Cloud:
    """The cloud itself, if it can be an object's shape.

    Raises:
        InputError: a single point, or points that all coincide.
    """
    if len(cloud) < 2:
        raise InputError(f"{name}: {len(cloud)} usable point(s); at least 2 different points are needed")
    if not (cloud.points.max(axis=0) - cloud.points.min(axis=0)).max() > 1e-9:
        raise InputError(f"{name}: all {len(cloud)} points are identical; at least 2 different points are needed")
    return cloud


def write_ply(path: str | Path, cloud: Cloud, colors: np.ndarray | None = None) -> None:
    """Write a binary PLY: x y z, intensity if the cloud has it, and colors uint8 [N,3] if given."""
    columns = [(axis, "<f4", cloud.points[:, k]) for k, axis in enumerate("xyz")]
    if cloud.intensity is not None:
        columns.append(("intensity", "<f4", cloud.intensity))
    if colors is not None:
        columns += [(name, "u1", colors[:, k]) for k, name in enumerate(("red", "green", "blue"))]
    vertices = np.empty(len(cloud), [(name, kind) for name, kind, _ in columns])
    for name, _, values in columns:
        vertices[name] = values
    words = {"<f4": "float", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud)}"]
    header += [f"property {words[kind]} {name}" for name, kind, _ in columns]
    with replacing(path) as stream:
        stream.write(("\n".join([*header, "end_header"]) + "\n").encode("ascii"))
        stream.write(vertices.tobytes())
