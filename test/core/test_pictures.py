# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from foundry_core.colors import UNKNOWN, class_color
from foundry_core.errors import InputError
from foundry_core.evaluation.pictures import birds_eye
from foundry_core.records import OBJECT


def pixels(path) -> np.ndarray:
    from matplotlib import image

    return image.imread(path)[..., :3]


def has_color(picture: np.ndarray, color) -> bool:
    return bool((np.abs(picture - np.array(color)).max(axis=-1) < 0.04).sum() > 50)


def test_boxes_are_drawn_in_the_colour_of_their_class_and_in_their_place(tmp_path):
    points = np.random.default_rng(0).uniform(-10, 10, (5000, 3)).astype(np.float32)
    objects = np.zeros(2, OBJECT)
    objects["x"], objects["y"] = [6.0, -6.0], [6.0, -6.0]  # front left, rear right
    objects["size_x"] = objects["size_y"] = objects["size_z"] = 2.0
    objects["class_id"], objects["probability"] = [18, -1], 0.9
    birds_eye(points, objects, tmp_path / "a.png", {18: "car"}, extent=10.0)
    picture = pixels(tmp_path / "a.png")
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    assert has_color(picture[:height, :width], class_color(18))
    assert not has_color(picture[height:], class_color(18))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_see_is_a_picture_too(tmp_path, count):
    birds_eye(np.zeros((count, 3), np.float32), np.zeros(0, OBJECT), tmp_path / "a.png", {})
    assert pixels(tmp_path / "a.png").size


def test_an_impossible_path_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="a.nonsense"):
        birds_eye(np.zeros((1, 3), np.float32), np.zeros(0, OBJECT), tmp_path / "a.nonsense", {})
    assert list(tmp_path.iterdir()) == []


def test_classes_can_be_told_by_colour():
    colors = np.array([class_color(k) for k in range(28)])
    distance = np.abs(colors[:, None] - colors[None]).max(axis=-1) + np.eye(28)
    assert distance.min() > 0.03
    assert class_color(-1) == UNKNOWN


def test_a_replay_is_drawn_with_and_without_answers(tmp_path):
    from foundry_core.evaluation.replay_picture import draw_replay

    timeline = {"sent_s": [0.0, 0.1, 0.2], "latency_ms": [5.0, None, 7.0]}
    report = {"timeline": timeline, "latency_ms": {"p50": 6.0, "p95": 6.9, "max": 7.0}, "model": "m", "budget": 4,
              "frames_sent": 3}  # fmt: skip
    draw_replay(report, tmp_path / "some.png")
    nothing = {**report, "timeline": {"sent_s": [0.0], "latency_ms": [None]}}
    draw_replay(nothing, tmp_path / "none.png")
    some, none = ((tmp_path / name).read_bytes() for name in ("some.png", "none.png"))
    assert some[:4] == none[:4] == b"\x89PNG" and some != none
