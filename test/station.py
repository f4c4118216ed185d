# SPDX-License-Identifier: Apache-2.0
"""A running perception node as a test sees it: clouds in, answers and figures out, its state and its parameters."""

from __future__ import annotations

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from observer import wait_for
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from foundry_ros import messages


def cloud(points: np.ndarray, stamp_ns: int, frame: str = "lidar") -> PointCloud2:
    packed = np.zeros(len(points), np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")]))
    packed["x"], packed["y"], packed["z"] = points.T
    return messages.records_message(Header(stamp=messages.to_time(stamp_ns), frame_id=frame), packed)


def diagnostics(collected: list) -> dict[str, str]:
    found = [messages.read_diagnostics(message, "perception_node: perception") for message in list(collected)]
    return next((values for values in reversed(found) if values), {})


class Station:
    """A running perception node with a publisher that it hears."""

    def __init__(self, ros, depth: int = 5) -> None:
        self.ros = ros
        self.objects = ros.collect(PointCloud2, "/perception_node/objects")
        self.diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
        self.publisher = ros.node.create_publisher(PointCloud2, "/points", depth)

    def connect(self) -> Station:
        """Wait until publisher and node have found each other, and we its answers."""
        sent, answers = self.publisher.get_subscription_count, "/perception_node/objects"
        heard = lambda: int(diagnostics(self.diagnostics).get("input_publishers", 0)) > 0  # noqa: E731
        wait_for(lambda: sent() and heard() and self.ros.node.count_publishers(answers), what="connection")
        return self

    def ask(self, message: PointCloud2) -> PointCloud2:
        """Publish and wait for the answer with the same stamp."""
        self.publisher.publish(message)
        stamp = message.header.stamp
        return wait_for(lambda: next((m for m in list(self.objects) if m.header.stamp == stamp), None), what="answer")

    def figure(self, key: str, value: int) -> None:
        wait_for(lambda: diagnostics(self.diagnostics).get(key) == str(value), what=f"{key} = {value}")


def state(ros) -> int:
    return ros.call(GetState, "/perception_node/get_state", GetState.Request(), again=2.0).current_state.id


def change(ros, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return ros.call(ChangeState, "/perception_node/change_state", request, 60.0).success


def _value(text: str | int | float) -> ParameterValue:
    if isinstance(text, str):
        return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=text)
    if isinstance(text, int):
        return ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=text)
    return ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=text)


def set_parameter(ros, name: str, content: str | int | float):
    request = SetParameters.Request(parameters=[Parameter(name=name, value=_value(content))])
    return ros.call(SetParameters, "/perception_node/set_parameters", request, again=2.0).results[0]
