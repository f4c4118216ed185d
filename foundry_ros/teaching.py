# SPDX-License-Identifier: Apache-2.0
"""Clicks and services with which perception_node learns classes; what they do is foundry_core's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import PointStamped
from std_srvs.srv import Trigger

from foundry_core.errors import InputError
from foundry_core.files import remove_torn
from foundry_core.runtime.perceiver import Perceiver
from foundry_core.runtime.pipeline import Pipeline, Refused
from foundry_core.runtime.teach import TaughtClasses, ordinary_objects
from foundry_ros.node import Warnings

CLICKS = "/clicked_point"


def open_taught(perceiver: Perceiver, teach_file: str) -> TaughtClasses:
    """The classes of the file that the parameter names; nothing yet where there is no file.

    One node writes there: what an earlier one left when it was killed while it wrote is removed.
    """
    if teach_file:
        path = Path(os.path.realpath(teach_file))
        remove_torn(path.parent, path.name)
    if teach_file and Path(teach_file).exists():
        return TaughtClasses.load(teach_file, perceiver.card)
    return TaughtClasses(perceiver.card)


class _Closed(Exception):
    """The node is cleaned up: nobody needs to know what ordinary objects look like."""


class Teaching:
    """Subscription and services of a configured node.

    What ordinary objects look like is computed in a thread of its own when the first exemplar comes; until then taught
    classes are kept, but not recognised. The thread ends with :meth:`close`.

    Args:
        node: its ``settings`` are asked whenever they are needed.
        changed: called, in the node's executor, after every change of the taught classes.
    """

    def __init__(self, node: Any, pipeline: Pipeline, changed: Callable[[], None]) -> None:
        self._node, self._pipeline, self._changed = node, pipeline, changed
        self._lock = threading.Lock()
        self._preparing: threading.Thread | None = None
        self._closing = threading.Event()
        self._warnings = Warnings(node)
        self._counts = {"clicks": 0, "clicks_refused": 0}
        self._subscription = node.create_subscription(PointStamped, CLICKS, self._on_click, 10)
        self._services = [
            node.create_service(Trigger, "~/teach/save", self._on_save),
            node.create_service(Trigger, "~/teach/forget", self._on_forget),
        ]
        if len(pipeline.taught):
            self._prepare()

    def figures(self) -> dict[str, int]:
        """Diagnostic keys and values."""
        return dict(self._counts)

    def close(self) -> None:
        """Take the subscription and the services away, and wait for the thread, which ends within a second."""
        self._closing.set()
        if self._preparing is not None:
            self._preparing.join()
        self._node.destroy_subscription(self._subscription)
        for service in self._services:
            self._node.destroy_service(service)

    def _on_click(self, message: PointStamped) -> None:
        self._counts["clicks"] += 1
        point = np.array([message.point.x, message.point.y, message.point.z])
        try:
            label = self._node.settings.teach_label
            if not label:
                raise InputError("set the parameter teach_label to the name of the class first")
            with self._lock:
                said = self._pipeline.teach(label, point, message.header.frame_id, self._node.settings.teach_tolerance)
        except InputError as error:
            self._counts["clicks_refused"] += 1
            reason = error.reason if isinstance(error, Refused) else "label"
            self._warnings.warn(reason, f"click refused: {error}")
            return
        self._node.get_logger().info(said)
        self._prepare()
        self._changed()

    def _prepare(self) -> None:
        at_work = self._preparing is not None and self._preparing.is_alive()
        if not self._pipeline.taught.ready and not at_work:
            self._preparing = threading.Thread(target=self._learn_ordinary, name="ordinary objects", daemon=True)
            self._preparing.start()

    def _learn_ordinary(self) -> None:
        try:
            ordinary = ordinary_objects(self._pipeline.perceiver, between=self._go_on)
            with self._lock:
                self._pipeline.taught.set_ordinary(ordinary)
        except _Closed:
            return
        except Exception as error:  # the thread has nobody to raise to
            if self._node.context.ok():
                self._node.get_logger().error(f"taught classes are not recognised: {error}")
            return
        if self._node.context.ok():
            self._node.get_logger().info("taught classes are recognised from now on")

    def _go_on(self) -> None:
        if self._closing.is_set():
            raise _Closed

    def _on_save(self, request: Any, response: Any) -> Any:
        path = self._node.settings.teach_file
        try:
            if not path:
                raise InputError("teach_file: set this parameter to the file to write, at start")
            with self._lock:
                self._pipeline.taught.save(path)
            response.success, response.message = True, f"wrote {path}, {len(self._pipeline.taught)} exemplars"
        except InputError as error:
            response.success, response.message = False, str(error)
        except OSError as error:
            reason = f"cannot be written ({error.strerror}); make room or give another teach file"
            response.success, response.message = False, f"{path}: {reason}"
        return response

    def _on_forget(self, request: Any, response: Any) -> Any:
        try:
            with self._lock:
                response.message = self._pipeline.taught.forget(self._node.settings.teach_label)
            response.success = True
            self._changed()
        except InputError as error:
            response.success, response.message = False, str(error)
        return response
