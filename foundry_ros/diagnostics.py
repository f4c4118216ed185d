# SPDX-License-Identifier: Apache-2.0
"""A node's status on /diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.event_handler import PublisherEventCallbacks

from foundry_ros import messages
from foundry_ros.node import steady_timer

#: s from the moment at which a listener is found until it is told: it must have found the node, too
WELCOME = 0.1


class Status(NamedTuple):
    """What a node says of itself; ``level`` is one of DiagnosticStatus."""

    level: bytes
    text: str
    hardware_id: str
    values: Mapping[str, Any]


class Diagnostics:
    """Publishes a node's status when it is told to, and soon after somebody begins to listen.

    Args:
        subject: of the status, after the node's name.
        status: gives it as it is now, or None while there is nothing to tell.
    """

    def __init__(self, node: Any, subject: str, status: Callable[[], Status | None]) -> None:
        self._node, self._subject, self._status = node, subject, status
        events = PublisherEventCallbacks(matched=self._on_matched)
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10, event_callbacks=events)
        self._timer: Any = None
        self._welcome = steady_timer(node, WELCOME, self._greet)
        self._welcome.cancel()

    def every(self, period: float | None) -> None:
        """Publish at this period (s); None: no longer."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        self._timer = None if period is None else steady_timer(self._node, period, self.publish)

    def publish(self) -> None:
        """Publish the status of this moment."""
        status = self._status() if self._node.context.ok() else None
        if status is None:
            return
        name = messages.status_name(self._node.get_fully_qualified_name(), self._subject)
        now = self._node.get_clock().now().to_msg()
        level, text, hardware_id, values = status
        self._publisher.publish(messages.diagnostics_message(now, name, hardware_id, level, text, values))

    def _on_matched(self, change: Any) -> None:
        if change.current_count_change > 0:
            self._welcome.reset()

    def _greet(self) -> None:
        self._welcome.cancel()
        self.publish()
