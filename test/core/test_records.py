# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from foundry_core.errors import InputError
from foundry_core.records import (
    OBJECT,
    PART,
    FrameResult,
    ResultsWriter,
    object_records,
    part_records,
    read_labels,
    read_results,
)


def found(index, class_id: int, center=(1.0, 2.0, 3.0), track_id: int = -1) -> SimpleNamespace:
    index = np.asarray(index)
    segment = SimpleNamespace(index=index, center=np.array(center), size=np.array([4.0, 5.0, 6.0]), yaw=0.5)
    prediction = SimpleNamespace(
        class_id=class_id, probability=0.75, part_ids=index % 3, part_probability=np.full(len(index), 0.25)
    )
    return SimpleNamespace(segment=segment, prediction=prediction, track_id=track_id)


def test_objects_become_rows():
    row = object_records([found([0], 7, track_id=12)])[0]
    assert row.item() == (1, 2, 3, 4, 5, 6, 0.5, 7, 0.75, 12)
    assert len(object_records([])) == 0


def test_every_point_has_a_part_record_in_order():
    points = np.arange(18, dtype=np.float32).reshape(6, 3)
    records = part_records(points, [found([4, 1], 2), found([5], -1)])
    np.testing.assert_array_equal(np.stack([records[axis] for axis in "xyz"], axis=1), points)
    assert records["object_id"].tolist() == [-1, 0, -1, -1, 0, 1]
    assert records["class_id"].tolist() == [-1, 2, -1, -1, 2, -1]
    assert records["part_id"].tolist() == [-1, 1, -1, -1, 1, 2]
    assert records["probability"].tolist() == [0, 0.25, 0, 0, 0.25, 0.25]


def test_results_survive_the_file(tmp_path):
    path = tmp_path / "deep" / "results.npz"
    frames = [FrameResult(10 + k, np.full(k, 3, OBJECT), np.full(5 * k, 4, PART)) for k in range(3)]
    with ResultsWriter(path) as writer:
        writer.labels = '{"classes": {}}'
        for frame in frames:
            writer.add(frame)
        assert not path.exists()  # not before it is complete
    for read, frame in zip(read_results(path), frames, strict=True):
        assert read.stamp_ns == frame.stamp_ns
        np.testing.assert_array_equal(read.objects, frame.objects)
        np.testing.assert_array_equal(read.parts, frame.parts)
    assert read_labels(path) == '{"classes": {}}'


def test_an_aborted_recording_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), ResultsWriter(tmp_path / "r.npz") as writer:
        writer.add(FrameResult(1, np.zeros(1, OBJECT), np.zeros(1, PART)))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), ResultsWriter(tmp_path / "file" / "r.npz"):
        pass
