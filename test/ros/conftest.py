# SPDX-License-Identifier: Apache-2.0
"""Real nodes over real DDS, each in a process of its own, in a domain that nobody else uses."""

from __future__ import annotations

import os

import pytest

from foundry_core.card import share_directory


@pytest.fixture(scope="session")
def domain():
    from foundry_ros.processes import Domain

    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(share_directory() / "config" / "fastdds.xml"))
    with Domain() as reserved:
        yield reserved.number


@pytest.fixture
def ros(domain):
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    from observer import Ros

    observer = Ros(domain)
    yield observer
    observer.close()


@pytest.fixture
def context(domain):
    """Of nodes in this process."""
    rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=domain)
    yield context
    context.try_shutdown()


@pytest.fixture
def make(context, tiny_model):
    """Makes perception nodes with these parameters, in this process; nobody spins them."""
    from rclpy.parameter import Parameter

    from foundry_ros.perception_node import PerceptionNode

    made = []

    def node(**values):
        overrides = [Parameter(name, value=value) for name, value in {"model": str(tiny_model), **values}.items()]
        made.append(PerceptionNode(context=context, parameter_overrides=overrides))
        return made[-1]

    yield node
    for item in made:
        item.close()
