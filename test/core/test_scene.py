# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from pydantic import ValidationError

from foundry_core.clouds import Cloud
from foundry_core.errors import InputError
from foundry_core.scene import grid
from foundry_core.scene.boxes import oriented_boxes
from foundry_core.scene.clusters import connected_components
from foundry_core.scene.config import (
    Box,
    ClusterConfig,
    EgoBox,
    GroundConfig,
    PlaneConfig,
    SceneConfig,
    room_config,
    street_config,
    tabletop_config,
)
from foundry_core.scene.ground import find_ground, rotation_to_z
from foundry_core.scene.planes import fit_plane
from foundry_core.scene.segment import find_segments
from foundry_core.schema import parse


def _block(center, size, count=400, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 3)) * size + center


def _floor(height, half=25.0, count=40_000, noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-half, half, (count, 2))
    return np.c_[xy, height(*xy.T) + rng.normal(0, noise, count)]


def _rotation(roll, pitch):
    r, p = np.deg2rad([roll, pitch])
    about_x = np.array([[1, 0, 0], [0, np.cos(r), -np.sin(r)], [0, np.sin(r), np.cos(r)]])
    about_y = np.array([[np.cos(p), 0, np.sin(p)], [0, 1, 0], [-np.sin(p), 0, np.cos(p)]])
    return about_y @ about_x


SURFACES = {
    "flat, low sensor": lambda x, y: np.full_like(x, -0.4),
    "flat, high sensor": lambda x, y: np.full_like(x, -3.0),
    "slope": lambda x, y: 0.08 * x - 1.7,
    "hill": lambda x, y: -1.7 + 1.2 * np.sin(x / 12) + 0.5 * np.cos(y / 9),
    "kerb": lambda x, y: np.where(y > 3, -1.55, -1.7),
}


@pytest.mark.parametrize("surface", SURFACES)
def test_ground_is_found_and_objects_are_kept(surface):
    height = SURFACES[surface]
    floor = _floor(height)
    places = [(8.0, 1.0), (-10.0, 8.0), (3.0, -12.0), (-6.0, -7.0)]
    bases = [float(height(np.array(x), np.array(y))) for x, y in places]
    blocks = [_block([*xy, z + 0.8], [0.8, 0.8, 1.2], seed=k) for k, (xy, z) in enumerate(zip(places, bases))]
    result = find_segments(Cloud.from_points(np.concatenate([floor, *blocks])), street_config())
    assert result.ground[: len(floor)].mean() > 0.995
    assert result.ground[len(floor) :].mean() < 0.05
    assert len(result.segments) == len(places)
    for k, (x, y) in enumerate(places):
        segment = min(result.segments, key=lambda item: np.hypot(*(item.center[:2] - (x, y))))
        members = np.arange(len(floor) + 400 * k, len(floor) + 400 * (k + 1))
        assert np.isin(members, segment.index).mean() > 0.95 and np.isin(segment.index, members).mean() > 0.98


@pytest.mark.parametrize(("roll", "pitch"), [(0, 17), (0, -30), (12, 12), (-8, 2)])
def test_a_tilted_sensor_is_levelled(roll, pitch):
    rotation = _rotation(roll, pitch)  # sensor from level
    floor = _floor(lambda x, y: np.full_like(x, -1.7), half=12.0)  # stays in the crop box when tilted
    world = np.concatenate([floor, _block([6, 2, -0.6], [0.4, 0.4, 2.0])])
    cloud = Cloud.from_points(world @ rotation.T)
    result = find_segments(cloud, street_config())
    np.testing.assert_allclose(result.rotation @ rotation @ [0, 0, 1], [0, 0, 1], atol=0.01)
    assert result.ground[:-400].mean() > 0.99 and len(result.segments) == 1
    segment = result.segments[0]
    np.testing.assert_allclose(segment.points, cloud.points[segment.index] @ result.rotation.T, atol=1e-4)
    # upright again: the block is as thin as it is in the world, which it is not in the sensor frame
    assert np.ptp(segment.points[:, 2]) == pytest.approx(1.95, abs=0.04)
    assert np.ptp(segment.points[:, :2], axis=0).max() < 0.62


def test_a_level_sensor_is_left_as_it_is():
    cloud = Cloud.from_points(
        np.concatenate([_floor(lambda x, y: 0.02 * x - 1.7), _block([6, 2, -0.4], [0.5, 0.5, 2.0])])
    )
    result = find_segments(cloud, street_config())
    np.testing.assert_array_equal(result.rotation, np.eye(3))
    np.testing.assert_array_equal(result.segments[0].points, cloud.points[result.segments[0].index])


def test_echoes_under_the_ground_do_not_pull_it_down():
    floor = _floor(lambda x, y: np.full_like(x, -1.7))
    stray = np.concatenate([_block([x, y, -5.0], [0.7, 0.7, 1.0], 12, seed=9) for x, y in ((5, 5), (-9, 3), (2, -8))])
    result = find_segments(Cloud.from_points(np.concatenate([floor, stray])), street_config())
    assert result.ground[: len(floor)].mean() > 0.999 and not result.segments


