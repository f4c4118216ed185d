# SPDX-License-Identifier: Apache-2.0
"""What perception_node publishes: its lifecycle publishers, and who listens to them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header, String
from visualization_msgs.msg import MarkerArray

from foundry_core import records
from foundry_ros import detections, messages
from foundry_ros.node import overridable

#: reliable, keep last: matches every subscriber
OUTPUT_QOS = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
LATCHED_QOS = QoSProfile(
    history=QoSHistoryPolicy.KEEP_LAST, depth=1, reliability=QoSReliabilityPolicy.RELIABLE,
    durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
)  # fmt: skip


class Outputs:
    """The publishers of a configured node.

    Args:
        node: a lifecycle node.
        changed: is called in the node's executor whenever somebody begins or ends to listen to a frame's outputs.
    """

    def __init__(self, node: Any, changed: Callable[[], None]) -> None:
        self._node = node
        events = PublisherEventCallbacks(matched=lambda _: changed())
        self._all: list[Any] = []
        self._objects = self._make(PointCloud2, "~/objects", event_callbacks=events)
        self._parts = self._make(PointCloud2, "~/parts", event_callbacks=events)
        self._markers = self._make(MarkerArray, "~/markers", event_callbacks=events)
        self._detections = self._label_info = None
        if detections.available():
            self._detections = self._make(detections.Detection3DArray, "~/detections", event_callbacks=events)
        self._of_a_frame = list(self._all)
        self._labels = self._make(String, "~/labels", LATCHED_QOS)
        if detections.available():
            self._label_info = self._make(detections.LabelInfo, "~/label_info", LATCHED_QOS)

    def _make(self, kind: Any, topic: str, qos: QoSProfile = OUTPUT_QOS, **options: Any) -> Any:
        publisher = self._node.create_lifecycle_publisher(
            kind, topic, copy.copy(qos), qos_overriding_options=overridable(), **options
        )
        self._all.append(publisher)
        return publisher

    def listeners(self) -> int:
        """Subscriptions to the outputs of a frame."""
        return sum(output.get_subscription_count() for output in self._of_a_frame)

    def publish_labels(self, classes: Sequence[str], parts: Sequence[str]) -> None:
        """Class and part names, latched."""
        self._labels.publish(messages.labels_message(classes, parts))
        if self._label_info is not None:
            now = self._node.get_clock().now().to_msg()
            self._label_info.publish(detections.label_info_message(now, dict(enumerate(classes))))

    def publish(
        self, header: Header, points: np.ndarray, objects: list[Any], names: Mapping[int, str], lifetime_s: float
    ) -> None:
        """The answer to a cloud of points [N,3], on those topics that somebody listens to."""
        found = records.object_records(objects)
        if self._objects.get_subscription_count():
            self._objects.publish(messages.records_message(header, found))
        if self._parts.get_subscription_count():
            self._parts.publish(messages.records_message(header, records.part_records(points, objects)))
        if self._markers.get_subscription_count():
            self._markers.publish(messages.markers_message(header, found, names, lifetime_s))
        if self._detections is not None and self._detections.get_subscription_count():
            self._detections.publish(detections.detections_message(header, found))

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._all:
            self._node.destroy_lifecycle_publisher(publisher)
        self._all = self._of_a_frame = []
