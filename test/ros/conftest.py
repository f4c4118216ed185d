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
