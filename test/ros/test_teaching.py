# SPDX-License-Identifier: Apache-2.0
"""Teaching over real DDS: clicks, the label map, saving, a restart, forgetting, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from observer import wait_for

pytest.importorskip("rclpy", reason="rclpy is not installed")

from geometry_msgs.msg import Point, PointStamped
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from station import Station, cloud, diagnostics
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger
from street_scene import BOX, POLE, street

from foundry_core.card import load_card
from foundry_core.records import OBJECT
from foundry_core.runtime.teach import TaughtClasses
from foundry_ros import messages
from foundry_ros.teaching import Teaching

LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
PLACE = (8.0, 0.0, -0.9)


def scene(number: int) -> np.ndarray:
    """The street with a round table top on nothing at PLACE."""
    rng = np.random.default_rng(number)
    angle, radius = rng.uniform(0, 2 * np.pi, 900), 1.2 * np.sqrt(rng.random(900))
    disc = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), rng.normal(0, 0.02, 900)]) + PLACE
    return np.concatenate([street(number), disc]).astype(np.float32)


class Pupil(Station):
    """A station that clicks."""

    def __init__(self, ros) -> None:
        super().__init__(ros)
        self.labels = ros.collect(String, "/perception_node/labels", LATCHED)
        self.clicks = ros.node.create_publisher(PointStamped, "/clicked_point", 5)
        self.frame = 0

    def connect(self) -> Pupil:
        super().connect()
        wait_for(lambda: self.labels and self.clicks.get_subscription_count(), 20, "labels and clicks")
        return self

    def classes(self) -> dict[str, str]:
        return json.loads(self.labels[-1].data)["classes"]

    def names(self) -> dict[str, str]:
        """Label of the disc, the box and the pole in a new frame."""
        self.frame += 1
        answer = self.ask(cloud(scene(self.frame), 10**12 + self.frame * 10**8))
        found = messages.read_records(answer, OBJECT, "objects")
        places = {"disc": PLACE[:2], "box": BOX, "pole": POLE}
        classes = self.classes()
        return {name: classes[str(row["class_id"])] for row in found for name, (x, y) in places.items()
                if np.hypot(row["x"] - x, row["y"] - y) < 0.4}  # fmt: skip

    def click(self, point=PLACE, frame: str = "lidar") -> None:
        clicks = int(diagnostics(self.diagnostics).get("clicks", 0))
        x, y, z = map(float, point)
        self.clicks.publish(PointStamped(header=Header(frame_id=frame), point=Point(x=x, y=y, z=z)))
        self.figure("clicks", clicks + 1)

    def say(self, label: str):
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=label)
        request = SetParameters.Request(parameters=[Parameter(name="teach_label", value=value)])
        return self.ros.call(SetParameters, "/perception_node/set_parameters", request, again=2.0).results[0]

    def order(self, service: str):
        return self.ros.call(Trigger, f"/perception_node/teach/{service}", Trigger.Request())


def recognised(pupil: Pupil) -> dict[str, str] | None:
    names = pupil.names()
    return names if names["disc"] == "disc" else None


def test_a_class_is_taught_saved_restored_and_forgotten(ros, tiny_model, tmp_path):
    file = tmp_path / "deep" / "taught.npz"
    parameters = {"model": str(tiny_model), "diagnostics_period": 0.1, "teach_file": str(file)}
    with ros.start("perception_node", parameters, {"~/input": "/points"}) as process:
        pupil = Pupil(ros).connect()
        before = pupil.names()
        assert before["box"] == "box" and before["pole"] == "pole" and before["disc"] != "disc"
        pupil.click()  # no label is set
        pupil.figure("clicks_refused", 1)
        assert pupil.say("disc").successful  # while the node is active
        pupil.click(frame="map")
        pupil.click(point=(30, 30, 0))
        pupil.figure("clicks_refused", 3)
        assert "2" not in pupil.classes()
        for count in range(1, 4):
            pupil.click()
            pupil.figure("taught_exemplars", count)
            pupil.names()
        assert pupil.classes() == {"-1": "unknown", "0": "box", "1": "pole", "2": "disc"}
        found = wait_for(lambda: recognised(pupil), 120, "recognition")
        assert found == {"disc": "disc", "box": "box", "pole": "pole"}
        assert not file.exists()
        saved = pupil.order("save")
        assert saved.success and str(file) in saved.message and file.exists()
        assert process.stop() == 0

    with ros.start("perception_node", parameters, {"~/input": "/points"}):
        pupil = Pupil(ros).connect()
        wait_for(lambda: "2" in pupil.classes(), 20, "the taught class among the labels")
        assert pupil.names() == {"disc": "disc", "box": "box", "pole": "pole"}  # at once
        assert pupil.order("forget").success  # no label: the last exemplar
        pupil.figure("taught_exemplars", 2)
        assert pupil.say("nothing").successful and not pupil.order("forget").success
        assert pupil.say("disc").successful and pupil.order("forget").success
        pupil.figure("taught_exemplars", 0)
        wait_for(lambda: "2" not in pupil.classes(), 10, "labels without the class")
        assert pupil.names()["disc"] != "disc"


def test_a_file_of_another_model_ends_the_node_with_one_line(ros, tiny_model, tmp_path):
    from tiny_model import write_tiny_model

    from foundry_core.card import load_card
    from foundry_core.runtime.teach import TaughtClasses

    other = write_tiny_model(tmp_path / "other", sharpness=3.0)
    TaughtClasses(load_card(other)).save(tmp_path / "taught.npz")
    parameters = {"model": str(tiny_model), "teach_file": str(tmp_path / "taught.npz")}
    with ros.start("perception_node", parameters) as process:
        wait_for(lambda: not process.running(), 60, "the end of the node")
        assert process.stop() == 2


def test_a_full_disk_is_the_answer_of_the_service(tiny_model, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "taught.npz"
    node = SimpleNamespace(settings=SimpleNamespace(teach_file=str(path)))
    pipeline = SimpleNamespace(taught=TaughtClasses(load_card(tiny_model)))
    teaching = SimpleNamespace(_node=node, _lock=threading.Lock(), _pipeline=pipeline)
    answer = Teaching._on_save(teaching, Trigger.Request(), Trigger.Response())
    assert not answer.success and answer.message.startswith(
        f"{path}: cannot be written (No space left on device); make"
    )
