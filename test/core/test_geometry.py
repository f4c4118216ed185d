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


def _clumps(seed: int, count: int) -> np.ndarray:
    """Points of very uneven density, with duplicates and many equal distances."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-3, 1, count)
    points = rng.normal(size=(count, 3)) * scale[:, None]
    points[::3] = np.round(points[::3] * 2) / 2
    return points[rng.integers(0, count, count)].astype(np.float32)


@pytest.mark.parametrize(("count", "picks"), [(512, 128), (700, 512), (1025, 1024), (3000, 1024), (5000, 200)])
def test_pruned_sampling_makes_the_same_picks(count, picks):
    flat = _clumps(count, count) * np.float32([1, 1, 0])
    for points in (_clumps(picks, count), flat, np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)):
        assert np.array_equal(geometry.farthest_point_sampling(points, picks), oracle_fps(points, picks))


@pytest.mark.parametrize("points", [np.ones((600, 3)), np.repeat(np.eye(3), 300, axis=0)])
def test_more_picks_than_distinct_points_repeat_the_first(points):
    chosen = geometry.farthest_point_sampling(points, 256)
    distinct = len(np.unique(points, axis=0))
    assert len(np.unique(points[chosen[:distinct]], axis=0)) == distinct and (chosen[distinct:] == 0).all()


@pytest.mark.parametrize(("count", "k"), [(40, 40), (200, 3), (1024, 32), (1500, 700), (2000, 1)])
def test_neighbours_of_uneven_clouds_equal_the_oracle(count, k):
    for points in (_clumps(k, count), np.zeros((count, 3), np.float32)):
        assert np.array_equal(geometry.nearest_neighbors(points[:30], points, k), oracle_knn(points[:30], points, k))


@given(
    hnp.arrays(np.int8, st.tuples(st.integers(1, 70), st.just(3)), elements=st.integers(-3, 3)),
    st.integers(3, 12), st.integers(1, 20), st.integers(20, 64), st.integers(0, 16),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_a_batch_is_what_the_functions_give_one_by_one(grid, groups, neighbors, count, more):
    limit, clouds = count + more, [grid.astype(np.float32), grid[::-1] / np.float32(7)]
    batch = geometry.prepare_batch(clouds, count, groups, neighbors, limit)
    for row, cloud in enumerate(clouds):
        step = -(-len(cloud) // limit)
        points, index = geometry.prepare(cloud[::step], count)
        assert np.array_equal(batch.points[row], points) and np.array_equal(batch.index[row], index * step)
        chosen = oracle_fps(points, groups)
        around = oracle_knn(points[chosen], points, neighbors)
        assert np.array_equal(batch.centers[row], points[chosen])
        assert np.array_equal(batch.neighborhoods[row], points[around] - points[chosen][:, None])
        near = oracle_knn(points, points[chosen], 3)
        assert np.array_equal(batch.interpolation_index[row], near)
        weight = 1 / (((points[:, None] - points[chosen][near]) ** 2).sum(axis=2) + np.float32(1e-8))
        assert np.array_equal(batch.interpolation_weight[row], weight / weight.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("sizes", [[5, 4000, 1024], [1025], [9000, 30]])
def test_a_batch_of_the_model_size(sizes):
    clouds = [_clumps(size, size) for size in sizes]
    batch = geometry.prepare_batch(clouds, 1024, 64, 32, 4096)
    bare = geometry.prepare_batch(clouds, 1024, 64, 32, 4096, upsample=False)
    assert bare.interpolation_index.shape == (len(sizes), 0, 3)
    for row, cloud in enumerate(clouds):
        step = -(-len(cloud) // 4096)
        points, index = geometry.prepare(cloud[::step], 1024)
        centers, neighborhoods = geometry.group(points, 64, 32)
        expected = (points, index * step, centers, neighborhoods, *geometry.interpolation(points, centers))
        for found, value in zip(batch, expected):
            assert np.array_equal(found[row], value)
        assert np.array_equal(bare.neighborhoods[row], neighborhoods)


def test_an_empty_batch_has_no_rows():
    assert geometry.prepare_batch([], 32, 4, 2, 32).points.shape == (0, 32, 3)


@pytest.mark.parametrize(("count", "samples"), [(50, 7), (3000, 1024), (400, 32)])
def test_the_nearest_sample_is_the_first_of_the_nearest(count, samples):
    for seed in range(3):
        points = _clumps(seed, count)
        sampled = np.random.default_rng(seed).integers(0, count, samples)
        assert np.array_equal(geometry.nearest_samples(points, sampled), oracle_knn(points, points[sampled], 1)[:, 0])


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