def test_no_floor_means_no_ground_when_switched_off():
    cloud = Cloud.from_points(_block([5, 0, 0], [1, 1, 1], 800))
    ground, _ = find_ground(cloud.points, GroundConfig(enabled=False))
    assert not ground.found and np.isinf(ground.height).all()
    result = find_segments(cloud, SceneConfig(ground=GroundConfig(enabled=False)))
    assert len(result.segments) == 1 and len(result.segments[0].index) == 800


def test_the_floor_of_a_room_but_not_its_table():
    rng = np.random.default_rng(0)
    floor = np.c_[rng.uniform([0.5, -2], [4, 2], (30_000, 2)), rng.normal(-1.2, 0.003, 30_000)]
    top = np.c_[rng.uniform([1.5, -0.6], [2.7, 0.6], (9_000, 2)), rng.normal(-0.45, 0.002, 9_000)]
    mug = _block([2.1, 0.1, -0.39], [0.08, 0.08, 0.1], 300)
    cloud = Cloud.from_points(np.concatenate([floor, top, mug]) @ _rotation(0, 25).T)
    result = find_segments(cloud, room_config())
    assert result.ground[:30_000].mean() > 0.3 and not result.ground[30_000:].any()  # one point per voxel is judged
    assert len(result.segments) == 1 and np.isin(np.arange(39_000, 39_300), result.segments[0].index).any()
    removed = room_config().model_copy(update={"planes": PlaneConfig(count=1, min_share=0.5)})
    segments = find_segments(cloud, removed).segments
    assert len(segments) == 1 and (segments[0].index >= 39_000).all()


def test_on_a_table_that_fills_the_view_the_top_is_the_ground():
    rng = np.random.default_rng(0)
    top = np.c_[rng.uniform([0.4, -0.5], [1.4, 0.5], (12_000, 2)), rng.normal(-0.5, 0.001, 12_000)]
    things = [_block([0.7, 0.2, -0.44], [0.06, 0.06, 0.12], 500), _block([1.0, -0.2, -0.42], [0.1, 0.1, 0.16], 500)]
    result = find_segments(Cloud.from_points(np.concatenate([top, *things]) @ _rotation(0, 35).T), tabletop_config())
    assert len(result.segments) == 2
    assert [bool((segment.index >= 12_000).mean() > 0.95) for segment in result.segments] == [True, True]


def test_voxels_separate_what_birdseye_merges():
    lamp, table = _block([3, 0, 1.5], [0.5, 0.5, 0.3], 600), _block([3, 0, -0.5], [0.8, 0.8, 0.4], 900)
    points = np.concatenate([lamp, table]).astype(np.float32)
    assert connected_components(points, ClusterConfig(method="birdseye", cell=0.1))[1] == 1
    labels, count = connected_components(points, ClusterConfig(method="voxel", cell=0.1))
    assert count == 2 and len(set(labels[:600])) == 1 and len(set(labels[600:])) == 1


def test_cells_grow_with_range():
    pair = np.array([[0.0, 0, 0], [0.9, 0, 0]], np.float32)
    config = ClusterConfig(cell=0.25, growth=0.05)
    assert connected_components(pair + np.float32([3, 0, 0]), config)[1] == 2
    assert connected_components(pair + np.float32([38, 0, 0]), config)[1] == 1


def test_a_huge_extent_is_no_huge_grid():
    points = np.array([[0, 0, 0], [1e6, 1e6, 1e4], [1e6, 1e6, 1e4]], np.float32)
    labels, count = connected_components(points, ClusterConfig(method="voxel", cell=0.01, growth=0))
    assert count == 2 and labels[1] == labels[2]


@pytest.mark.parametrize("yaw_deg", [-85, -40, 0, 10, 33, 60, 90])
def test_boxes_of_rotated_rectangles(yaw_deg):
    yaw = np.deg2rad(yaw_deg)
    local = np.random.default_rng(0).uniform(-0.5, 0.5, (3000, 3)) * [4.0, 1.6, 1.4]
    rotation = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    points = (local @ rotation.T + [10, -5, 0.5]).astype(np.float32)
    center, size, found = oriented_boxes(points, np.arange(3000), np.array([0, 3000]))
    np.testing.assert_allclose(center[0], [10, -5, 0.5], atol=0.05)
    np.testing.assert_allclose(size[0], [4.0, 1.6, 1.4], atol=0.06)
    assert abs(np.sin(found[0] - yaw)) < np.sin(np.deg2rad(1.5)) and -np.pi / 2 < found[0] <= np.pi / 2 + 1e-6


