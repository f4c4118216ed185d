# SPDX-License-Identifier: Apache-2.0
"""What becomes of parameters that are set while a node runs; the nodes are in this process, and nobody spins them."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter

from foundry_ros import declared, parameters
from foundry_ros.perception_node import PerceptionNode


@pytest.fixture
def context(domain):
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=domain)
    yield context
    context.try_shutdown()


@pytest.fixture
def make(context, tiny_model):
    """Makes perception nodes with these parameters."""
    made = []

    def node(**values) -> PerceptionNode:
        overrides = [Parameter(name, value=value) for name, value in {"model": str(tiny_model), **values}.items()]
        made.append(PerceptionNode(context=context, parameter_overrides=overrides))
        return made[-1]

    yield node
    for item in made:
        item.close()


def change(node: Node, **values) -> str:
    """Set parameters together, None unsets one; the reason where they were refused. ``__`` stands for a dot."""
    changes = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
    result = node.set_parameters_atomically(changes)
    return "" if result.successful else result.reason or "refused"


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
