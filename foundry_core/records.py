# SPDX-License-Identifier: Apache-2.0
"""Objects and parts as flat records: the layout of the topics ``~/objects`` and ``~/parts`` and of results files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from foundry_core.errors import InputError
from foundry_core.files import replacing

#: one record per object; metres and radians in the cloud's frame; class_id -1 is unknown, track_id -1 is not tracked
OBJECT = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "size_x", "size_y", "size_z", "yaw")]
    + [("class_id", "<i4"), ("probability", "<f4"), ("track_id", "<i4")]
)
#: one record per finite input point, in the input's order; object_id indexes the objects, -1 is background
PART = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("object_id", "<i4"), ("class_id", "<i2"), ("part_id", "<i2")]
    + [("probability", "<f4")]
)


def object_records(objects: Sequence[Any]) -> np.ndarray:
    """Objects of a perception as records [n] of :data:`OBJECT`."""
    records = np.zeros(len(objects), OBJECT)
    for row, item in zip(records, objects, strict=True):
        row["x"], row["y"], row["z"] = item.segment.center
        row["size_x"], row["size_y"], row["size_z"] = item.segment.size
        row["yaw"], row["track_id"] = item.segment.yaw, item.track_id
        row["class_id"], row["probability"] = item.prediction.class_id, item.prediction.probability
    return records


def part_records(points: np.ndarray, objects: Sequence[Any]) -> np.ndarray:
    """One record of :data:`PART` for every point [N,3] of the cloud in which ``objects`` were found."""
    records = np.zeros(len(points), PART)
    records["x"], records["y"], records["z"] = points[:, 0], points[:, 1], points[:, 2]
    for field in ("object_id", "class_id", "part_id"):
        records[field] = -1
    for object_id, item in enumerate(objects):
        index = item.segment.index
        records["object_id"][index] = object_id
        records["class_id"][index] = item.prediction.class_id
        records["part_id"][index] = item.prediction.part_ids
        records["probability"][index] = item.prediction.part_probability
    return records


def positions(records: np.ndarray) -> np.ndarray:
    """Coordinates x y z of records [n] of either kind: float32 [n,3], metres."""
    return np.stack([records[axis] for axis in "xyz"], axis=1)


class FrameResult(NamedTuple):
    """What was found in one frame: stamp in nanoseconds, records [n] of OBJECT and [N] of PART."""

    stamp_ns: int
    objects: np.ndarray
    parts: np.ndarray


class ResultsWriter:
    """Writes frames one by one into an uncompressed .npz, as a context manager; an aborted one leaves nothing behind.

    Arrays: ``objects/<frame>``, ``parts/<frame>``, ``stamp_ns`` int64 [F], ``labels`` (JSON text of ``~/labels``).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._stamps: list[int] = []
        self.labels = ""

    def __enter__(self) -> ResultsWriter:
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(replacing(self.path))
            except OSError as error:
                raise InputError(f"{self.path}: cannot be written ({error.strerror}); give another path") from None
            self._archive = stack.enter_context(zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True))
            stack.push(self._finish)
            self._ending = stack.pop_all()  # finish, close the archive, put the file in its place
        return self

    def add(self, frame: FrameResult) -> None:
        """Append one frame."""
        number = len(self._stamps)
        self._write(f"objects/{number:06d}", frame.objects)
        self._write(f"parts/{number:06d}", frame.parts)
        self._stamps.append(frame.stamp_ns)

    def _write(self, name: str, array: np.ndarray) -> None:
        with self._archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._write("stamp_ns", np.asarray(self._stamps, np.int64))
            self._write("labels", np.asarray(self.labels))

    def __exit__(self, *raised: object) -> None:
        self._ending.__exit__(*raised)


def read_results(path: str | Path) -> Iterator[FrameResult]:
    """Frames of a results file, in the order in which they were sent."""
    with np.load(path, allow_pickle=False) as archive:
        for number, stamp_ns in enumerate(archive["stamp_ns"].tolist()):
            yield FrameResult(stamp_ns, archive[f"objects/{number:06d}"], archive[f"parts/{number:06d}"])


def read_labels(path: str | Path) -> str:
    """The JSON text of ``~/labels`` that belongs to a results file."""
    with np.load(path, allow_pickle=False) as archive:
        return str(archive["labels"].item())


def names_of(labels: str, source: str | Path) -> tuple[dict[int, str], dict[int, str]]:
    """Class and part names by id, from the JSON text of ``~/labels`` or ``/truth/labels``.

    Raises:
        InputError: another text; the line names ``source``.
    """
    try:
        names = json.loads(labels)
        return tuple({int(key): str(name) for key, name in names[kind].items()} for kind in ("classes", "parts"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{source}: has no class and part names; record or replay it again") from None
