# SPDX-License-Identifier: Apache-2.0
"""`foundry up` from the outside: it runs the node until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from observer import stopped
from street_bag import ROOT, children, command, environment, foundry

PARAMETERS = """
/**:
  ros__parameters:
    use_sim_time: true
perception_node:
  ros__parameters:
    qos_overrides./street.subscription.reliability: reliable
"""


def test_up_runs_until_ctrl_c_with_the_parameters_that_ros_gives_to_every_node(model, tmp_path):
    import rclpy
    from lifecycle_msgs.srv import GetState
    from rclpy.qos import QoSReliabilityPolicy
    from sensor_msgs.msg import PointCloud2

    from foundry_ros.processes import Domain

    params = tmp_path / "params.yaml"
    params.write_text(PARAMETERS)
    with Domain() as domain:
        env = {**environment(), "ROS_DOMAIN_ID": str(domain.number)}
        up = command("up", "--model", model, "--input", "/street", "--params", params)
        process = subprocess.Popen(up, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        nodes = children(process.pid, 1)
        context = rclpy.Context()
        rclpy.init(args=[], context=context, domain_id=domain.number)
        node = rclpy.create_node("observer", context=context)
        try:
            node.create_subscription(PointCloud2, "/perception_node/objects", print, 1)  # then the node listens too
            deadline = time.monotonic() + 60
            while not node.count_subscribers("/street") and time.monotonic() < deadline:
                time.sleep(0.1)
            (subscription,) = node.get_subscriptions_info_by_topic("/street")
            assert subscription.qos_profile.reliability == QoSReliabilityPolicy.RELIABLE
            assert node.count_subscribers("/clock") == 1
            assert node.create_client(GetState, "/perception_node/get_state").wait_for_service(10)
        finally:
            node.destroy_node()
            context.try_shutdown()
            for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):  # an impatient user
                process.send_signal(number)
                time.sleep(0.1)
            try:
                _, text = process.communicate(timeout=20)
            finally:
                for pid in (*nodes, process.pid):  # leave nothing behind that would answer another test
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        assert process.returncode == 0, text
        assert "Traceback" not in text
        assert all(map(stopped, nodes))


def test_up_refuses_what_it_cannot_use(tmp_path):
    typo = tmp_path / "typo.yaml"
    typo.write_text("perception_node:\n  ros__parameters:\n    scene:\n      nothing: 1\n")
    ended = foundry("up", "--params", typo)
    assert ended.returncode == 2 and "scene.nothing: unknown key" in ended.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("--input", "bad topic!"), ("--input", ""), ("--input", "a//b"), ("--budget", "3")]
)
def test_an_option_that_no_node_could_use_is_one_line(model, option, value):
    ended = foundry("up", "--model", model, option, value)
    assert ended.returncode == 2 and ended.stderr.startswith(f"foundry: {option} "), ended.stderr
    assert ended.stderr.count("\n") == 1 and value in ended.stderr
    if option == "--input":
        assert "a name has letters, digits, _ and single slashes" in ended.stderr
