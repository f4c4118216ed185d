# SPDX-License-Identifier: Apache-2.0
"""What becomes of parameters that are set while a node runs; the nodes are in this process, and nobody spins them."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from geometry_msgs.msg import Point, PointStamped
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from station import cloud
from std_msgs.msg import Header
from street_scene import street

from foundry_ros import declared, parameters
from foundry_ros.perception_node import PerceptionNode


def change(node: Node, **values) -> str:
    """Set parameters together, None unsets one; the reason where they were refused. ``__`` stands for a dot."""
    changes = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
    result = node.set_parameters_atomically(changes)
    return "" if result.successful else result.reason or "refused"


def frame(node: PerceptionNode, number: int) -> None:
    """A cloud, as the worker answers it."""
    processed = node._statistics.values()[0]["processed"]
    node._process((serialize_message(cloud(street(number), number * 10**8)), time.perf_counter()))
    figures = node._statistics.values()[0]
    assert figures["rejected"] == 0 and figures["processed"] == processed + 1


@pytest.mark.parametrize(
    ("schema", "name", "value"),
    [
        (parameters.PerceptionParameters, "deadline_ms", 80.0),
        (parameters.PerceptionParameters, "budget", 2),
        (parameters.PerceptionParameters, "unknown_threshold", 0.5),
        (parameters.DistillParameters, "minutes", 2.0),
        (parameters.ReplayParameters, "duration", 2.0),
    ],
)
def test_an_optional_parameter_that_is_unset_can_be_set_again(context, schema, name, value):
    node = Node("unset", context=context, automatically_declare_parameters_from_overrides=True)
    declared.declare(node, schema)
    described = node.describe_parameter(name)
    for _ in range(2):
        assert change(node, **{name: value}) == ""
        assert getattr(declared.current(node, schema), name) == value
        assert change(node, **{name: None}) == ""
        assert declared.current(node, schema) == schema()
    assert node.has_parameter(name) and node.describe_parameter(name) == described
    node.destroy_node()


def test_a_perception_node_goes_on_when_its_parameters_are_unset(make):
    node = make(deadline_ms=50.0, budget=2)
    assert change(node, deadline_ms=None, budget=None) == ""
    node.trigger_configure()
    assert node.failure == "" and (node.settings.deadline_ms, node.settings.budget) == (None, None)
    assert change(node, deadline_ms=80.0) == change(node, deadline_ms=None) == ""
    assert "max_batch" in change(node, max_batch=None)  # no default that is "not set"
    assert node.settings.deadline_ms is None and node.settings.max_batch == 4


def test_an_override_of_qos_that_ros_does_not_know_is_refused_at_run_time_too(make):
    name = "qos_overrides./perception_node/input.subscription.reliability"
    node = make(**{name: "reliable"})
    refused = node.set_parameters([Parameter(name, value="best_efort")])[0]
    assert not refused.successful and f"{name}: must be reliable, best_effort" in refused.reason
    assert node.set_parameters([Parameter(name, value="best_effort")])[0].successful


def test_what_the_worker_needs_waits_for_the_next_frame_and_for_no_later_one(make):
    node = make()
    node.trigger_configure()
    node.trigger_activate()
    assert change(node, classes="box", max_batch=2) == ""
    assert node._perceiver.config.max_batch == 4  # a frame may be at work
    frame(node, 1)
    assert (node._perceiver.config.classes, node._perceiver.config.max_batch) == ("box", 2)
    assert change(node, classes="pole") == ""
    node.trigger_deactivate()
    node.trigger_cleanup()  # no frame has taken pole over
    assert change(node, classes="", threads=2) == ""
    node.trigger_configure()
    node.trigger_activate()
    frame(node, 2)
    assert node._perceiver.config == node.settings == declared.current(node, parameters.PerceptionParameters)
    assert (node.settings.classes, node.settings.threads) == ("", 2)


def test_the_period_of_diagnostics_changes_at_once_and_stays(make):
    node = make(diagnostics_period=7.0)
    period = lambda: node._diagnostics._timer.timer_period_ns * 1e-9  # noqa: E731
    node.trigger_configure()
    node.trigger_activate()
    assert period() == 7.0 and change(node, diagnostics_period=5.0) == "" and period() == 5.0
    node.trigger_deactivate()
    node.trigger_activate()
    assert period() == 5.0


def test_limits_of_health_change_while_no_cloud_comes(make, monkeypatch):
    node = make()
    node.trigger_configure()
    monkeypatch.setattr(node._outputs, "listeners", lambda: 1)
    node.trigger_activate()
    assert node._status().level == b"\0" and change(node, health__stale_s=1e-6) == ""
    assert node._status().level == b"\1" and change(node, health__lost_s=1e-6) == ""
    assert node._status().level == b"\2"


@pytest.mark.parametrize(
    ("label", "complaint"),
    [
        ("pole", "label 'pole': tiny has this class; give a new name"),
        ("other", "label 'other': tiny has this class"),
        ("unknown", "label 'unknown': tiny has this class"),
        ("fire\nhydrant", "printable"),
        ("  ", "printable"),
        ("x" * 65, "teach_label: "),
    ],
)
def test_a_label_that_cannot_be_taught_is_refused_when_it_is_set(make, label, complaint):
    node = make()
    node.trigger_configure()
    assert complaint in change(node, teach_label=label) and node.settings.teach_label == ""
    assert change(node, teach_label="hydrant") == change(node, teach_label="") == ""


def test_a_label_that_cannot_be_taught_fails_the_configuration_and_can_be_corrected(make):
    node = make(teach_label="pole")
    node.trigger_configure()
    assert "label 'pole': tiny has this class" in node.failure
    assert change(node, teach_label="hydrant", threads=2) == ""  # nothing is loaded
    node.failure = ""
    node.trigger_configure()
    assert node.failure == "" and node._teaching is not None


def test_every_reason_for_refusing_a_click_is_told_and_told_once(make, monkeypatch):
    node = make()
    node.trigger_configure()
    node.trigger_activate()
    told = []
    monkeypatch.setattr(node.get_logger(), "warning", told.append)

    def click(x: float = 1.0, frame: str = "lidar") -> None:
        header, point = Header(frame_id=frame), Point(x=x, y=0.0, z=0.0)
        node._teaching._on_click(PointStamped(header=header, point=point))

    click()
    assert change(node, teach_label="hydrant") == ""
    click()
    frame(node, 1)
    for x in (90.0, 91.0):
        click(frame="map")
        click(x)
    reasons = ("teach_label", "no cloud", "in frame 'map'", "no object within")
    assert len(told) == len(reasons) and all(reason in text for reason, text in zip(reasons, told, strict=True))
    assert node._teaching.figures() == {"clicks": 6, "clicks_refused": 6}
