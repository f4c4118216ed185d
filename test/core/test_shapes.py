# SPDX-License-Identifier: Apache-2.0
"""Shape sets: what is read, what is selected, and the one line that every faulty file gets."""

import numpy as np
import pytest

from foundry_core.data.shapes import ShapeSet, load_shapes, save_shapes
from foundry_core.errors import InputError


def arrays(**changes):
    rng = np.random.default_rng(0)
    values = {
        "points": rng.normal(size=(6, 20, 3)).astype(np.float16),
        "label": np.array([0, 0, 1, 1, 2, 2], np.int16),
        "class_names": np.array(["mug", "can", "box"]),
        "part_label": rng.integers(-1, 2, (6, 20)).astype(np.int8),
        "part_names": np.array(["handle", "body"]),
        "split": np.array([0, 0, 0, 1, 1, 1], np.int8),
        "twin_in_train": np.array([0, 0, 0, 1, 0, 0], bool),
        "licence": np.array(["CC0", "CC0", "CC BY", "CC0", "CC BY", "GPL"]),
    }
    values.update(changes)
    return {key: value for key, value in values.items() if value is not None}


def save(folder, **changes):
    path = folder / "set.npz"
    np.savez(path, **arrays(**changes))
    return path


def test_arrays_come_back_as_they_were_stored(tmp_path):
    expected = arrays()
    shapes = load_shapes(save(tmp_path, extra=np.arange(3)))
    assert len(shapes) == 6 and shapes.points.dtype == np.float16
    assert shapes.class_names == ("mug", "can", "box") and shapes.part_names == ("handle", "body")
    for key in ("points", "label", "part_label", "split", "twin_in_train", "licence"):
        np.testing.assert_array_equal(getattr(shapes, key), expected[key])


def test_points_alone_are_a_shape_set(tmp_path):
    path = tmp_path / "bare.npz"
    np.savez_compressed(path, points=np.arange(30, dtype=np.float32).reshape(2, 5, 3))
    shapes = load_shapes(path)
    assert shapes.label is None and len(shapes.train()) == 2
    with pytest.raises(InputError, match="split: missing"):
        shapes.test()


def test_labels_that_are_true_and_false_are_numbers(tmp_path):
    label, part = np.arange(6) > 2, np.arange(120).reshape(6, 20) % 2 > 0
    names = {"class_names": np.array(["can", "box"])}
    shapes = load_shapes(save(tmp_path, label=label, part_label=part, split=np.arange(6) % 2 > 0, **names))
    assert [shapes.class_names[number] for number in shapes.label] == ["can"] * 3 + ["box"] * 3
    np.testing.assert_array_equal(np.array([5, 7])[shapes.part_label], np.where(part, 7, 5))
    assert len(shapes.test(twins=True)) == 3


def test_selections_keep_rows_together(tmp_path):
    shapes = load_shapes(save(tmp_path))
    np.testing.assert_array_equal(shapes.train().label, [0, 0, 1])
    np.testing.assert_array_equal(shapes.test().label, [2, 2])  # without the twin
    np.testing.assert_array_equal(shapes.test(twins=True).label, [1, 2, 2])
    free = shapes.with_licences(["CC BY"])
    np.testing.assert_array_equal(free.points, shapes.points[[2, 4]])
    np.testing.assert_array_equal(free.part_label, shapes.part_label[[2, 4]])
    with pytest.raises(InputError, match="no shape is under MIT"):
        shapes.with_licences(["MIT"])
    with pytest.raises(InputError, match="no shape is left"):
        shapes.train().test()


