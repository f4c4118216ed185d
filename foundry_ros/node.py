# SPDX-License-Identifier: Apache-2.0
"""What the nodes that run until they are stopped share: how they take sensor data, how often they warn, and main."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions, install_signal_handlers
from rclpy.timer import Timer

from foundry_core.errors import InputError
from foundry_ros import processes, signals

RCLError, RMWError = rclpy_implementation.RCLError, rclpy_implementation.RMWError

#: s between warnings of one kind
WARNING_PERIOD = 5.0

#: best effort, keep last 1: matches every publisher, and a late cloud is worth nothing
SENSOR_QOS = QoSProfile(
    history=QoSHistoryPolicy.KEEP_LAST, depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT
)  # fmt: skip


def overridable() -> QoSOverridingOptions:
    """Parameters ``qos_overrides.<topic>.<publisher|subscription>.{history,depth,reliability}`` decide the QoS.

    They are written into the profile that the topic is made with: it must be that topic's own.
    """
    return QoSOverridingOptions.with_default_policies()


class Warnings:
    """A node's warnings: of each reason at most one in ``WARNING_PERIOD``; one thread warns."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._last: dict[str, float] = {}  # s, monotonic

    def warn(self, reason: str, text: str) -> None:
        """Log the text, unless this reason had its warning a moment ago."""
        now = time.monotonic()
        if now - self._last.get(reason, -WARNING_PERIOD) >= WARNING_PERIOD:
            self._last[reason] = now
            self._node.get_logger().warning(text)


def steady_timer(node: Any, period: float, callback: Callable[[], None]) -> Timer:
    """A timer (s) of the machine's own time: a simulated clock that stands still must not hide a node's state."""
    return node.create_timer(period, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))


def initialise(arguments: list[str] | None) -> None:
    """Start rclpy without handlers of signals; ``arguments`` of the command line, those of the process when None.

    Raises:
        InputError: what follows --ros-args cannot be used; a parameter file that is missing or none, say.
    """
    try:
        rclpy.init(args=sys.argv if arguments is None else arguments, signal_handler_options=SignalHandlerOptions.NO)
    except RCLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"arguments after --ros-args: {reason}; correct them") from None


def run(make: Callable[[], Any], arguments: list[str] | None, prepare: Callable[[Any], None] | None = None) -> int:
    """Make a node and spin it until SIGINT, then close it.

    Args:
        make: gives the node, which has a method ``close``.
        arguments: of the command line; those of the process when None.
        prepare: is called with the node before it spins.

    Returns:
        the exit code: 0, or 2 when ``make`` or ``prepare`` raised an InputError, which is printed in one line.
    """
    node = None
    try:
        with signals.one_interrupt():  # rclpy's own handlers interrupt nothing but a spin, and loading takes long
            processes.follow_parent()
            initialise(arguments)
            node = make()
            if prepare is not None:
                prepare(node)
            executor = SingleThreadedExecutor()
            executor.add_node(node)
        # rclpy's handlers wake the executors that are there already: one made after a signal would wait for ever
        install_signal_handlers(SignalHandlerOptions.ALL)
        signals.hangup_terminates()
        _spin(executor, node)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        signals.ignore_signals()
        if node is not None:
            node.close()
        rclpy.try_shutdown()
        signals.ignore_signals()  # rclpy has put back the handlers that it found
    return 0


def _spin(executor: SingleThreadedExecutor, node: Any) -> None:
    """Spin; what the middleware cannot deserialise is refused, and does not end the node."""
    refused = 0
    while True:
        try:
            executor.spin()
            return
        except (RCLError, RMWError) as error:
            if not node.context.ok():
                return
            refused += 1
            reason = str(error).splitlines()[0]
            node.get_logger().warning(
                f"message or request refused by the middleware, {refused} so far: {reason}",
                throttle_duration_sec=WARNING_PERIOD,
            )


class ManagedNode(LifecycleNode):
    """A lifecycle node that outlives a transition which its present state does not have; rclpy would end it.

    Attributes:
        failure: why its last transition that failed did, see :func:`reported`.
    """

    failure = ""

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:
        """Answer such a request with success = False."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)
        except RCLError as error:
            self.get_logger().error(f"transition {request.transition.id} refused: {str(error).splitlines()[0]}")
            response.success = False
            return response


def autostart(node: ManagedNode) -> None:
    """Configure and activate a node that has the parameter ``autostart`` set.

    Raises:
        InputError: its ``failure``.
    """
    if node.get_parameter("autostart").value:
        for transition in (node.trigger_configure, node.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                raise InputError(node.failure)


Transition = Callable[[Any, Any], TransitionCallbackReturn]


def reported(transition: Transition) -> Transition:
    """Log what a transition raises (rclpy would swallow it): bad input fails the transition, the rest is an error."""

    @functools.wraps(transition)
    def run(self: ManagedNode, state: Any) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except InputError as error:
            self.failure, result = str(error), TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.failure = f"{transition.__name__}: {error.__class__.__name__}: {error}"
            result = TransitionCallbackReturn.ERROR
        self.get_logger().error(self.failure)
        return result

    return run
