# SPDX-License-Identifier: Apache-2.0
"""Corruptions: seeded, bounded, and worse with every severity."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from foundry_core import geometry
from foundry_core.errors import InputError
from foundry_core.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corrupt_all, parse_shift


@pytest.fixture(scope="module")
def cloud():
    """A hollow box of 1,200 points, unit sphere."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (1200, 3))
    points[np.arange(1200), rng.integers(0, 3, 1200)] = rng.choice([-1.0, 1.0], 1200)
    return geometry.normalize(points * [1.0, 0.7, 0.5])[0]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_is_a_pure_function_of_seed_and_number(kind, cloud):
    for severity in SEVERITIES:
        points = corrupt(cloud, kind, severity, 7, 3)
        assert points.dtype == np.float32 and points.ndim == 2 and np.isfinite(points).all() and len(points) >= 32
        assert np.array_equal(points, corrupt(cloud * 4, kind, severity, 7, 3))
        assert np.array_equal(corrupt_all([cloud] * 4, kind, severity, 7)[3], points)
        other = corrupt(cloud, kind, severity, 8, 3)
        assert other.shape != points.shape or not np.array_equal(other, points)


@pytest.mark.parametrize("kind", ["dropout-global", "dropout-local", "occlusion", "density"])
def test_losses_keep_true_points_and_grow_with_severity(kind, cloud):
    tree = cKDTree(cloud)
    kept = []
    for severity in SEVERITIES:
        found = [corrupt(cloud, kind, severity, 0, index) for index in range(10)]
        assert all(tree.query(points)[0].max() < 1e-5 and len(points) <= len(cloud) for points in found)
        assert all(len(np.unique(points, axis=0)) == len(points) for points in found)
        kept.append(np.mean([len(points) for points in found]))
    if kind == "density":
        assert set(kept) == {600.0}
        spread = [np.mean([corrupt(cloud, kind, s, 0, i).mean(axis=0) ** 2 for i in range(10)]) for s in SEVERITIES]
        assert spread == sorted(spread)  # the harder, the more the points gather on one side
    else:
        assert kept == sorted(kept, reverse=True) and kept[-1] < 0.6 * kept[0]


def test_noise_and_outliers_have_the_stated_size(cloud):
    for severity in SEVERITIES:
        noisy = corrupt(cloud, "jitter", severity, 0, 0)
        assert (noisy - cloud).std() == pytest.approx(0.01 * severity, rel=0.05)
        more = corrupt(cloud, "outliers", severity, 0, 0)
        assert len(more) == 1200 + 12 * severity and np.allclose(more[:1200], cloud, atol=1e-5)
        assert np.abs(more[1200:]).max() <= 1


def test_rotations_are_rigid_and_bounded(cloud):
    largest = []
    for severity in SEVERITIES:
        angles = []
        for index in range(40):
            turned = corrupt(cloud, "rotation", severity, 0, index)
            matrix = np.linalg.lstsq(cloud, turned, rcond=None)[0].T
            assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-4) and np.linalg.det(matrix) > 0
            angles.append(np.degrees(np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1))))
        largest.append(max(angles))
    assert all(angle <= limit + 0.1 for angle, limit in zip(largest, (15, 30, 60, 90, 180)))
    assert largest[4] > 150 and largest[0] > 10


def test_tiny_clouds_survive():
    for kind in CORRUPTIONS:
        for severity in SEVERITIES:
            assert len(corrupt(np.random.default_rng(0).normal(size=(40, 3)), kind, severity, 0, 0)) >= 32


def test_a_shift_is_a_kind_or_a_kind_at_a_severity():
    assert parse_shift("density") == [("density", severity) for severity in SEVERITIES]
    assert parse_shift("density:4") == [("density", 4)]
    for bad in ("rain", "density:0", "density:x", ""):
        with pytest.raises(InputError, match="--shift"):
            parse_shift(bad)
