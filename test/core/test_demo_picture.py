# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from foundry_core import records
from foundry_core.data.procedural import CATEGORIES, PART_NAMES
from foundry_core.data.world.bag import Truth
from foundry_core.data.world.config import WorldConfig
from foundry_core.data.world.simulate import Simulator
from foundry_core.errors import InputError
from foundry_core.evaluation.matching import Match, Matcher
from foundry_core.scene.config import room_config, street_config
from foundry_ros.cli.demo import choose_close_ups, draw_report

pytest.importorskip("matplotlib")
NAMES = (dict(enumerate(CATEGORIES)), dict(enumerate(PART_NAMES)))


def _perfect(frame, path, scene):
    """A results file that answers one frame with its ground truth, and the matches that it makes."""
    numbers, counts = np.unique(frame.object_id[frame.object_id >= 0], return_counts=True)
    numbers = numbers[counts >= 30]
    objects, parts = np.zeros(len(numbers), records.OBJECT), np.zeros(len(frame.points), records.PART)
    for column, axis in enumerate("xyz"):
        parts[axis] = frame.points[:, column]
    parts["object_id"], parts["part_id"] = -1, -1
    for row, number in enumerate(numbers):
        own = frame.object_id == number
        low, high = frame.points[own].min(axis=0), frame.points[own].max(axis=0)
        class_id = frame.class_id[own][0]
        objects[row] = (*(low + high) / 2, *(high - low), 0.0, class_id, 0.9, -1)
        parts["object_id"][own], parts["part_id"][own] = row, frame.part_id[own]
    found = records.FrameResult(frame.stamp_ns, objects, parts)
    with records.ResultsWriter(path) as results:
        results.labels = json.dumps({"classes": NAMES[0], "parts": NAMES[1]})
        results.add(found)
    matcher = Matcher(scene, NAMES, NAMES)
    matcher.add(Truth(frame.stamp_ns, frame.points, frame.object_id, frame.class_id, frame.part_id), found)
    return matcher.result


@pytest.mark.parametrize("kind", ["street", "room"])
def test_the_picture_shows_the_sweep_and_close_ups(kind, tmp_path):
    from matplotlib import image

    street = kind == "street"
    config = WorldConfig(kind=kind, sensor="lidar" if street else "rgbd", seconds=1.0, seed=2)
    result = _perfect(
        Simulator(config).frame(0), tmp_path / "results.npz", street_config() if street else room_config()
    )
    figures = {
        "model": "truth", "budget": 16, "frames_sent": 1, "frames_processed": 1, "frames_dropped": 0,
        "latency_ms": {"p50": 1.0}, "world": {"kind": kind},
    }  # fmt: skip
    path = tmp_path / "demo.png"
    draw_report(tmp_path / "results.npz", result.matches, {**figures, **result.report()}, path)
    picture = image.imread(path)[..., :3]
    assert picture.shape[0] > 800 and picture.shape[1] > 1200
    colorful = np.ptp(picture, axis=2) > 0.3
    assert 0.002 < colorful.mean() < 0.3  # boxes, names and parts on a dark ground
    assert picture.mean() < 0.3
    rows = len(picture)
    assert colorful[: rows // 2].any() and colorful[rows // 2 :].any()


def _match(name, points, found=None):
    return Match(1, 0, 0, name, found or name, 0.9, 0.8, points)


def test_close_ups_show_each_class_once_and_hide_no_mistakes():
    matches = [_match("car", 300), _match("car", 900), _match("bin", 60), _match("dog", 200, found="chair")]
    assert choose_close_ups(matches) == [matches[1], matches[3], matches[2]]
    assert len(choose_close_ups([_match(name, 500) for name in CATEGORIES], count=6)) == 6


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(InputError, match="nothing was matched"):
        draw_report(tmp_path / "results.npz", [], {}, tmp_path / "demo.png")
