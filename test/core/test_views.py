# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from scipy.spatial import cKDTree

from foundry_core.data.mesh import LabeledMesh, sample_surface
from foundry_core.data.procedural import CATEGORIES, CATEGORY_PARTS, PART_NAMES, make_shape
from foundry_core.data.views import MIN_POINTS, sensor_view
from foundry_core.data.visibility import hidden_point_removal


@pytest.mark.parametrize("sensor", ["lidar", "rgbd"])
@pytest.mark.parametrize("category", CATEGORIES)
def test_a_view_lies_on_the_object_and_names_its_parts(category, sensor):
    rng = np.random.default_rng(1)
    mesh = make_shape(category, rng)
    points, part = sensor_view(mesh, rng, sensor)
    assert points.dtype == np.float32 and part.dtype == np.int16 and len(points) == len(part) >= MIN_POINTS
    assert {PART_NAMES[number] for number in np.unique(part)} <= set(CATEGORY_PARTS[category])
    dense, dense_part = sample_surface(mesh, 30000, rng)
    distance, nearest = cKDTree(dense).query(points)
    spacing = np.sqrt(mesh.areas().sum() / 30000)
    assert np.quantile(distance, 0.95) < 0.06 + 2 * spacing
    assert np.mean(dense_part[nearest] == part) > 0.6


def test_a_view_is_one_sided():
    # a closed box never shows two opposite sides at once
    rng = np.random.default_rng(0)
    box = make_shape("box", rng)
    low, high = box.bounds
    for _ in range(10):
        points, _ = sensor_view(box, rng, "rgbd")
        for axis in (0, 1):
            shown = [np.abs(points[:, axis] - side[axis]) < 0.02 for side in (low, high)]
            inner = np.abs(points[:, 2] - points[:, 2].mean()) < 0.25 * np.ptp(points[:, 2])
            assert min(np.mean(shown[0] & inner), np.mean(shown[1] & inner)) < 0.1


def test_views_differ_and_a_seed_repeats_them():
    mesh = make_shape("chair", np.random.default_rng(2))
    one, two = (sensor_view(mesh, np.random.default_rng(5))[0] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    views = [sensor_view(mesh, np.random.default_rng(seed)) for seed in range(20)]
    assert len({len(points) for points, _ in views}) > 10
    lefts = [points.mean(axis=0)[1] > 0 for points, _ in views]
    assert 0.2 < np.mean(lefts) < 0.8  # from the left as well as from the right


def test_ground_cut_takes_the_foot_away():
    mesh = make_shape("person", np.random.default_rng(3))
    points, _ = sensor_view(mesh, np.random.default_rng(4), "lidar", ground_cut=0.25)
    assert len(points) >= MIN_POINTS and points[:, 2].min() > 0.25


def test_what_no_ray_meets_gives_no_points():
    speck = LabeledMesh(np.array([[0, 0, 0], [1e-6, 0, 0], [0, 1e-6, 0]]), [[0, 1, 2]], [0])
    points, part = sensor_view(speck, np.random.default_rng(0), "lidar")
    assert points.shape == (0, 3) and part.shape == (0,)
    with pytest.raises(ValueError, match="radar"):
        sensor_view(speck, np.random.default_rng(0), "radar")


def test_hidden_points_of_a_sphere_are_its_far_side():
    rng = np.random.default_rng(0)
    sphere = rng.normal(size=(2000, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    viewpoint = np.array([4.0, 0.0, 0.0])
    seen = hidden_point_removal(sphere, viewpoint)
    truth = sphere @ viewpoint > 1.0  # the tangent cone from the viewpoint
    visible = np.zeros(2000, bool)
    visible[seen] = True
    assert (np.diff(seen) > 0).all()
    assert visible[sphere[:, 0] > 0.45].mean() > 0.98 and visible[sphere[:, 0] < 0.1].mean() < 0.02
    assert (visible == truth).mean() > 0.95


def test_a_near_plane_hides_a_far_one():
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 25), np.linspace(-1, 1, 25)), -1).reshape(-1, 2)
    near, far = np.c_[np.full(625, 2.0), grid], np.c_[np.full(625, 3.0), 0.8 * grid]
    seen = hidden_point_removal(np.concatenate([near, far]), np.zeros(3), radius_factor=30.0)
    assert (seen < 625).sum() > 560 and (seen >= 625).sum() < 20


def test_hidden_point_removal_of_degenerate_clouds():
    assert hidden_point_removal(np.zeros((3, 3)), np.ones(3)).tolist() == [0, 1, 2]
    line = np.c_[np.linspace(1, 2, 20), np.zeros(20), np.zeros(20)]
    assert 0 in hidden_point_removal(line, np.zeros(3))
