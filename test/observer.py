# SPDX-License-Identifier: Apache-2.0
"""The tests' own ROS node, and waiting with a bound."""

from __future__ import annotations

import threading
import time
from pathlib import Path

#: s; the machine may be busy
PATIENCE = 90.0


class Ros:
    """A test's own node, spun in a thread, and what it needs to talk to others."""

    def __init__(self, domain: int) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.domain = domain
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context, domain_id=domain)
        self.node = rclpy.create_node("observer", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        from rclpy._rclpy_pybind11 import InvalidHandle
        from rclpy.executors import ExternalShutdownException

        while True:
            try:
                self._executor.spin()
                return
            except InvalidHandle:  # what a test destroyed just then
                continue
            except ExternalShutdownException:
                return

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(5)
        self.node.destroy_node()
        self.context.try_shutdown()

    def collect(self, message_type, topic: str, qos=10) -> list:
        """A list that fills with the messages of a topic."""
        received: list = []
        self.node.create_subscription(message_type, topic, received.append, qos)
        return received

    def call(self, service_type, name: str, request, timeout: float = 20.0, again: float | None = None):
        """The answer of a service.

        ``again``: seconds after which the request is sent once more, for one that may be answered twice. A request is
        lost that goes out while both sides discover each other, or to a node of that name which has just ended.
        """
        client = self.node.create_client(service_type, name)
        try:
            assert client.wait_for_service(timeout), f"no service {name}"
            deadline = time.monotonic() + timeout
            while (left := deadline - time.monotonic()) > 0:
                done = threading.Event()
                future = client.call_async(request)
                future.add_done_callback(lambda _, done=done: done.set())
                if done.wait(min(left, again or left)):
                    return future.result()
                client.remove_pending_request(future)
            raise AssertionError(f"no answer from {name}")
        finally:
            self.node.destroy_client(client)

    def start(self, node: str, parameters: dict, remappings: dict | None = None):
        from foundry_ros.processes import NodeProcess, local_environment

        return NodeProcess(node, parameters, local_environment(self.domain), remappings)


def stopped(pid: int) -> bool:
    """Whether a process is gone, or only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition, timeout: float = PATIENCE, what: str = "condition"):
    """Poll until ``condition()`` is true and return its value."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"timed out: {what}")
