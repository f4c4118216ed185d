# SPDX-License-Identifier: Apache-2.0
"""perception_node over DDS: what it answers, what it tells of itself, and what it refuses."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from observer import wait_for

pytest.importorskip("rclpy", reason="rclpy is not installed")

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2, PointField
from station import Station, cloud, diagnostics, set_parameter, state
from std_msgs.msg import String
from street_scene import BOX, POLE, street
from tiny_model import CLASSES
from visualization_msgs.msg import MarkerArray

from foundry_core.records import OBJECT, PART
from foundry_ros import messages
from foundry_ros.processes import local_environment

LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def running(ros, tiny_model):
    parameters = {"model": str(tiny_model), "diagnostics_period": 0.2}
    with ros.start("perception_node", parameters, {"~/input": "/points"}) as process:
        yield Station(ros).connect()
        assert process.running(), "the node has died"
        assert process.stop() == 0


def test_box_and_pole_are_found_and_named(running, ros):
    parts = ros.collect(PointCloud2, "/perception_node/parts")
    markers = ros.collect(MarkerArray, "/perception_node/markers")
    wait_for(lambda: ros.node.count_publishers("/perception_node/parts"))
    latched = ros.collect(String, "/perception_node/labels", LATCHED)
    labels = json.loads(wait_for(lambda: latched)[0].data)
    assert labels["classes"] == {"-1": "unknown", "0": "box", "1": "pole"}

    points = street()
    points[5] = np.nan
    points[7] = [np.inf, 0, 0]
    message = cloud(points, 1_234_567_890_123)
    wait_for(lambda: ros.node.count_subscribers("/perception_node/parts"))
    answer = running.ask(message)
    assert answer.header == message.header
    objects = messages.read_records(answer, OBJECT, "objects")
    names = {}
    for row in objects:
        for name, (x, y) in {"box": BOX, "pole": POLE}.items():
            if np.hypot(row["x"] - x, row["y"] - y) < 0.3:
                names[name] = labels["classes"][str(row["class_id"])]
    assert names == {"box": "box", "pole": "pole"}

    part = messages.read_records(wait_for(lambda: parts)[0], PART, "parts")
    assert parts[0].header == message.header
    finite = points[np.isfinite(points).all(axis=1)]
    np.testing.assert_array_equal(np.stack([part[axis] for axis in "xyz"], axis=1), finite)  # same points, same order
    pole = part[(np.hypot(part["x"] - POLE[0], part["y"] - POLE[1]) < 0.2) & (part["z"] > -1.2)]
    assert (pole["object_id"] >= 0).mean() > 0.9
    high, low = pole[pole["z"] > 0.2], pole[pole["z"] < -1.0]
    assert labels["parts"][str(np.bincount(high["part_id"][high["part_id"] >= 0]).argmax())] == "top"
    assert labels["parts"][str(np.bincount(low["part_id"][low["part_id"] >= 0]).argmax())] == "bottom"
    assert (part["part_id"][part["object_id"] < 0] == -1).all()
    assert len(wait_for(lambda: markers)[0].markers) == 1 + 2 * len(objects)
    running.figure("nonfinite_points_dropped", 2)
    figures = diagnostics(running.diagnostics)
    assert float(figures["phase_total_ms.decode"]) > 0 and figures["model"] == "tiny"


def test_objects_keep_their_ids_and_a_clock_that_jumps_back_is_counted(running, ros):
    markers = ros.collect(MarkerArray, "/perception_node/markers")
    wait_for(lambda: ros.node.count_publishers("/perception_node/markers"))

    def tracks(number: int) -> dict[str, int]:
        answer = running.ask(cloud(street(number), 10**12 + number * 10**8))
        found = messages.read_records(answer, OBJECT, "objects")
        near = {"box": BOX, "pole": POLE}
        return {name: int(row["track_id"]) for row in found for name, (x, y) in near.items()
                if np.hypot(row["x"] - x, row["y"] - y) < 0.3}  # fmt: skip

    assert tracks(10) == {"box": -1, "pole": -1}
    first = tracks(11)
    assert first["box"] >= 0 and first["pole"] >= 0 and first["box"] != first["pole"]
    assert tracks(12) == tracks(13) == first
    captions = {text.text.split()[0] for text in markers[-1].markers if text.ns == "names"}
    assert captions >= {f"#{first['box']}", f"#{first['pole']}"}
    assert tracks(1) == {"box": -1, "pole": -1}
    running.figure("track_resets.clock", 1)
    again = tracks(2)
    assert min(again.values()) > max(first.values())
    assert float(diagnostics(running.diagnostics)["phase_total_ms.tracks"]) > 0


def malformed() -> dict[str, PointCloud2]:
    def broken(change) -> PointCloud2:
        message = cloud(street(), 5)
        change(message)
        return message

    def without_z(message):
        message.fields = [field for field in message.fields if field.name != "z"]

    def cut_short(message):
        message.data = message.data[:100]

    def no_fields(message):
        message.fields = []

    def zero_step(message):
        message.point_step = 0

    def overlong_field(message):
        message.fields[0].offset = 4000

    def unknown_type(message):
        message.fields[0].datatype = 77

    def vector_x(message):
        message.fields = [PointField(name="x", offset=0, datatype=7, count=3), *message.fields[1:]]

    def too_many(message):
        message.width = 2**31

    changes = (without_z, cut_short, no_fields, zero_step, overlong_field, unknown_type, vector_x, too_many)
    return {change.__name__: broken(change) for change in changes}


def test_malformed_messages_are_counted_and_survived(running):
    bad = malformed()
    for number, message in enumerate(bad.values(), 1):
        running.publisher.publish(message)
        running.figure("rejected", number)
    figures = diagnostics(running.diagnostics)
    reasons = {key: int(value) for key, value in figures.items() if key.startswith("rejected.")}
    assert sum(reasons.values()) == len(bad)
    assert set(reasons) == {"rejected.layout", "rejected.fields"}
    assert running.objects == []
    assert running.ask(cloud(street(), 99)).width >= 2
    # valid readings without any return are answered too
    assert running.ask(cloud(np.zeros((0, 3), np.float32), 100)).width == 0
    assert running.ask(cloud(np.full((50, 3), np.nan, np.float32), 101)).width == 0
    assert running.ask(cloud(np.ones((1, 3), np.float32), 102)).width == 0
    running.figure("processed", 4)


def test_nothing_is_received_when_nobody_listens(running, ros):
    assert ros.node.count_subscribers("/points") == 1
    running.ask(cloud(street(), 1))
    (subscription,) = [item for item in ros.node.subscriptions if item.topic_name == "/perception_node/objects"]
    ros.node.destroy_subscription(subscription)
    wait_for(lambda: ros.node.count_subscribers("/points") == 0, 10, "the node to stop listening")
    running.figure("listeners", 0)
    running.objects = ros.collect(PointCloud2, "/perception_node/objects")
    running.connect()
    assert running.ask(cloud(street(), 2)).width >= 2


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_process_holds_neither_linear_algebra_nor_the_code_of_the_compiler(running):
    running.ask(cloud(street(), 1))
    process = Path("/proc") / diagnostics(running.diagnostics)["process"].rpartition(":")[2]
    mappings = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", (process / "smaps").read_text())
    assert not [mapping for mapping in mappings if "/scipy/linalg/" in mapping]
    (code,) = (mapping for mapping in mappings if "libllvmlite" in mapping and " r-xp " in mapping)
    assert int(re.search(r"\nRss: +(\d+) kB", code)[1]) < 10_000  # of 80,000


def test_a_class_that_the_model_lacks_is_refused_and_the_node_goes_on(running, ros):
    refused = set_parameter(ros, "classes", "pole, mug")
    assert not refused.successful and "'mug' is none of the model's" in refused.reason
    assert set_parameter(ros, "classes", "pole").successful
    objects = messages.read_records(running.ask(cloud(street(), 1)), OBJECT, "objects")
    assert len(objects) and set(objects["class_id"]) <= {-1, CLASSES.index("pole")}


def test_diagnostics_do_not_wait_for_a_clock_that_stands_still(ros, tiny_model):
    told = ros.collect(DiagnosticArray, "/diagnostics")
    with ros.start("perception_node", {"model": str(tiny_model), "diagnostics_period": 0.2, "use_sim_time": True}):
        wait_for(lambda: len(told) >= 4, what="diagnostics")  # one comes with the activation


def test_whoever_begins_to_listen_to_diagnostics_hears_at_once(ros, tiny_model):
    with ros.start("perception_node", {"model": str(tiny_model), "diagnostics_period": 60.0}):
        wait_for(lambda: state(ros) == State.PRIMARY_STATE_ACTIVE, what="activation")
        told = ros.collect(DiagnosticArray, "/diagnostics")
        wait_for(lambda: told, 30.0, "diagnostics")


def test_labels_reach_a_late_joiner(running, ros):
    running.ask(cloud(street(), 1))
    late = ros.collect(String, "/perception_node/labels", LATCHED)
    assert json.loads(wait_for(lambda: late)[0].data)["parts"] == {"-1": "none", "0": "bottom", "1": "top"}


def run_to_end(domain: int, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "foundry_ros.perception_node", "--ros-args", "--disable-external-lib-logs"]
    return subprocess.run(
        [*command, *arguments], env=local_environment(domain), capture_output=True, text=True, timeout=60
    )


RELIABILITY = "qos_overrides./points.subscription.reliability"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("-p", "modle:=x"), "perception_node: modle: unknown parameter"),
        (("-p", "scene.nothing:=1"), "perception_node: scene.nothing: unknown parameter"),
        (("-p", "threads:=0"), "perception_node: threads: "),
        (("--params-file", "/nothing.yaml"), "arguments after --ros-args: failed to initialize rcl: Couldn't parse"),
        (("-p", f"{RELIABILITY}:=best_efort"), f"perception_node: {RELIABILITY}: must be reliable, best_effort, "),
        (("-p", "model:=no-such-model"), "no-such-model: neither a shipped model"),
        (("-p", "model:={tiny}", "-p", "budget:=7"), "budget: 7: tiny runs with 1, 2, 4 supertokens"),
    ],
)
def test_bad_parameters_end_the_node_with_one_line(ros, tiny_model, arguments, complaint):
    ended = run_to_end(ros.domain, *(argument.format(tiny=tiny_model) for argument in arguments))
    assert ended.returncode == 2
    assert complaint in ended.stderr and "Traceback" not in ended.stderr


def test_the_end_of_its_terminal_ends_the_node_as_a_signal_to_terminate_does(ros, tiny_model):
    with ros.start("perception_node", {"model": str(tiny_model), "diagnostics_period": 0.2}) as process:
        wait_for(lambda: state(ros) == State.PRIMARY_STATE_ACTIVE, what="activation")
        process.process.send_signal(signal.SIGHUP)
        assert process.process.wait(60) == 0


def test_nothing_of_torch_is_imported():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['sklearn'] = sys.modules['matplotlib'] = None;"
        "import foundry_ros.perception_node, foundry_ros.bag_replay, foundry_ros.cli.ros"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=local_environment(99))
