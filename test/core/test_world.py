# SPDX-License-Identifier: Apache-2.0
import json
import sys

import numpy as np
import pytest

from foundry_core import pointcloud2
from foundry_core.data import bags
from foundry_core.data.bag_writer import write_bag
from foundry_core.data.procedural import CATEGORIES, CATEGORY_PARTS, PART_NAMES
from foundry_core.data.world import bag as world_bag
from foundry_core.data.world.config import WorldConfig
from foundry_core.data.world.scenes import CLEARANCE, build_scene
from foundry_core.data.world.sensors import LidarConfig, RgbdConfig
from foundry_core.data.world.simulate import Simulator, simulate
from foundry_core.errors import InputError
from foundry_core.schema import parse

SMALL = {"seconds": 0.3, "lidar": LidarConfig(beams=16, azimuth_steps=900, elevation_deg=(-25.0, 3.0))}
CONFIGS = {
    "street": WorldConfig(seed=3, **SMALL),
    "room": WorldConfig(kind="room", sensor="rgbd", seconds=0.3, rgbd=RgbdConfig(width=120, height=90), seed=4),
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def simulator(request):
    return Simulator(CONFIGS[request.param])


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_open3d_casts_the_same_rays(kind):
    pytest.importorskip("open3d", exc_type=ImportError)
    config = CONFIGS[kind].model_copy(update={"raycaster": "open3d"})
    ours, theirs = Simulator(CONFIGS[kind]), Simulator(config)
    for number in (0, 2):  # moving objects stand elsewhere in the third frame
        seconds = number / config.rate_hz
        poses = [(np.eye(3), np.zeros(3))] + [ours.object_pose(moving, seconds) for moving in ours._moving]
        arguments = (ours.sensor.directions, ours.scene.sensor_pose(seconds), *map(np.stack, zip(*poses)), 60.0)
        a, b = ours._caster.cast(*arguments), theirs._caster.cast(*arguments)
        same = (a.mesh == b.mesh) & (a.triangle == b.triangle)
        assert same.mean() > 0.998 and (a.mesh >= 0).mean() > 0.3  # rays along an edge may go to either side
        np.testing.assert_allclose(a.distance[same], b.distance[same], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(a.cosine[same], b.cosine[same], atol=1e-3)


def test_open3d_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(InputError, match="raycaster open3d: cannot be imported"):
        Simulator(CONFIGS["street"].model_copy(update={"raycaster": "open3d"}))


def _distance_to_mesh(points, mesh):
    """Distance [N] of points [N,3] to the nearest triangle whose prism holds them (infinite outside every prism)."""
    best = np.full(len(points), np.inf)
    for p, q, r in mesh.vertices[mesh.triangles].astype(float):
        normal = np.cross(q - p, r - p)
        area = np.linalg.norm(normal)
        if area < 1e-12:
            continue
        normal /= area
        height = np.abs((points - p) @ normal)
        inside = np.ones(len(points), bool)
        for u, v in ((p, q), (q, r), (r, p)):
            inward = np.cross(normal, v - u) / np.linalg.norm(v - u)
            inside &= (points - u) @ inward >= -1e-4  # a tenth of a millimetre: float32 in the world frame
        best[inside] = np.minimum(best[inside], height[inside])
    return best


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_points_lie_on_the_object_that_they_name(kind):
    quiet = {"lidar": {"range_noise": 0.0}, "rgbd": {"noise_floor": 0.0, "noise_growth": 0.0}}[CONFIGS[kind].sensor]
    sensor = CONFIGS[kind].sensor_config().model_copy(update=quiet)
    simulator = Simulator(CONFIGS[kind].model_copy(update={CONFIGS[kind].sensor: sensor}))
    frame = simulator.frame(2)
    pose = frame.pose_world_from_sensor
    world = frame.points.astype(float) @ pose[:3, :3].T + pose[:3, 3]
    checked = moving = 0
    for number in np.unique(frame.object_id[frame.object_id >= 0]):
        own = np.flatnonzero(frame.object_id == number)[:80]
        rotation, translation = simulator.object_pose(int(number), 2 / simulator.config.rate_hz)
        placed = simulator.scene.objects[number]
        near = _distance_to_mesh((world[own] - translation) @ rotation, placed.mesh)
        assert near.max() < 2e-4, placed.category
        checked, moving = checked + len(own), moving + placed.moving
    assert checked > 100 and moving >= (kind == "street")


def test_the_surroundings_are_not_on_an_object(simulator):
    frame = simulator.frame(0)
    rest = frame.object_id < 0
    assert rest.any() and not rest.all()
    assert (frame.class_id[rest] == -1).all() and (frame.part_id[rest] == -1).all()


def test_truth_is_consistent_over_frames(simulator):
    classes = {}
    for number in range(3):
        frame = simulator.frame(number)
        assert frame.points.dtype == np.float32 and frame.intensity.dtype == np.float32
        assert frame.object_id.dtype == np.int32 and frame.class_id.dtype == frame.part_id.dtype == np.int16
        count = len(frame.points)
        assert {len(frame.intensity), len(frame.object_id), len(frame.class_id), len(frame.part_id)} == {count}
        assert np.isfinite(frame.points).all()
        for owner in np.unique(frame.object_id[frame.object_id >= 0]):
            mine = frame.object_id == owner
            (kind,) = np.unique(frame.class_id[mine])
            assert classes.setdefault(owner, kind) == kind
            assert simulator.scene.objects[owner].category == CATEGORIES[kind]
            parts = {PART_NAMES[part] for part in np.unique(frame.part_id[mine])}
            assert parts <= set(CATEGORY_PARTS[CATEGORIES[kind]])
    assert len(classes) >= 2


def test_the_same_seed_gives_the_same_frames_and_another_gives_others():
    for config in CONFIGS.values():
        first, second = list(simulate(config)), list(simulate(config))
        assert len(first) == 3
        for one, two in zip(first, second, strict=True):
            for name in ("points", "intensity", "object_id", "part_id", "pose_world_from_sensor"):
                np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        other = next(iter(simulate(config.model_copy(update={"seed": config.seed + 1}))))
        assert other.points.shape != first[0].points.shape or not np.array_equal(other.points, first[0].points)


@pytest.mark.parametrize("kind", ["street", "room"])
@pytest.mark.parametrize("seed", [0, 1])
def test_objects_keep_their_distance_while_they_move(kind, seed):
    scene = build_scene(kind, seed, 10.0)
    moving = [placed for placed in scene.objects if placed.moving]
    assert moving and len(scene.objects) >= (40 if kind == "street" else 12)
    assert len({placed.category for placed in scene.objects}) >= 9
    clearance = CLEARANCE if kind == "street" else 0.6
    for seconds in (0.0, 3.75, 10.0):
        boxes = []
        for placed in scene.objects:
            flat = (placed.mesh.vertices @ placed.rotation.T)[:, :2] + placed.at(seconds)
            boxes.append(np.concatenate([flat.min(axis=0), flat.max(axis=0)]))
        boxes = np.array(boxes)
        low, high = boxes[:, None, :2] - boxes[None, :, 2:], boxes[None, :, :2] - boxes[:, None, 2:]
        apart = np.maximum(low, high).max(axis=2) + 10 * np.eye(len(boxes))
        assert apart.min() > clearance - 1e-3


def test_the_sensor_moves_and_stays_clear_of_objects():
    for kind in ("street", "room"):
        scene = build_scene(kind, 5, 10.0)
        first, last = scene.sensor_pose(0.0), scene.sensor_pose(5.0)
        assert np.linalg.norm(first[:3, 3] - last[:3, 3]) > 0.5
        for pose in (first, last):
            np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
            assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert scene.sensor_pose(0.0)[2, 3] > 0.5


def test_a_street_is_dense_enough():
    frame = Simulator(WorldConfig(seconds=1.0)).frame(0)
    assert 60_000 <= len(frame.points) <= 100_000
    _, counts = np.unique(frame.object_id[frame.object_id >= 0], return_counts=True)
    assert (counts >= 50).sum() >= 15 and (counts >= 200).sum() >= 5


def test_the_bag_holds_the_frames_and_their_truth(tmp_path):
    config = CONFIGS["street"]
    seen = []
    path = world_bag.write_world_bag(tmp_path / "bag", config, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    clouds = [pointcloud2.to_cloud(message) for _, _, message in bags.read_messages(path, "/points")]
    truths = list(world_bag.read_truth(path))
    frames = list(simulate(config))
    for cloud, truth, frame in zip(clouds, truths, frames, strict=True):
        assert cloud.stamp_ns == truth.stamp_ns == frame.stamp_ns and cloud.frame_id == "lidar"
        np.testing.assert_array_equal(cloud.points, frame.points)
        np.testing.assert_array_equal(cloud.intensity, frame.intensity)
        for name in ("points", "object_id", "class_id", "part_id"):
            np.testing.assert_array_equal(getattr(truth, name), getattr(frame, name))
    assert np.diff([frame.stamp_ns for frame in frames]).tolist() == [100_000_000] * 2
    classes, parts = world_bag.read_labels(path)
    assert [classes[i] for i in range(len(CATEGORIES))] == list(CATEGORIES)
    assert [parts[i] for i in range(len(PART_NAMES))] == list(PART_NAMES)
    for (_, _, odometry), frame in zip(bags.read_messages(path, "/odom"), frames, strict=True):
        place = odometry.pose.pose.position
        np.testing.assert_allclose([place.x, place.y, place.z], frame.pose_world_from_sensor[:3, 3])
    with bags.open_bag(path) as bag:
        assert bag.choose_point_cloud_topic() == "/points"
        (label,) = [data for _, _, data in bag.messages("/truth/labels")]
        assert set(json.loads(bag.decode("/truth/labels", label).data)) == {"classes", "parts"}


def test_truth_of_a_bag_without_truth_is_refused(tmp_path):
    with write_bag(tmp_path / "bag") as bag:
        bag.add_topic("/labels", "std_msgs/msg/String")
        bag.write("/labels", 0, bags.message_class("std_msgs/msg/String")("x"))
    with pytest.raises(InputError, match="/truth/points"):
        list(world_bag.read_truth(tmp_path / "bag"))


@pytest.mark.parametrize(
    ("values", "key"),
    [({"kind": "moon"}, "kind"), ({"seconds": 0}, "seconds"), ({"beams": 17}, "beams"), ({"seedd": 1}, "seedd"),
     ({"lidar": {"min_range": 9, "max_range": 3}}, "lidar"), ({"rgbd": {"width": 2}}, "rgbd.width")],
)  # fmt: skip
def test_a_wrong_setting_is_named(values, key):
    with pytest.raises(InputError, match=key):
        parse(WorldConfig, values, "world.yaml")


def test_the_command_writes_a_bag(tmp_path):
    import typer
    from typer.testing import CliRunner

    from foundry_core.cli import world

    app = typer.Typer()
    app.callback()(lambda: None)
    world.register(app)
    options = ["world", "--out", str(tmp_path / "bag"), "--sensor", "rgbd", "--seconds", "0.2", "--seed", "7"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    assert dict(bags.point_cloud_topics(tmp_path / "bag")) == {"/points": 2, "/truth/points": 2}
    again = CliRunner().invoke(app, options)
    assert isinstance(again.exception, InputError) and "--force" in str(again.exception)
