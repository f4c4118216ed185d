# SPDX-License-Identifier: Apache-2.0
"""bag_replay as a node, without anyone who answers."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy
from std_msgs.msg import String

from foundry_core.errors import InputError
from foundry_ros import answerer
from foundry_ros.bag_replay import BagReplay
from foundry_ros.cli.ros import _looked_at, _losses
from foundry_ros.parameters import write_parameters
from foundry_ros.processes import local_environment
from foundry_ros.schedule import Companions


@contextlib.contextmanager
def player(ros, **parameters):
    """The node with these parameters, in the test's process."""
    values = {"bag": "recording", **parameters}
    node = BagReplay(
        context=ros.context, parameter_overrides=[Parameter(name, value=value) for name, value in values.items()]
    )
    try:
        yield node
    finally:
        node.destroy_node()


def test_the_qos_of_clouds_answers_and_what_is_played_beside_them_can_be_overridden(ros, tmp_path):
    publishers, subscriptions = ("/lidar", "/imu"), ("objects", "parts", "labels")
    topics = [f"{topic}.publisher" for topic in publishers]
    topics += [f"/perception_node/{name}.subscription" for name in subscriptions]
    changes = {f"qos_overrides.{topic}.reliability": "best_effort" for topic in topics}
    with player(ros, output="/lidar", results=str(tmp_path / "r.npz"), **changes) as node:
        Companions(node, {"/imu": String, "/map": String}, clock=True, latched=["/map"])
        profiles = {item.topic_name: item.qos_profile for item in (*node.publishers, *node.subscriptions)}
    found = {name: profile.reliability for name, profile in profiles.items()}
    kept = {name for name, profile in profiles.items() if profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL}
    assert kept - {"/perception_node/labels", "/rosout"} == {"/map"}
    best_effort = {topic for topic, value in found.items() if value == QoSReliabilityPolicy.BEST_EFFORT}
    assert best_effort == {*publishers, *(f"/perception_node/{name}" for name in subscriptions)}
    assert {"/diagnostics", "/clock"} < found.keys()


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"report": "/dev/null/r.json"}, "/dev/null/r.json: cannot be written"),
        ({"plot": "/dev/null/p.png"}, "/dev/null/p.png: cannot be written"),
        ({"output": "a b"}, "bag_replay: output: .*'a b': a name has letters"),
        ({"node": "a b"}, "bag_replay: node: .*'a b': a name has letters"),
        ({"node": "/x/"}, "bag_replay: node: .*'/x/': a name has letters"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_played(ros, parameters, complaint):
    with pytest.raises(InputError, match=complaint) as caught, player(ros, **parameters):
        pass
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_exit_code_1(ros):
    code = """
import sys
from foundry_ros import bag_replay
def full(node):
    raise OSError(28, "No space left on device", "/data/r.json")
bag_replay.replay = full
sys.exit(bag_replay.main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, "--ros-args", "-p", "bag:=recording"],
        env=local_environment(ros.domain), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.strip() == "error: [Errno 28] No space left on device: '/data/r.json'"


def test_clouds_and_answers_from_elsewhere_make_no_loss_negative(ros):
    """Another publisher's 20 clouds were received and answered as well, and one answer was lost."""
    with player(ros) as node:
        for number in range(10):
            node.ledger.sent(number, float(number))
        for stamp in (*range(9), *range(100, 120)):
            node.ledger.answered(stamp, 20.0, 1)
        node.answerer.diagnostics = {"received": "30", "processed": "30"}
        counts = node.report(before={})["counts"]
    found = {name: counts[name] for name in ("lost_on_the_way", "answers_lost", "unexpected")}
    assert found == {"lost_on_the_way": 0, "answers_lost": 1, "unexpected": 20}


def test_strings_are_strings_to_the_nodes_own_reader(tmp_path, domain):
    texts = {"topic": "y", "output": "1e5", "report": "nan", "plot": "0x10", "results": "~", "also": "null"}
    context = rclpy.Context()
    path = write_parameters("bag_replay", texts, tmp_path)
    rclpy.init(args=["--ros-args", "--params-file", str(path)], context=context, domain_id=domain)
    node = Node("bag_replay", context=context, automatically_declare_parameters_from_overrides=True)
    try:
        assert {name: node.get_parameter(name).value for name in texts} == texts
    finally:
        node.destroy_node()
        context.try_shutdown()


def test_a_node_that_does_not_tell_its_counts_leaves_them_unknown(ros, monkeypatch):
    monkeypatch.setattr(answerer, "QUESTIONS", 1)
    with player(ros) as node:
        node.ledger.sent(1, 0.0)
        node.ledger.answered(1, 1.0, 3)
        report = node.report(before={"processed": "7", "model": "edge"})
    counts = report["counts"]
    assert (report["frames_processed"], counts["sent"], counts["unexpected"]) == (1, 1, 0)
    assert {counts[name] for name in ("received", "processed", "lost_on_the_way", "answers_lost")} == {None}
    assert report["model"] == "edge" and report["phases_ms"] == {}
    assert _losses(counts).startswith("not known") and _looked_at(counts) == "not known"
