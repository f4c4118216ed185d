# SPDX-License-Identifier: Apache-2.0
"""Sensors of the simulated world: rays against other searches, beams, noise and losses against their data sheets."""

import numpy as np
import pytest

from foundry_core.data.world.raycast import Caster, Mesh
from foundry_core.data.world.sensors import BEAMS, LidarConfig, RgbdConfig


def _rotation(angles) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("zyx", angles).as_matrix()


def _brute_force(vertices, triangles, origin, directions):
    best, which = np.full(len(directions), np.inf), np.full(len(directions), -1)
    for number, (a, b, c) in enumerate(vertices[triangles].astype(float)):
        normal = np.cross(b - a, c - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = ((a - origin) @ normal) / (directions @ normal)
        hit = origin + distance[:, None] * directions
        inside = np.ones(len(directions), bool)
        for p, q in ((a, b), (b, c), (c, a)):
            inside &= (np.cross(q - p, hit - p) @ normal) >= 0
        closer = inside & (distance > 1e-4) & (distance < best)
        best[closer], which[closer] = distance[closer], number
    return best, which


def test_rays_meet_what_a_brute_force_search_meets():
    rng = np.random.default_rng(0)
    vertices = (rng.uniform(-4, 4, (120, 1, 3)) + rng.normal(0, 0.7, (120, 3, 3))).reshape(-1, 3).astype(np.float32)
    triangles = np.arange(360).reshape(-1, 3)
    directions = rng.normal(size=(1500, 3))
    directions = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
    rotations = np.stack([np.eye(3), _rotation([0.5, 0.2, -0.4])])
    translations = np.array([[0.0, 0, 0], [6.0, 1, 2]])
    sensor = np.eye(4)
    sensor[:3, :3], sensor[:3, 3] = _rotation([2.0, -0.3, 0.1]), (3.0, -1.0, 0.5)
    mesh = Mesh(vertices, triangles)
    hits = Caster([mesh, mesh]).cast(directions, sensor, rotations, translations, 50.0)
    world = directions.astype(float) @ sensor[:3, :3].T
    ways = [_brute_force(vertices @ r.T + t, triangles, sensor[:3, 3], world) for r, t in zip(rotations, translations)]
    distances, numbers = (np.stack(column) for column in zip(*ways))
    nearest = distances.argmin(axis=0)
    best = distances.min(axis=0)
    met = best < 50
    assert 0.3 < met.mean() < 1
    np.testing.assert_array_equal(hits.mesh, np.where(met, nearest, -1))
    np.testing.assert_array_equal(hits.triangle, np.where(met, numbers[nearest, np.arange(1500)], -1))
    np.testing.assert_allclose(hits.distance[met], best[met], rtol=1e-4)
    assert (hits.distance[~met] == 50).all()


def test_rays_along_the_axes_meet_a_wall():
    square = np.array([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]], np.float32)
    mesh = Mesh(square, np.array([[0, 1, 2], [0, 2, 3]]))
    axes = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, -1]], np.float32)
    hits = Caster([mesh]).cast(axes, np.eye(4), np.eye(3)[None], np.array([[5.0, 0.2, 0.1]]), 20.0)
    np.testing.assert_allclose(hits.distance, [5, 20, 20, 20])
    np.testing.assert_allclose(hits.cosine, [1, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("beams", [16, 32, 64])
def test_lidar_beams_have_the_elevations_of_their_data_sheet(beams):
    config = LidarConfig(beams=beams, azimuth_steps=360)
    directions = config.directions
    assert directions.shape == (beams * 360, 3) and directions.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-6)
    elevation = np.rad2deg(np.arcsin(directions[:, 2])).reshape(beams, 360)
    np.testing.assert_allclose(elevation, np.repeat(BEAMS[beams][:, None], 360, axis=1), atol=1e-3)
    azimuth = np.sort(np.arctan2(directions[:360, 1], directions[:360, 0]))
    np.testing.assert_allclose(np.diff(azimuth), 2 * np.pi / 360, atol=1e-5)


def test_lidar_noise_and_losses():
    config, rng = LidarConfig(dropout=0.1, range_noise=0.02), np.random.default_rng(0)
    far = np.repeat(np.array([0.1, 10.0, 60.0, 90.0], np.float32), 20000)
    kept, measured, intensity = config.measure(far, np.ones_like(far), np.full_like(far, 0.5), rng)
    share = np.bincount(kept // 20000, minlength=4) / 20000
    assert share[0] == share[3] == 0  # nearer than min_range, farther than max_range
    assert share[1] == pytest.approx(0.9, abs=0.01)
    assert share[2] == pytest.approx(0.9 * (1 - np.exp(-0.5 * 1.5**2)), abs=0.02)
    assert (measured - far[kept]).std() == pytest.approx(0.02, rel=0.05)
    assert 0 <= intensity.min() and intensity.max() <= 1 and intensity.mean() == pytest.approx(0.5, abs=0.02)


def test_depth_noise_grows_with_depth_and_edges_are_lost():
    config, rng = RgbdConfig(dropout=0.0), np.random.default_rng(0)
    image = np.full((240, 320), 1.0, np.float32)
    image[:, 160:] = 4.0
    distance = (image / config.directions[:, 0].reshape(240, 320)).ravel()
    ones = np.ones_like(distance)
    kept, measured, _ = config.measure(distance, ones, ones, rng)
    depth = config.directions[kept, 0] * measured
    for near, at in ((True, 1.0), (False, 4.0)):
        error = (depth - at)[(kept % 320 < 160) == near]
        assert error.std() == pytest.approx(0.0012 + 0.0019 * (at - 0.4) ** 2, rel=0.05)
    column = np.bincount(kept % 320, minlength=320)
    assert (column[[10, 100, 200, 300]] == 240).all()
    assert (column[[159, 160]] < 0.55 * 240).all()


def test_the_camera_has_its_field_of_view():
    directions = RgbdConfig().directions.reshape(240, 320, 3)
    corner = np.rad2deg(np.arctan2(directions[120, 0, 1], directions[120, 0, 0]))
    assert corner == pytest.approx(29.0, abs=0.2)
    assert directions[0, 160, 2] > 0 > directions[239, 160, 2]
