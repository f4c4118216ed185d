# SPDX-License-Identifier: Apache-2.0
"""Lifecycle node: point clouds in, objects with classes and parts out; the README lists topics and parameters."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from foundry_core import pointcloud2, records
from foundry_core.clouds import Cloud
from foundry_core.errors import InputError
from foundry_core.runtime.perceiver import Perceiver
from foundry_core.runtime.pipeline import Pipeline
from foundry_core.runtime.precompile import precompile
from foundry_ros import detections, messages, parameters
from foundry_ros.counters import NodeStatistics
from foundry_ros.node import SENSOR_QOS, WARNING_PERIOD, run
from foundry_ros.teaching import Teaching, open_taught
from foundry_ros.worker import LatestWorker

RCLError = rclpy_implementation.RCLError

#: reliable, keep last: matches every subscriber
OUTPUT_QOS = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
LATCHED_QOS = QoSProfile(
    history=QoSHistoryPolicy.KEEP_LAST, depth=1, reliability=QoSReliabilityPolicy.RELIABLE,
    durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
)  # fmt: skip

Transition = Callable[["PerceptionNode", LifecycleState], TransitionCallbackReturn]


def _reported(transition: Transition) -> Transition:
    """Log what a transition raises (rclpy would swallow it): bad input fails the transition, the rest is an error."""

    @functools.wraps(transition)
    def run(self: PerceptionNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except InputError as error:
            self.get_logger().error(str(error))
            self.failure = str(error)
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.get_logger().error(f"{transition.__name__}: {error.__class__.__name__}: {error}")
            self.failure = f"{transition.__name__}: {error.__class__.__name__}: {error}"
            return TransitionCallbackReturn.ERROR

    return run


class PerceptionNode(LifecycleNode):
    """``perception_node``.

    Unconfigured: only parameters. Inactive: the model is loaded. Active: clouds are answered; the newest one waits
    while another is at work, and the one that it replaces counts as dropped.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("perception_node", automatically_declare_parameters_from_overrides=True, **options)
        parameters.declare(self, parameters.PerceptionParameters)
        parameters.current(self, parameters.PerceptionParameters)
        self.add_on_set_parameters_callback(self._judge_parameters)
        self.failure = ""
        self._perceiver: Perceiver | None = None
        self._pipeline: Pipeline | None = None
        self._teaching: Teaching | None = None
        self._subscription: Any = None
        self._worker: LatestWorker | None = None
        self._timer: Any = None
        self._input_publishers = 0
        self._warned: dict[str, float] = {}
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)

    # -- lifecycle ---------------------------------------------------------------------------------------------------

    @_reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.settings = parameters.current(self, parameters.PerceptionParameters)
        if precompile():
            self.get_logger().info("the kernels were compiled for this machine, once")
        perceiver = Perceiver(self.settings.model, self.settings, self.settings.budget)
        perceiver.warm_up()
        pipeline = Pipeline(perceiver, self.settings.tracks, open_taught(perceiver, self.settings.teach_file))
        self._perceiver, self._pipeline = perceiver, pipeline
        heads = perceiver.card.heads
        self._classes = heads.objects.classes if heads.objects else []
        self._parts = heads.parts.parts if heads.parts else []
        create = self.create_lifecycle_publisher
        self._objects_out = create(PointCloud2, "~/objects", OUTPUT_QOS)
        self._parts_out = create(PointCloud2, "~/parts", OUTPUT_QOS)
        self._markers_out = create(MarkerArray, "~/markers", OUTPUT_QOS)
        self._labels_out = create(String, "~/labels", LATCHED_QOS)
        self._frame_outputs = [self._objects_out, self._parts_out, self._markers_out]
        self._all_outputs = [*self._frame_outputs, self._labels_out]
        self._detections_out = None
        if detections.available():
            self._detections_out = create(detections.Detection3DArray, "~/detections", OUTPUT_QOS)
            self._label_info_out = create(detections.LabelInfo, "~/label_info", LATCHED_QOS)
            self._frame_outputs.append(self._detections_out)
            self._all_outputs += [self._detections_out, self._label_info_out]
        self._teaching = Teaching(self, pipeline, self.settings, self._publish_labels)
        self.get_logger().info(
            f"model {self._perceiver.card.name}, {len(self._classes)} classes, {len(self._parts)} parts"
        )
        return super().on_configure(state)

    @_reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._publish_labels()
        self._statistics = NodeStatistics()
        self._pipeline.clear()
        self._worker = LatestWorker(self._process, "perception")
        events = SubscriptionEventCallbacks(matched=self._on_matched)
        self._subscription = self.create_subscription(
            PointCloud2, "~/input", self._on_cloud, SENSOR_QOS, event_callbacks=events
        )
        self._timer = self.create_timer(self.settings.diagnostics_period, self._publish_diagnostics)
        self._publish_diagnostics()
        return result

    @_reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        return super().on_deactivate(state)

    @_reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    @_reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._release()
        return super().on_shutdown(state)

    @_reported
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._release()
        return super().on_error(state)

    def _stop(self) -> None:
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
            self._input_publishers = 0
        if self._worker is not None:
            self._statistics.count("dropped", self._worker.stop())
            self._worker = None

    def _publish_labels(self) -> None:
        """Class and part names, latched; again whenever something was taught."""
        classes = [*self._classes, *self._pipeline.taught.labels]
        self._names = dict(enumerate(classes))
        self._labels_out.publish(messages.labels_message(classes, self._parts))
        if self._detections_out is not None:
            self._label_info_out.publish(detections.label_info_message(self.get_clock().now().to_msg(), self._names))

    def _release(self) -> None:
        if self._teaching is not None:
            self._teaching.close()
            self._teaching = None
        for publisher in getattr(self, "_all_outputs", []):
            self.destroy_lifecycle_publisher(publisher)
        self._all_outputs = self._frame_outputs = []
        self._perceiver = self._pipeline = None

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:
        """Answer a transition that the present state does not have with success = False; rclpy would end the node."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)
        except RCLError as error:
            self.get_logger().error(f"transition {request.transition.id} refused: {str(error).splitlines()[0]}")
            response.success = False
            return response

    def close(self) -> None:
        """End the worker and destroy the node."""
        self._stop()
        self.destroy_node()

    def _judge_parameters(self, changes: list[Any]) -> SetParametersResult:
        ours = {change.name: change.value for change in changes if not parameters.is_ros_parameter(change.name)}
        late = [name for name in ours if name not in parameters.AT_RUN_TIME]
        if late and self._perceiver is not None:
            name = late[0]
            reason = f"{name} takes effect at configuration: deactivate and clean up the node first"
            return SetParametersResult(successful=False, reason=reason)
        try:
            parameters.current(self, parameters.PerceptionParameters, ours)
        except InputError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    # -- frames ------------------------------------------------------------------------------------------------------

    def _on_matched(self, status: Any) -> None:
        self._input_publishers = status.current_count
        self._publish_diagnostics()

    def _on_cloud(self, message: PointCloud2) -> None:
        self._statistics.count("received")
        if not any(output.get_subscription_count() for output in self._frame_outputs):
            self._statistics.count("skipped")
        elif self._worker.offer(message):
            self._statistics.count("dropped")

    def _process(self, message: PointCloud2) -> None:
        """Answer one cloud; runs in the worker and never raises."""
        reason = "layout"
        try:
            start = time.perf_counter()
            decoded = pointcloud2.decode(message, "~/input")
            reason = "fields"
            header = message.header
            stamp_ns = pointcloud2.stamp_ns(header.stamp)
            cloud = Cloud.from_points(pointcloud2.xyz(decoded, "~/input"), frame_id=header.frame_id, stamp_ns=stamp_ns)
            phases = {"decode": (time.perf_counter() - start) * 1e3}
            reason = "failure"
            perception = self._pipeline.perceive(cloud)
            objects = perception.objects
            budgets = perception.budgets if self._perceiver.card.budgets else []
            phases.update(perception.phases_ms)
            start = time.perf_counter()
            self._publish(message, cloud.points, objects)
            phases["publish"] = (time.perf_counter() - start) * 1e3
            self._statistics.processed(phases, len(objects), cloud.dropped_nonfinite, budgets)
        except InputError as error:
            self._reject(reason, str(error))
        except Exception as error:  # one bad frame must not end the node
            if rclpy.ok():  # not while the context is being torn down
                self._reject("failure", f"~/input: {error.__class__.__name__}: {error}")

    def _publish(self, message: PointCloud2, points: np.ndarray, objects: list[Any]) -> None:
        header = message.header
        found = records.object_records(objects)
        if self._objects_out.get_subscription_count():
            self._objects_out.publish(messages.records_message(header, found))
        if self._parts_out.get_subscription_count():
            self._parts_out.publish(messages.records_message(header, records.part_records(points, objects)))
        if self._markers_out.get_subscription_count():
            lifetime = self.settings.marker_lifetime
            self._markers_out.publish(messages.markers_message(header, found, self._names, lifetime))
        if self._detections_out is not None and self._detections_out.get_subscription_count():
            self._detections_out.publish(detections.detections_message(header, found))

    def _reject(self, reason: str, text: str) -> None:
        self._statistics.reject(reason)
        now = time.monotonic()
        if now - self._warned.get(reason, -WARNING_PERIOD) >= WARNING_PERIOD:
            self._warned[reason] = now
            self.get_logger().warning(f"message rejected ({reason}): {text}")

    def _publish_diagnostics(self) -> None:
        if self._perceiver is None or not self.context.ok():
            return
        counts, troubled = self._statistics.values()
        values = {"model": self._perceiver.card.name, "budget": self._perceiver.budget,
                  "input_publishers": self._input_publishers, **self._pipeline.figures(),
                  **self._teaching.figures(), **counts}  # fmt: skip
        level, text = (DiagnosticStatus.WARN, "frames dropped or rejected") if troubled else (DiagnosticStatus.OK, "ok")
        name = f"{self.get_name()}: perception"
        now = self.get_clock().now().to_msg()
        self._diagnostics.publish(messages.diagnostics_message(now, name, values["model"], level, text, values))


def _autostart(node: PerceptionNode) -> None:
    if node.get_parameter("autostart").value:
        for transition in (node.trigger_configure, node.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                raise InputError(node.failure)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until SIGINT; exit code 2 when its parameters or its model cannot be used."""
    return run(PerceptionNode, arguments, _autostart)


if __name__ == "__main__":
    sys.exit(main())
