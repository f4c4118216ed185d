# SPDX-License-Identifier: Apache-2.0
"""What the nodes that run until they are stopped share: how they take sensor data, how often they warn, and main."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy

from foundry_core.errors import InputError
from foundry_ros import processes

#: s between warnings of one kind
WARNING_PERIOD = 5.0

#: best effort, keep last 1: matches every publisher, and a late cloud is worth nothing
SENSOR_QOS = QoSProfile(
    history=QoSHistoryPolicy.KEEP_LAST, depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT
)  # fmt: skip


def run(make: Callable[[], Any], arguments: list[str] | None, prepare: Callable[[Any], None] | None = None) -> int:
    """Make a node and spin it until SIGINT, then close it.

    Args:
        make: gives the node, which has a method ``close``.
        arguments: of the command line; those of the process when None.
        prepare: is called with the node before it spins.

    Returns:
        the exit code: 0, or 2 when ``make`` or ``prepare`` raised an InputError, which is printed in one line.
    """
    processes.follow_parent()
    rclpy.init(args=sys.argv if arguments is None else arguments)
    node = None
    try:
        node = make()
        if prepare is not None:
            prepare(node)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return 0
