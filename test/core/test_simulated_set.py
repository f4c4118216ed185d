# SPDX-License-Identifier: Apache-2.0
"""Labelled sets drawn from the categories, and `foundry shapes`."""

import numpy as np
import pytest

from foundry_core.data.procedural import CATEGORIES, CATEGORY_PARTS, PART_NAMES
from foundry_core.data.shapes import load_shapes
from foundry_core.data.simulated_set import draw_shapes, parse_classes
from foundry_core.errors import InputError

CLASSES = {"box": ("box",), "cylinder": ("can", "bottle")}


def test_classes_are_named_after_a_category_or_join_several():
    assert parse_classes(["car", "bush=plant+tree"]) == {"car": ("car",), "bush": ("plant", "tree")}
    assert tuple(parse_classes([])) == CATEGORIES
    with pytest.raises(InputError, match="--class bush: unknown category 'bush'; use chair"):
        parse_classes(["bush"])
    with pytest.raises(InputError, match="'car' is there already"):
        parse_classes(["car", "car=truck"])


@pytest.mark.parametrize("kind", ["full", "rgbd", "lidar"])
def test_a_set_has_labels_parts_and_split_and_its_shapes_do_not_depend_on_the_others(kind):
    drawn = draw_shapes(kind, CLASSES, train=3, test=1, points=256, seed=4)
    assert drawn.points.shape == (8, 256, 3) and drawn.class_names == ("box", "cylinder")
    np.testing.assert_array_equal(drawn.label, [0, 0, 0, 1, 1, 1, 0, 1])
    np.testing.assert_array_equal(drawn.split, [0, 0, 0, 0, 0, 0, 1, 1])
    radius = np.linalg.norm(drawn.points.astype(np.float32), axis=2).max(axis=1)
    np.testing.assert_allclose(radius, 1, atol=2e-3)
    for label, members in enumerate(CLASSES.values()):
        allowed = {PART_NAMES.index(part) for member in members for part in CATEGORY_PARTS[member]}
        assert set(np.unique(drawn.part_label[drawn.label == label])) <= allowed
    fewer = draw_shapes(kind, {"cylinder": ("can", "bottle")}, train=2, points=256, seed=4)
    np.testing.assert_array_equal(fewer.points, drawn.points[[3, 4]])
    assert fewer.split is None
    assert not np.array_equal(fewer.points, draw_shapes(kind, {"cylinder": CLASSES["cylinder"]}, 2, 0, 256, 5).points)


def test_a_view_shows_one_side_and_a_full_shape_all():
    box = {"box": ("box",)}

    def seen(kind):
        clouds = draw_shapes(kind, box, train=12, points=512, seed=1).points.astype(np.float32)
        # outward directions in the plane, from the middle of the box's extent
        middle = (clouds.max(axis=1) + clouds.min(axis=1)) / 2
        angle = np.arctan2(*(clouds - middle[:, None])[..., 1::-1].transpose(2, 0, 1))
        counts = np.stack([np.histogram(each, 8, (-np.pi, np.pi))[0] for each in angle])
        return float((counts / 512).min(axis=1).mean())

    assert seen("full") > 1.5 * seen("rgbd")


def test_the_commands(tmp_path, foundry):
    out = tmp_path / "views.npz"
    options = ("--class", "box", "--class", "cylinder=can", "--points", 64)
    code, text, _ = foundry("shapes", "draw", *options, "--count", 3, "--test", 1, "--out", out)
    assert code == 0 and "8 shapes of 2 classes, full" in text
    shapes = load_shapes(out)
    assert shapes.class_names == ("box", "cylinder") and len(shapes.test()) == 2

    code, _, _ = foundry("shapes", "convert", out, "--up", "0,-1,0", "--out", tmp_path / "turned.npz")
    turned = load_shapes(tmp_path / "turned.npz")
    np.testing.assert_array_equal(turned.label, shapes.label)
    np.testing.assert_allclose(turned.points, shapes.points[..., [0, 2, 1]] * np.float16([1, 1, -1]), atol=1e-3)

    for wrong in ("0,1", "up", "0,0,0", "nan,0,1"):
        code, _, error = foundry("shapes", "convert", out, "--up", wrong, "--out", tmp_path / "no.npz")
        assert code == 2 and f"--up {wrong}: give the direction" in error
    code, _, error = foundry("shapes", "draw", "--out", tmp_path / "views.ply")
    assert code == 2 and "written as .npz" in error
    assert not (tmp_path / "no.npz").exists()