def test_limits_count_what_they_leave_out():
    floor = _floor(lambda x, y: np.full_like(x, -1.7))
    blocks = {
        "kept": _block([6, 0, -1.0], [1, 1, 1]),
        "kept too": _block([12, 0, -1.0], [2, 1, 1]),
        "few": _block([0, 6, -1.0], [0.5, 0.5, 1], 20),
        "low": _block([0, -6, -1.47], [0.8, 0.8, 0.1]),
        "large": _block([-8, 0, 0], [1, 20, 2], 6000),
    }
    cloud = Cloud.from_points(np.concatenate([floor, *blocks.values()]))
    result = find_segments(cloud, street_config())
    np.testing.assert_allclose([segment.center[0] for segment in result.segments], [6, 12], atol=0.05)
    assert result.dropped == {"few_points": 1, "low": 1, "small": 0, "large": 1, "beyond_limit": 0}
    one = find_segments(cloud, SceneConfig(max_objects=1, priority="largest"))
    assert one.segments[0].center[0] == pytest.approx(12, abs=0.05) and one.dropped["beyond_limit"] == 1
    assert find_segments(cloud, SceneConfig(max_objects=1)).segments[0].center[0] == pytest.approx(6, abs=0.05)


def test_result_is_consistent():
    blocks = [_block([4 * k, 3, -0.8], [1, 1, 1.2], seed=k + 3) for k in range(-3, 4)]
    cloud = Cloud.from_points(np.concatenate([_floor(lambda x, y: np.full_like(x, -1.7)), *blocks]))
    result = find_segments(cloud, street_config())
    assert len(result.segments) == 7 and set(result.phases_ms) == {"crop", "ground", "clusters"}
    owned = np.zeros(len(cloud), int)
    for number, segment in enumerate(result.segments):
        assert segment.size[0] >= segment.size[1] and segment.index.dtype == np.int64
        assert (result.segment_id[segment.index] == number).all()
        owned[segment.index] += 1
    assert owned.max() == 1 and (owned.sum() == (result.segment_id >= 0).sum())
    assert not (result.ground & (result.segment_id >= 0)).any()
    again = find_segments(cloud, street_config())
    assert all((a.index == b.index).all() for a, b in zip(result.segments, again.segments, strict=True))


def test_crop_ego_box_and_thinning():
    points = np.random.default_rng(0).uniform(-60, 60, (20_000, 3)).astype(np.float32)
    box, ego = Box(x_min=-10), EgoBox(x_min=-2, x_max=20, y_min=-20, y_max=20, z_min=-10, z_max=10)
    inside = (points >= [-10, -40, -10]).all(1) & (points <= [40, 40, 10]).all(1)
    robot = (points > [-2, -20, -10]).all(1) & (points < [20, 20, 10]).all(1)
    np.testing.assert_array_equal(grid.crop(points, box, ego), np.flatnonzero(inside & ~robot))
    cloud = Cloud.from_points(_block([5, 0, 0], [1, 1, 1], 5000))
    config = SceneConfig(ground=GroundConfig(enabled=False), max_points=1000)
    assert len(find_segments(cloud, config).segments[0].index) == 1000


def test_one_point_per_voxel():
    points = np.random.default_rng(0).uniform(-1, 1, (5000, 3)).astype(np.float32)
    kept = grid.voxel_first(points, 0.25)
    _, first = np.unique(np.floor(points / np.float32(0.25)), axis=0, return_index=True)
    np.testing.assert_array_equal(kept, np.sort(first))


def test_the_lowest_plane_wins_over_a_larger_one_above_it():
    rng = np.random.default_rng(0)
    floor = np.c_[rng.uniform(-2, 2, (300, 2)), np.full(300, -1.0)]
    table = np.c_[rng.uniform(-2, 2, (500, 2)), np.full(500, -0.3)]
    points = np.concatenate([floor, table])
    assert fit_plane(points, 0.03, (0.9, 1.0))[0][3] == pytest.approx(0.3, abs=0.01)
    plane, share = fit_plane(points, 0.03, (0.9, 1.0), below_penalty=2.0)
    assert plane[3] == pytest.approx(1.0, abs=0.01) and share == pytest.approx(300 / 800, abs=0.02)


def test_rotation_to_z():
    normal = _rotation(20, -15) @ [0, 0, 1]
    rotation = rotation_to_z(normal)
    np.testing.assert_allclose(rotation @ normal, [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("config", [street_config(), room_config(), tabletop_config()])
@pytest.mark.parametrize("count", [0, 1, 2, 9, 40])
def test_degenerate_clouds(config, count):
    for points in (np.zeros((count, 3)), np.random.default_rng(0).normal(size=(count, 3))):
        result = find_segments(Cloud.from_points(points), config)
        assert len(result.ground) == len(result.segment_id) == count
        assert sum(len(segment.index) for segment in result.segments) <= count


def test_settings_are_checked_by_name():
    with pytest.raises(ValidationError, match="x_min must not exceed"):
        Box(x_min=3, x_max=2)
    with pytest.raises(InputError, match="clusters.cel: unknown key"):
        parse(SceneConfig, {"clusters": {"cel": 0.1}}, "scene.yaml")
    assert street_config() == SceneConfig()