NOT_FINITE = np.full((6, 20, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": None}, "points: missing"),
        ({"points": np.zeros((6, 20), np.float32)}, r"points: shape \(6, 20\)"),
        ({"points": np.zeros((0, 20, 3), np.float32)}, r"points: shape \(0, 20, 3\)"),
        ({"points": np.zeros((6, 20, 3), np.int32)}, "points: type int32"),
        ({"points": NOT_FINITE}, "points: NaN or infinite"),
        ({"points": np.array([[None]], object)}, "points: pickled"),
        ({"label": np.array([{}] * 6, object)}, "label: pickled"),
        ({"label": np.zeros(5, np.int16)}, r"label: shape \(5,\) for 6 shapes"),
        ({"label": np.int16(3)}, r"label: shape \(\) for 6 shapes"),
        ({"label": np.zeros(6)}, "label: type float64"),
        ({"label": np.full(6, 3)}, "label: value 3, but only 3 names"),
        ({"label": np.full(6, -2)}, "label: value -2"),
        ({"part_label": np.zeros((6, 19), np.int8)}, r"part_label: shape \(6, 19\)"),
        ({"part_label": np.full((6, 20), 2)}, "part_label: value 2, but only 2 names"),
        ({"part_label": np.full((6, 20), -2)}, "part_label: value -2"),
        ({"split": np.full(6, 2)}, "split: other values"),
        ({"class_names": np.array("mug")}, "class_names: shape"),
        ({"points": np.where(np.arange(6)[:, None, None] == 4, 1.0, arrays()["points"])}, "points: shape 4 has only"),
        ({"points": arrays()["points"].astype(np.float64) * 1e200}, "points: values beyond"),
        ({"licence": np.zeros(6)}, "licence: type float64"),
    ],
)
def test_a_faulty_array_is_named_in_one_line(tmp_path, changes, message):
    path = save(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_shapes(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_files_that_are_no_shape_sets(tmp_path):
    good = save(tmp_path).read_bytes()
    cases = {
        "missing.npz": (None, "no such file"),
        "set.txt": (b"1 2 3", "not an .npz shape set"),
        "empty.npz": (b"", "truncated"),
        "text.npz": (b"hello", "not an .npz archive"),
        "cut.npz": (good[: len(good) // 2], "truncated"),
        "flipped.npz": (good[:200] + bytes(64) + good[264:], "damaged"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            load_shapes(tmp_path / name)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        load_shapes(tmp_path / "folder.npz")


def test_a_set_made_in_memory_is_checked_too():
    with pytest.raises(InputError, match="made here: points"):
        ShapeSet("made here", np.zeros((3, 3), np.float32))


def test_shapes_without_a_label_are_read_and_can_be_left_out(tmp_path):
    shapes = load_shapes(save(tmp_path, label=np.array([0, -1, 1, -1, 2, 2])))
    assert len(shapes) == 6
    np.testing.assert_array_equal(shapes.labelled().points, shapes.points[[0, 2, 4, 5]])
    for nothing in (np.full(6, -1), None):
        with pytest.raises(InputError, match="label: missing"):
            load_shapes(save(tmp_path, label=nothing)).labelled()


def test_what_is_saved_comes_back(tmp_path):
    for changes in ({}, {"label": None, "class_names": None, "licence": None, "part_label": None}):
        shapes = load_shapes(save(tmp_path, **changes))
        save_shapes(tmp_path / "again.npz", shapes)
        again = load_shapes(tmp_path / "again.npz")
        assert again.class_names == shapes.class_names and again.part_names == shapes.part_names
        for key in ("points", "label", "part_label", "split", "twin_in_train", "licence"):
            np.testing.assert_array_equal(getattr(again, key), getattr(shapes, key))


@pytest.mark.parametrize("up", [(0, 1, 0), (0, -0.775, -0.632), (3, 0, 0), (0, 0, 2), (0, 0, -1), (1e-9, 0, -1)])
def test_turning_takes_up_to_z_and_keeps_distances_and_handedness(up):
    rng = np.random.default_rng(1)
    corners = rng.normal(size=(1, 4, 3)).astype(np.float32)
    corners[0, 0] = np.array(up) / np.linalg.norm(up)
    turned = ShapeSet("frame", corners).turned(up).points[0]
    np.testing.assert_allclose(turned[0], (0, 0, 1), atol=1e-6)
    np.testing.assert_allclose(turned @ turned.T, corners[0] @ corners[0].T, atol=1e-5)
    assert np.linalg.det(turned[1:]) == pytest.approx(np.linalg.det(corners[0, 1:]), abs=1e-5)
