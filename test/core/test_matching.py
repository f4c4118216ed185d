# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from foundry_core import records
from foundry_core.data import bags
from foundry_core.data.bag_writer import write_bag
from foundry_core.data.procedural import CATEGORIES
from foundry_core.data.world import bag as world
from foundry_core.data.world.config import WorldConfig
from foundry_core.data.world.sensors import LidarConfig
from foundry_core.errors import InputError
from foundry_core.evaluation import matching
from foundry_core.scene.config import Box, SceneConfig

CLASSES = {0: "chair", 1: "car", 2: "person"}
PARTS = {0: "leg", 1: "seat", 2: "wheel", 3: "body"}
NAMES = (CLASSES, PARTS)


class Scene:
    """Blocks of points with known owners, and an answer that starts out perfect."""

    def __init__(self, sizes: dict[int, int], classes: dict[int, int], background: int = 40, stamp_ns: int = 5) -> None:
        rng = np.random.default_rng(len(sizes))
        owner = np.repeat([*sizes, -1], [*sizes.values(), background])
        self.points = rng.uniform(-5, 5, (len(owner), 3)).astype(np.float32)
        class_id = np.array([classes.get(number, -1) for number in owner.tolist()])
        part = np.where(owner < 0, -1, np.arange(len(owner)) % 2)
        self.truth = world.Truth(stamp_ns, self.points, owner, class_id, part)
        self.parts = np.zeros(len(owner), records.PART)
        for column, axis in enumerate("xyz"):
            self.parts[axis] = self.points[:, column]
        self.parts["object_id"], self.parts["class_id"], self.parts["part_id"] = owner, class_id, part
        self.objects = np.zeros(len(sizes), records.OBJECT)
        self.objects["class_id"] = [classes[number] for number in sizes]

    def rows(self, number: int) -> np.ndarray:
        return np.flatnonzero(self.truth.object_id == number)

    def run(self, scene: SceneConfig | None = None, found_names=NAMES) -> dict:
        matcher = matching.Matcher(scene or SceneConfig(), NAMES, found_names)
        self.matches = matcher.add(self.truth, records.FrameResult(self.truth.stamp_ns, self.objects, self.parts))
        return matcher.result.report()


def _two() -> Scene:
    return Scene({0: 100, 1: 200}, {0: 0, 1: 1})


def test_a_perfect_answer():
    report = _two().run()
    expected = {
        "objects_true": 2, "objects_matched": 2, "objects_left_out": 0, "objects_found": 2,
        "objects_found_unmatched": 0, "class_accuracy": 1.0, "class_unknown": 0.0, "part_miou": 1.0,
        "confusion": {"car": {"car": 1}, "chair": {"chair": 1}},
    }  # fmt: skip
    assert {key: report[key] for key in expected} == expected
    assert report["per_class"]["chair"] == {"true": 1, "matched": 1, "class_accuracy": 1.0, "part_miou": 1.0}


@pytest.mark.parametrize(("lost", "matched"), [(49, True), (50, True), (51, False)])
def test_a_match_needs_half_of_the_union(lost, matched):
    scene = Scene({0: 100}, {0: 0})
    scene.parts["object_id"][scene.rows(0)[:lost]] = -1
    report = scene.run()
    assert report["objects_matched"] == int(matched) and report["objects_true"] == 1
    if matched:
        assert scene.matches[0].iou == pytest.approx((100 - lost) / 100)
    else:
        assert report["class_accuracy"] is None and report["part_miou"] is None


def test_foreign_points_count_against_a_match():
    scene = Scene({0: 100}, {0: 0}, background=150)
    scene.parts["object_id"][scene.rows(-1)[:100]] = 0
    assert scene.run()["objects_matched"] == 1 and scene.matches[0].iou == 0.5
    scene.parts["object_id"][scene.rows(-1)[:101]] = 0
    assert scene.run()["objects_matched"] == 0


def test_two_objects_in_one_answer_are_one_match_at_most():
    scene = _two()
    scene.parts["object_id"][scene.rows(0)] = 1
    report = scene.run()
    assert report["objects_matched"] == 1 and report["objects_found_unmatched"] == 1
    assert scene.matches[0].true_object == 1 and scene.matches[0].iou == pytest.approx(200 / 300)


