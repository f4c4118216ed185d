# SPDX-License-Identifier: Apache-2.0
"""The scene's kernels against scipy, and against loops that follow their description."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from foundry_core.clouds import Cloud
from foundry_core.scene import grid
from foundry_core.scene.clusters import connected_components
from foundry_core.scene.config import ClusterConfig, street_config
from foundry_core.scene.ground import _gaussian
from foundry_core.scene.planes import fit_plane
from foundry_core.scene.segment import find_segments

KITTI = Path(__file__).parents[3] / "shared/data/kitti_city_bag"


def _same_partition(one: np.ndarray, two: np.ndarray) -> bool:
    pairs = np.unique(np.stack([one, two]), axis=1).shape[1]
    return pairs == len(np.unique(one)) == len(np.unique(two))


@given(hnp.arrays(np.int8, st.tuples(st.integers(1, 120), st.just(3)), elements=st.integers(-6, 6)))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize(("method", "dimensions"), [("birdseye", 2), ("voxel", 3)])
def test_components_are_those_of_scipy(method, dimensions, cells):
    points = cells.astype(np.float32) + np.float32(0.5)
    labels, count = connected_components(points, ClusterConfig(method=method, cell=1.0, growth=0.0))
    occupied = np.zeros((13,) * dimensions, bool)
    index = tuple((cells[:, :dimensions] + 6).T)
    occupied[index] = True
    expected, number = ndimage.label(occupied, np.ones((3,) * dimensions))
    assert count == number and _same_partition(labels, expected[index])
    assert list(dict.fromkeys(labels.tolist())) == list(range(count))  # numbered as they are first met


def test_cells_are_those_of_the_logarithm():
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(4000, 3)) * [15, 15, 1]).astype(np.float32)
    labels, _ = connected_components(points, ClusterConfig(cell=0.3, growth=0.02))
    radius = np.hypot(points[:, 0], points[:, 1]).astype(np.float64)
    warped = points[:, :2] * (np.log1p(0.02 * radius) / (0.02 * radius) / 0.3)[:, None]
    cells = (warped - warped.min(axis=0)).astype(int)
    occupied = np.zeros(cells.max(axis=0) + 1, bool)
    occupied[tuple(cells.T)] = True
    expected = ndimage.label(occupied, np.ones((3, 3)))[0][tuple(cells.T)]
    assert _same_partition(labels, expected)


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (37, 21)])
def test_smoothing_is_that_of_scipy(shape):
    first, second = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    for found, values in zip(grid.smooth_pair(first, second, _gaussian()), (first, second)):
        np.testing.assert_allclose(found, ndimage.gaussian_filter(values, 1.5, mode="constant"), atol=1e-6)


@pytest.mark.parametrize("deep", [-np.inf, -0.4])
def test_unsupported_cells_are_those_of_the_description(deep):
    rng = np.random.default_rng(3)
    minima = rng.normal(0, 0.3, (14, 17)).astype(np.float32)
    minima[rng.random(minima.shape) < 0.4] = np.inf
    found = grid.drop_unsupported(minima, 0.5, 0.2, 0.15, deep)
    for a, b in np.ndindex(minima.shape):
        if np.isinf(minima[a, b]):
            assert np.isinf(found[a, b])
            continue
        around = minima[max(a - 2, 0) : a + 3, max(b - 2, 0) : b + 3]
        rows, columns = np.indices(around.shape)
        apart = np.hypot(rows - min(a, 2), columns - min(b, 2))
        seen = np.isfinite(around) & (apart > 0)
        agree = np.count_nonzero(seen & (np.abs(around - minima[a, b]) <= 0.15 + 0.2 * 0.5 * apart))
        kept = agree >= 2 and not (minima[a, b] < deep and 2 * agree < np.count_nonzero(seen))
        assert np.isfinite(found[a, b]) == kept


def test_heights_are_bilinear_and_minima_the_lowest():
    rng = np.random.default_rng(1)
    points = rng.uniform([2, -4, -1], [9, 5, 3], (3000, 3)).astype(np.float32)
    rows, columns = np.meshgrid(np.arange(16), np.arange(20), indexing="ij")
    surface = (0.3 * (rows + 0.5) * 0.5 - 0.2 * (columns + 0.5) * 0.5).astype(np.float32)  # a plane at the centres
    height = grid.heights_above(points, surface, 2.0, -4.0, 0.5)
    inner = (points[:, :2] >= [2.25, -3.75]).all(1)
    expected = points[:, 2] - 0.3 * (points[:, 0] - 2) + 0.2 * (points[:, 1] + 4)
    np.testing.assert_allclose(height[inner], expected[inner], atol=1e-5)
    minima = grid.cell_minima(points, 2.0, -4.0, 0.5, 16, 20)
    cell = tuple(((points[:, :2] - np.float32([2, -4])) * np.float32(2)).astype(int).T)
    lowest = np.full((16, 20), np.inf, np.float32)
    np.minimum.at(lowest, cell, points[:, 2])
    np.testing.assert_array_equal(minima, lowest)


def test_turned_points_are_the_matrix_product():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 20, (500, 3)).astype(np.float32)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32)
    turned = grid.rotate(points, rotation)
    assert turned.dtype == np.float32 and turned.flags.c_contiguous
    np.testing.assert_allclose(turned, points.astype(float) @ rotation.T.astype(float), atol=1e-5)


@pytest.mark.parametrize("least", [1, 3, 50])
def test_labels_are_grouped_in_order(least):
    labels = np.random.default_rng(least).integers(0, 9, 60).astype(np.int32)
    order, starts = grid.group_by_label(labels, 9, least)
    expected = [np.flatnonzero(labels == k) for k in range(9) if np.count_nonzero(labels == k) >= least]
    assert len(starts) == len(expected) + 1
    for k, members in enumerate(expected):
        np.testing.assert_array_equal(order[starts[k] : starts[k + 1]], members)


def test_a_plane_is_fitted_by_least_squares():
    rng = np.random.default_rng(0)
    normal = np.array([0.1, -0.2, 1.0]) / np.linalg.norm([0.1, -0.2, 1.0])
    across = np.linalg.svd(normal[None])[2][1:]
    points = rng.uniform(-5, 5, (900, 2)) @ across + rng.normal(0, 0.01, (900, 1)) * normal + 2.0 * normal
    points = np.concatenate([points, rng.uniform(-5, 5, (300, 3))])
    plane, share = fit_plane(points, 0.05, (0.8, 1.0))
    np.testing.assert_allclose(plane, [*normal, -2.0], atol=2e-3)
    assert 0.75 <= share < 0.8


@pytest.mark.skipif(not KITTI.exists(), reason="needs the KITTI recording of the development data")
def test_a_real_sweep():
    from foundry_core import pointcloud2
    from foundry_core.data import bags

    _, _, message = next(iter(bags.read_messages(KITTI, "/points")))
    result = find_segments(Cloud.from_points(pointcloud2.xyz(pointcloud2.decode(message))), street_config())
    assert 25 <= len(result.segments) <= 64 and 0.3 < result.ground.mean() < 0.8
    assert all(0.25 <= segment.size.max() <= 14 for segment in result.segments)
