# SPDX-License-Identifier: Apache-2.0
"""Views by a depth camera whose place is known, and `foundry shapes draw --mount`."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from foundry_core.data.mounted import Mount, mounted_view, thinned
from foundry_core.data.procedural import make_shape
from foundry_core.data.shapes import load_shapes
from foundry_core.data.simulated_set import draw_shapes
from foundry_core.errors import InputError
from foundry_core.schema import load_settings

TABLE = Path(__file__).parents[2] / "config" / "views" / "table-camera.yaml"
CLASSES = {"box": ("box",), "cylinder": ("can", "mug")}


@pytest.mark.parametrize("category", ["box", "can", "mug"])
def test_every_class_has_the_same_sizes_and_proportions(category):
    mount, rng = load_settings(TABLE, Mount), np.random.default_rng(0)
    extents = []
    for _ in range(30):
        low, high = mount.fit(make_shape(category, rng), rng).bounds
        extents.append(high - low)
    x, y, z = np.array(extents).T
    largest, ratio = np.max(extents, axis=1), z / np.sqrt(x * y)
    assert 0.1 <= largest.min() + 1e-6 and largest.max() <= 0.35 + 1e-6
    assert 0.35 <= ratio.min() + 1e-3 and ratio.max() <= 2.5 + 1e-3
    assert 0.7 < np.exp(np.log(ratio).mean()) < 1.25  # the middle of the span


def test_a_camera_from_above_sees_top_and_front_and_not_the_underside():
    mount, rng = Mount(elevation=(40, 40), distance=(0.7, 0.7), hidden=0), np.random.default_rng(1)
    for _ in range(5):
        mesh = Mount(size=(0.2, 0.2)).fit(make_shape("can", rng), rng)
        points, part = mounted_view(mesh, mount, rng)
        assert len(points) == len(part) > 500
        low, high = mesh.bounds
        assert (points[:, 2] < low[2] + 0.002).mean() < 0.05
        assert np.abs(points - (low + high) / 2).max() < 0.2  # nothing of anything else, noise of millimetres


def test_an_object_in_front_takes_points_away_and_gives_none():
    mount, counts = Mount(elevation=(20, 20), size=(0.2, 0.2)), []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        mesh, other = (mount.fit(make_shape("box", rng), rng) for _ in range(2))
        row = [len(mounted_view(mesh, mount, np.random.default_rng(seed), each)[0]) for each in (None, other)]
        seen = mounted_view(mesh, mount, np.random.default_rng(seed), other)[0]
        low, high = mesh.bounds
        assert len(seen) == 0 or ((seen > low - 0.02) & (seen < high + 0.02)).all()
        counts.append(row)
    alone, behind = np.array(counts).T
    assert (behind <= 1.02 * alone).all() and (behind < 0.95 * alone).sum() >= 3


def test_points_drawn_by_chance_lie_less_evenly():
    rng = np.random.default_rng(0)
    points, part = rng.uniform(size=(4000, 3)).astype(np.float32), np.zeros(4000, np.int16)

    def unevenness(by_chance):
        chosen, _ = thinned(points, part, 256, np.random.default_rng(1), by_chance)
        nearest = cKDTree(chosen).query(chosen, 2)[0][:, 1]
        return nearest.std() / nearest.mean()

    assert unevenness(True) > 1.5 * unevenness(False)


def test_a_set_repeats_itself_and_lidars_have_no_mount():
    mount = load_settings(TABLE, Mount)
    one, two = (draw_shapes("rgbd", CLASSES, 3, 1, 128, 5, mount=mount) for _ in range(2))
    np.testing.assert_array_equal(one.points, two.points)
    alone = draw_shapes("rgbd", CLASSES, 2, 0, 128, 5, mount=mount)
    np.testing.assert_array_equal(alone.points, one.points[[0, 1, 3, 4]])
    assert one.part_label.min() >= 0 and one.points.shape == (8, 128, 3)
    with pytest.raises(InputError, match="--mount: is of a depth camera"):
        draw_shapes("lidar", CLASSES, 1, mount=mount)


def test_the_command(tmp_path, foundry):
    out = tmp_path / "views.npz"
    options = ("shapes", "draw", "--class", "box", "--class", "can", "--points", 64, "--count", 2, "--out", out)
    code, text, _ = foundry(*options, "--kind", "rgbd", "--mount", TABLE)
    assert code == 0 and "4 shapes of 2 classes, rgbd" in text and len(load_shapes(out)) == 4
    wrong = tmp_path / "wrong.yaml"
    for line, said in (("distance: [1.0, 0.6]", "distance"), ("tilt: 3", "tilt"), ("elevation: [30, 95]", "elevation")):
        wrong.write_text(line)
        code, _, error = foundry(*options, "--kind", "rgbd", "--mount", wrong)
        assert code == 2 and said in error and len(error.strip().splitlines()) == 1