def test_one_object_in_two_halves_is_one_match_at_most():
    scene = Scene({0: 100, 1: 60}, {0: 0, 1: 1})
    scene.objects = np.concatenate([scene.objects, scene.objects[:1]])
    scene.parts["object_id"][scene.rows(0)[:50]] = 2
    report = scene.run()
    assert report["objects_matched"] == 2 and report["objects_found"] == 3


@pytest.mark.parametrize(("count", "left_out"), [(49, 1), (50, 0)])
def test_objects_with_few_points_are_left_out_and_counted(count, left_out):
    report = Scene({0: 100, 1: count}, {0: 0, 1: 1}).run()
    assert report["objects_left_out"] == left_out and report["objects_true"] == 2 - left_out
    assert report["objects_matched"] == 2 - left_out


def test_points_outside_the_crop_are_not_asked_for():
    scene = Scene({0: 200}, {0: 0})
    inside = scene.points[:, 0] >= 0
    scene.parts["object_id"][~inside] = -1
    count = int((inside & (scene.truth.object_id == 0)).sum())
    assert 60 < count < 140
    report = scene.run(SceneConfig(crop=Box(x_min=0)))
    assert report["objects_matched"] == 1 and scene.matches[0].iou == 1.0 and scene.matches[0].points == count
    assert scene.run(SceneConfig(crop=Box(x_min=4.9)))["objects_left_out"] == 1


def test_thinned_points_are_not_asked_for():
    points = np.repeat(np.random.default_rng(0).uniform(-3, 3, (80, 3)), 4, axis=0).astype(np.float32)
    points += np.random.default_rng(1).normal(0, 1e-4, points.shape).astype(np.float32)
    mask = matching.kept_points(points, SceneConfig(voxel=0.05))
    assert 80 <= mask.sum() < 120
    assert matching.kept_points(points, SceneConfig()).all()


def test_wrong_and_unknown_classes():
    scene = Scene({0: 100, 1: 100, 2: 100, 3: 100}, {0: 0, 1: 1, 2: 2, 3: 2})
    scene.objects["class_id"][1], scene.objects["class_id"][2] = 0, -1
    report = scene.run()
    assert report["class_accuracy"] == 0.5 and report["class_unknown"] == 0.25
    assert report["confusion"] == {"car": {"chair": 1}, "chair": {"chair": 1}, "person": {"person": 1, "unknown": 1}}


def test_ids_are_brought_together_by_name():
    scene = _two()
    order = {0: 2, 1: 0, 2: 1, 3: 3}
    scene.parts["part_id"] = [order.get(part, -1) for part in scene.parts["part_id"].tolist()]
    scene.objects["class_id"] = [7, 5]
    names = ({7: "chair", 5: "car", 6: "other"}, {new: PARTS[old] for old, new in order.items()})
    report = scene.run(found_names=names)
    assert report["class_accuracy"] == 1.0 and report["part_miou"] == 1.0
    scene.objects["class_id"] = [6, 99]
    report = scene.run(found_names=({6: "other"}, {}))
    assert report["class_accuracy"] == 0.0 and report["part_miou"] == 0.0
    assert report["confusion"] == {"car": {"class 99": 1}, "chair": {"other": 1}}


def test_part_iou_by_hand():
    true = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert matching.mean_part_iou(true, true) == 1.0
    # leg: 3 of 4, and none too many; seat: 4 of 5
    assert matching.mean_part_iou(true, np.array([0, 0, 0, 1, 1, 1, 1, 1])) == pytest.approx((3 / 4 + 4 / 5) / 2)
    # a part that is only in the answer counts as 0; points without an answer are missed
    assert matching.mean_part_iou(true, np.array([0, 0, 0, 0, 1, 1, 3, -1])) == pytest.approx((1 + 2 / 4 + 0) / 3)
    assert matching.mean_part_iou(true, np.full(8, -1)) == 0.0


def test_part_miou_is_the_mean_over_objects():
    scene = _two()
    rows = scene.rows(0)  # parts 0 and 1 in turn
    scene.parts["part_id"][rows] = 0
    assert scene.run()["part_miou"] == pytest.approx((0.25 + 1.0) / 2)


