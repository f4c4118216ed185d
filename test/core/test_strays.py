# SPDX-License-Identifier: Apache-2.0
"""Stray points: found among a surface's own, which stay."""

import numpy as np
import pytest

from foundry_core.strays import stray_points, without_strays


@pytest.fixture(scope="module")
def sphere():
    points = np.random.default_rng(0).normal(size=(1000, 3))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_strays_are_found_and_the_surface_stays_in_any_unit_and_order(sphere, unit):
    rng = np.random.default_rng(1)
    far = rng.uniform(2, 3, (30, 3)) * rng.choice([-1, 1], (30, 3))
    points, true = np.concatenate([sphere, far]).astype(np.float32) * unit, np.arange(1030) >= 1000
    order = rng.permutation(1030)
    found = stray_points(points[order])
    assert found[true[order]].mean() > 0.9 and found[~true[order]].mean() < 0.005


def test_a_clean_surface_loses_next_to_nothing(sphere):
    assert stray_points(sphere).mean() < 0.005
    assert without_strays(sphere).dtype == np.float32


def test_an_uneven_cloud_is_not_taken_apart(sphere):
    """A quarter of the points lie far apart from each other, the rest on top of one another."""
    rng = np.random.default_rng(2)
    uneven = np.concatenate([np.zeros((750, 3)), rng.uniform(-1, 1, (250, 3))])
    assert stray_points(uneven).mean() <= 0.1


@pytest.mark.parametrize("count", [0, 1, 5])
def test_of_a_few_points_none_is_stray(count):
    points = np.eye(5, 3)[:count] * 100
    assert not stray_points(points).any() and len(without_strays(points)) == count
