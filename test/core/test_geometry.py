# SPDX-License-Identifier: Apache-2.0
"""The compiled geometry against a torch oracle that follows the published code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from foundry_core import geometry

torch = pytest.importorskip("torch")


def oracle_fps(points: np.ndarray, count: int) -> np.ndarray:
    cloud = torch.from_numpy(points)
    nearest = torch.full((len(cloud),), float("inf"))
    chosen, current = [], 0
    for _ in range(count):
        chosen.append(current)
        difference = cloud - cloud[current]
        squared = difference[:, 0] ** 2 + difference[:, 1] ** 2 + difference[:, 2] ** 2
        nearest = torch.minimum(nearest, squared)
        current = int(nearest.argmax())  # the first of equals
    return np.array(chosen)


def oracle_knn(queries: np.ndarray, points: np.ndarray, k: int) -> np.ndarray:
    difference = torch.from_numpy(queries)[:, None] - torch.from_numpy(points)[None]
    squared = difference[..., 0] ** 2 + difference[..., 1] ** 2 + difference[..., 2] ** 2
    return squared.sort(dim=1, stable=True).indices[:, :k].numpy()


@pytest.mark.parametrize("seed", range(5))
def test_sampling_neighbours_and_grouping_equal_the_oracle(seed):
    points = np.random.default_rng(seed).normal(size=(1024, 3)).astype(np.float32)
    chosen = geometry.farthest_point_sampling(points, 64)
    assert np.array_equal(chosen, oracle_fps(points, 64))
    expected = oracle_knn(points[chosen], points, 32)
    assert np.array_equal(geometry.nearest_neighbors(points[chosen], points, 32), expected)
    centers, neighborhoods = geometry.group(points, 64, 32)
    assert np.array_equal(centers, points[chosen])
    assert np.array_equal(neighborhoods, points[expected] - centers[:, None])


@given(hnp.arrays(np.int8, st.tuples(st.integers(4, 90), st.just(3)), elements=st.integers(-2, 2)))
@settings(max_examples=60, deadline=None)
def test_ties_and_duplicates_are_broken_by_the_lowest_index(grid):
    points = grid.astype(np.float32)
    assert np.array_equal(geometry.farthest_point_sampling(points, 4), oracle_fps(points, 4))
    assert np.array_equal(geometry.nearest_neighbors(points, points, 4), oracle_knn(points, points, 4))


def test_neighbours_do_not_depend_on_farthest_point_order():
    points = np.random.default_rng(1).normal(size=(500, 3)).astype(np.float32)
    order = geometry.farthest_point_sampling(points, 500)
    direct = geometry.nearest_neighbors(points[:20], points, 16)
    reordered = order[geometry.nearest_neighbors(points[:20], points[order], 16)]
    assert np.array_equal(direct, reordered)


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 50), st.just(3)), elements=st.floats(-1e3, 1e3, width=32)))
@settings(max_examples=60, deadline=None)
def test_normalize_is_invertible_and_bounded(points):
    normalized, center, radius = geometry.normalize(points)
    assert np.linalg.norm(normalized, axis=1).max() <= 1 + 1e-5
    assert np.allclose(normalized * radius + center, points, atol=1e-3 + 1e-5 * np.abs(points).max())


@pytest.mark.parametrize("count", [1, 50, 1024, 3000])
def test_prepare_gives_the_model_size_and_says_where_each_point_came_from(count):
    points = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
    prepared, index = geometry.prepare(points, 1024)
    assert prepared.shape == (1024, 3) and index.shape == (1024,)
    assert np.array_equal(prepared, geometry.normalize(points[index])[0])
    assert set(index) == set(range(count)) or count > 1024
    assert len(set(index)) == min(count, 1024)


def test_interpolation_weights_reproduce_features_at_the_centres():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(16, 3)).astype(np.float32)
    features = rng.normal(size=(16, 5)).astype(np.float32)
    index, weight = geometry.interpolation(centers, centers)
    assert np.allclose(weight.sum(axis=1), 1, atol=1e-5)
    assert np.allclose((features[index] * weight[..., None]).sum(axis=1), features, atol=1e-4)


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.zeros((4, 2)), np.zeros(3)])
def test_wrong_shapes_are_refused(points):
    with pytest.raises(ValueError, match="expected points"):
        geometry.farthest_point_sampling(points, 1)