def test_points_are_joined_by_their_exact_coordinates():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(500, 3)).astype(np.float32)
    points[7] = (0.0, -0.0, 1.0)
    order = rng.permutation(500)[:400]
    others = points[order].copy()
    others[others == 0] = 0.0
    joined = matching.join_points(points, others)
    present = np.isin(np.arange(500), order)
    assert (joined[~present] == -1).all()
    np.testing.assert_array_equal(order[joined[present]], np.flatnonzero(present))
    assert matching.join_points(np.nextafter(points, np.float32(9)), points).max() == -1
    assert (matching.join_points(points, points[:0]) == -1).all()
    np.testing.assert_array_equal(matching.join_points(points, points), np.arange(500))


def test_the_order_of_the_answer_does_not_matter():
    scene = _two()
    scene.parts = scene.parts[np.random.default_rng(3).permutation(len(scene.parts))]
    report = scene.run()
    assert report["objects_matched"] == 2 and report["part_miou"] == 1.0


def test_frames_are_paired_by_stamp():
    truths = [Scene({0: 60}, {0: 0}, stamp_ns=stamp).truth for stamp in (10, 20, 30, 40)]
    found = [records.FrameResult(stamp, None, None) for stamp in (5, 20, 25, 40, 50)]
    assert [truth.stamp_ns for truth, _ in matching.pair_frames(truths, found)] == [20, 40]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    lidar = LidarConfig(beams=32, azimuth_steps=900, elevation_deg=(-25.0, 3.0))
    return world.write_world_bag(tmp_path_factory.mktemp("world") / "bag", WorldConfig(seconds=0.3, lidar=lidar))


def _answer(recording, path, labels=None, shift_ns=0, spoil=None):
    classes, parts = world.read_labels(recording)
    with records.ResultsWriter(path) as results:
        results.labels = json.dumps({"classes": classes, "parts": parts}) if labels is None else labels
        for truth in world.read_truth(recording):
            numbers = np.unique(truth.object_id[truth.object_id >= 0])
            objects = np.zeros(len(numbers), records.OBJECT)
            found = np.zeros(len(truth.points), records.PART)
            for column, axis in enumerate("xyz"):
                found[axis] = truth.points[:, column]
            found["object_id"] = np.where(truth.object_id < 0, -1, np.searchsorted(numbers, truth.object_id))
            found["part_id"] = truth.part_id
            for row, number in enumerate(numbers):
                objects["class_id"][row] = truth.class_id[truth.object_id == number][0]
            if spoil is not None:
                spoil(objects, found)
            results.add(records.FrameResult(truth.stamp_ns + shift_ns, objects, found))
    return path


def test_a_simulated_bag_against_its_own_truth(recording, tmp_path):
    result = matching.match_bag(recording, _answer(recording, tmp_path / "results.npz"), SceneConfig())
    report = result.report()
    assert report["frames_matched"] == 3 and report["objects_true"] >= 15 and report["objects_left_out"] > 0
    assert report["objects_matched"] == report["objects_true"]
    assert report["class_accuracy"] == report["part_miou"] == 1.0
    assert sum(row["true"] for row in report["per_class"].values()) == report["objects_true"]
    json.dumps(report, allow_nan=False)


def test_a_spoilt_answer_scores_what_it_should(recording, tmp_path):
    def one_class_one_part(objects, found):
        objects["class_id"], found["part_id"] = CATEGORIES.index("car"), -1

    path = _answer(recording, tmp_path / "results.npz", spoil=one_class_one_part)
    report = matching.match_bag(recording, path, SceneConfig()).report()
    share = report["per_class"]["car"]["matched"] / report["objects_matched"]
    assert report["class_accuracy"] == pytest.approx(share, abs=1e-3) and report["part_miou"] == 0.0


def test_results_of_another_bag_are_refused(recording, tmp_path):
    path = _answer(recording, tmp_path / "results.npz", shift_ns=1)
    with pytest.raises(InputError, match="stamp"):
        matching.match_bag(recording, path, SceneConfig())
    with pytest.raises(InputError, match="names"):
        matching.match_bag(recording, _answer(recording, tmp_path / "other.npz", labels="{}"), SceneConfig())
    with write_bag(tmp_path / "plain") as bag:
        bag.add_topic("/points", bags.POINT_CLOUD)
    with pytest.raises(InputError, match="/truth"):
        matching.match_bag(tmp_path / "plain", path, SceneConfig())
