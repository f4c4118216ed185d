# SPDX-License-Identifier: Apache-2.0
"""The node that answers a replay, as bag_replay sees it: its state, its diagnostics, and whether it is the only one."""

from __future__ import annotations

import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

from foundry_ros import messages

#: s that a node which is there, but does not answer yet, is waited for: it loads its model and, once, compiles
LOADING = 600.0
#: s that a second node of the name is looked out for, which may be discovered a little later than the first
SETTLING = 0.5
#: times that the diagnostics of the end are asked for, a second apart
QUESTIONS = 5
#: s within which it is, even if its first announcements were lost: Fast DDS repeats them every 3 s
ANNOUNCED = 3.5


class ReplayFailed(RuntimeError):
    """The replay cannot go on, through no fault of the input."""


class Answerer:
    """A perception node called ``name``; its callbacks run in the executor of ``player``.

    Attributes:
        change: is notified when ``diagnostics`` are new; guards them.
        diagnostics: key -> value, the newest.

    Args:
        clouds: the publisher that the node is to hear.
    """

    def __init__(self, player: Any, name: str, clouds: Any) -> None:
        self._player, self.name, self._clouds = player, name, clouds
        self.change = threading.Condition()
        self.diagnostics: dict[str, str] = {}
        self._processes: set[str] = set()
        self._connected = 0.0  # s, monotonic
        self._status_name = messages.status_name(player.resolve_topic_name(name), "perception")
        self._listen()
        self._get_state = player.create_client(GetState, f"{name}/get_state")

    def _listen(self) -> None:
        """Listen to /diagnostics; whoever begins to is told at once, however long the node's period is."""
        self._player.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=10))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        values = messages.read_diagnostics(message, self._status_name)
        if values is not None:
            with self.change:
                self._processes.add(values.get("process", ""))
                self.diagnostics = values
                self.change.notify_all()

    def wait_until_connected(self, timeout: float) -> dict[str, str]:
        """Wait until the node is active and both directions are matched; returns its diagnostics at that moment.

        Raises:
            ReplayFailed: it took longer than ``timeout`` (s), not counting up to ``LOADING`` s in which the node was
                there and loading; the line says what was missing.
        """
        deadline = time.monotonic() + timeout
        latest = deadline + LOADING
        state, missing = "not found", "the node became active too late"
        while time.monotonic() < deadline:
            if state != "active":
                begin = time.monotonic()
                state = self._state(deadline)
                if state == "not answering":
                    deadline = min(deadline + time.monotonic() - begin, latest)
            elif self._clouds.get_subscription_count() == 0:
                missing = f"nobody subscribes to '{self._clouds.topic_name}'; is its input remapped?"
                time.sleep(0.02)
            else:
                missing = f"no diagnostics of '{self.name}' that show it connected"
                with self.change:
                    if int(self.diagnostics.get("input_publishers", 0)) > 0 and self._matched():
                        self.change.wait_for(lambda: len(self._processes) > 1, SETTLING)
                        self.refuse_twins()
                        self._connected = time.monotonic()
                        return dict(self.diagnostics)
                    self.change.wait(0.1)
        if state != "active":
            missing = f"'{self.name}' is {state}"
        raise ReplayFailed(f"bag_replay: no connection after {timeout:.0f} s: {missing}")

    def diagnostics_after(self, processed: int) -> dict[str, str] | None:
        """Its diagnostics once it has processed so many frames; asked for, since its period may be a minute.

        Returns:
            None where they do not come.
        """
        for _ in range(QUESTIONS):
            self._listen()
            with self.change:
                if self.change.wait_for(lambda: int(self.diagnostics.get("processed", 0)) >= processed, 1.0):
                    return dict(self.diagnostics)
        return None

    def refuse_late_twins(self) -> None:
        """:meth:`refuse_twins`, when a second node must have been discovered, after a short replay too."""
        with self.change:
            left = self._connected + ANNOUNCED - time.monotonic()
            self.change.wait_for(lambda: len(self._processes) > 1, max(0.0, left))
        self.refuse_twins()

    def refuse_twins(self) -> None:
        """Two nodes of one name would answer every frame twice, and mix their figures.

        Raises:
            ReplayFailed: there are two.
        """
        publishers = self._player.count_publishers(f"{self.name}/objects")
        if len(self._processes) > 1 or publishers > 1:
            known = ", ".join(sorted(self._processes))
            count = max(len(self._processes), publishers)
            raise ReplayFailed(
                f"bag_replay: {count} nodes are called '{self.name}' in this ROS domain (processes seen: "
                f"{known}); stop all but one, or take another ROS_DOMAIN_ID"
            )

    def _matched(self) -> bool:
        clouds = [subscription for subscription in self._player.subscriptions if subscription.msg_type is PointCloud2]
        return all(self._player.count_publishers(subscription.topic_name) for subscription in clouds)

    def _state(self, deadline: float) -> str:
        if not self._get_state.wait_for_service(min(1.0, max(0.0, deadline - time.monotonic()))):
            return "not found"
        answered = threading.Event()
        future = self._get_state.call_async(GetState.Request())
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(2.0):  # a request sent while the service was being discovered may be lost
            self._get_state.remove_pending_request(future)
            return "not answering"
        current = future.result().current_state
        if current.id != State.PRIMARY_STATE_ACTIVE:
            time.sleep(0.05)
        return current.label
