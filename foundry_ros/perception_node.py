# SPDX-License-Identifier: Apache-2.0
"""Lifecycle node: point clouds in, objects with classes and parts out; the README lists topics and parameters."""

from __future__ import annotations

if __name__ == "__main__":
    from foundry_core import allocator, startup

    startup.quiet()
    allocator.share_one_heap()

import copy
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import PointCloud2

from foundry_core import cdr, pointcloud2
from foundry_core.clouds import Cloud
from foundry_core.errors import InputError
from foundry_core.runtime import footprint
from foundry_core.runtime.pace import Pace
from foundry_core.runtime.perceiver import Perceiver
from foundry_core.runtime.pipeline import Pipeline
from foundry_core.runtime.precompile import precompile
from foundry_ros import declared, messages, parameters, processes
from foundry_ros.counters import NodeStatistics
from foundry_ros.diagnostics import Diagnostics, Status
from foundry_ros.frames import TargetFrame
from foundry_ros.health import judge
from foundry_ros.node import SENSOR_QOS, ManagedNode, Warnings, autostart, overridable, reported, run
from foundry_ros.outputs import Outputs
from foundry_ros.teaching import Teaching, open_taught
from foundry_ros.worker import LatestWorker


class PerceptionNode(ManagedNode):
    """``perception_node``.

    Unconfigured: only parameters. Inactive: the model is loaded. Active: while somebody listens to an output, clouds
    are received and answered; the newest one waits while another is at work, and the one that it replaces counts as
    dropped. Where that would happen often, clouds have a deadline (:class:`Pace`). Clouds arrive serialised and are
    read in the worker, so that no message can harm the executor.

    Attributes:
        settings: as the parameters are now. What the perceiver needs of them the worker takes over between two frames.

    Args:
        loaded: is called at the end of every configuration.
    """

    def __init__(self, loaded: Callable[[], Any] = lambda: None, **options: Any) -> None:
        super().__init__("perception_node", automatically_declare_parameters_from_overrides=True, **options)
        self._loaded = loaded
        declared.declare(self, parameters.PerceptionParameters)
        self.settings = declared.current(self, parameters.PerceptionParameters)
        declared.judge_changes(self, parameters.PerceptionParameters, self._fixed, self._check_loaded)
        self.add_post_set_parameters_callback(self._on_parameters)
        self._perceiver: Perceiver | None = None
        self._pipeline: Pipeline | None = None
        self._pace = Pace()
        self._outputs: Outputs | None = None
        self._target: TargetFrame | None = None
        self._teaching: Teaching | None = None
        self._subscription: Any = None
        self._worker: LatestWorker | None = None
        self._input_publishers = 0
        self._heard = 0.0  # s, monotonic: of the last cloud, or when listening began
        self._warnings = Warnings(self)
        self._diagnostics = Diagnostics(self, "perception", self._status)

    # -- lifecycle ---------------------------------------------------------------------------------------------------

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        if precompile():
            self.get_logger().info("the kernels were compiled for this machine, once")
        perceiver = Perceiver(self.settings.model, self.settings, self.settings.budget)
        perceiver.warm_up()
        pipeline = Pipeline(perceiver, self.settings.tracks, open_taught(perceiver, self.settings.teach_file))
        self._check(self.settings, pipeline)
        self._perceiver, self._pipeline = perceiver, pipeline
        heads = perceiver.card.heads
        self._classes = heads.objects.classes if heads.objects else []
        self._parts = heads.parts.parts if heads.parts else []
        self._outputs = Outputs(self, self._follow_demand)
        if self.settings.target_frame:
            self._target = TargetFrame(self, self.settings.target_frame, self.settings.transform_timeout)
        self._teaching = Teaching(self, pipeline, self._publish_labels)
        self.get_logger().info(f"model {perceiver.card.name}, {len(self._classes)} classes, {len(self._parts)} parts")
        self._loaded()
        return super().on_configure(state)

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._publish_labels()
        self._statistics = NodeStatistics()
        self._pipeline.clear()
        self._pace.clear()
        self._worker = LatestWorker(self._process, "perception")
        self._follow_demand()
        self._diagnostics.every(self.settings.diagnostics_period)
        self._diagnostics.publish()
        return result

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        return super().on_deactivate(state)

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._release()
        return super().on_shutdown(state)

    @reported
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._release()
        return super().on_error(state)

    def _stop(self) -> None:
        self._diagnostics.every(None)
        worker, self._worker = self._worker, None
        self._follow_demand()
        if worker is not None:
            self._statistics.count("dropped", worker.stop())

    def _follow_demand(self) -> None:
        """Listen to clouds while the node is active and somebody listens to it."""
        wanted = self._worker is not None and self._outputs.listeners() > 0
        if wanted and self._subscription is None:
            self._heard = time.monotonic()
            self._subscription = self.create_subscription(
                PointCloud2, "~/input", self._on_cloud, copy.copy(SENSOR_QOS), raw=True,
                qos_overriding_options=overridable(),
                event_callbacks=SubscriptionEventCallbacks(matched=self._on_matched),
            )  # fmt: skip
        elif not wanted and self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
            self._input_publishers = 0

    def _publish_labels(self) -> None:
        """Class and part names, latched; again whenever something was taught."""
        classes = [*self._classes, *self._pipeline.taught.labels]
        self._names = dict(enumerate(classes))
        self._outputs.publish_labels(classes, self._parts)

    def _release(self) -> None:
        for part in (self._teaching, self._outputs, self._target):
            if part is not None:
                part.close()
        self._teaching = self._outputs = self._target = None
        self._perceiver = self._pipeline = None

    def close(self) -> None:
        """End the threads and destroy the node."""
        self._stop()
        self._release()
        self.destroy_node()

    def _fixed(self, name: str) -> str:
        if self._perceiver is None or parameters.changes_at_run_time(name):
            return ""
        return f"{name} takes effect at configuration: deactivate and clean up the node first"

    def _check_loaded(self, settings: parameters.PerceptionParameters) -> None:
        if self._pipeline is not None:
            self._check(settings, self._pipeline)

    @staticmethod
    def _check(settings: parameters.PerceptionParameters, pipeline: Pipeline) -> None:
        """Whether they fit the model that is loaded; InputError where not."""
        pipeline.perceiver.check(settings, settings.budget)
        if settings.teach_label:
            pipeline.taught.check_label(settings.teach_label)

    def _on_parameters(self, changes: list[Any]) -> None:
        before, self.settings = self.settings, declared.current(self, parameters.PerceptionParameters)
        period = self.settings.diagnostics_period
        if self._worker is not None and period != before.diagnostics_period:
            self._diagnostics.every(period)

    # -- frames ------------------------------------------------------------------------------------------------------

    def _on_matched(self, status: Any) -> None:
        self._input_publishers = status.current_count
        self._diagnostics.publish()

    def _on_cloud(self, data: bytes) -> None:
        self._heard = time.monotonic()
        self._statistics.count("received")
        if not self._outputs.listeners():
            self._statistics.count("skipped")
            return
        arrived = time.perf_counter()
        self._pace.arrived(arrived)
        if self._worker.offer((data, arrived)):
            self._statistics.count("dropped")

    def _process(self, item: tuple[bytes, float]) -> None:
        """Answer one serialised cloud that arrived at a moment; runs in the worker and never raises."""
        data, arrived = item
        reason = "message"
        try:
            settings = self.settings  # of this frame, whatever is set meanwhile
            if settings is not self._perceiver.config:
                self._perceiver.reconfigure(settings, settings.budget)
            start = time.perf_counter()
            self._pace.begun(start)
            message = cdr.read_point_cloud(data, "~/input")
            reason = "layout"
            decoded = pointcloud2.decode(message, "~/input")
            if pointcloud2.is_repaired(message):
                self._statistics.count("repaired")
            reason = "fields"
            points, header = pointcloud2.xyz(decoded, "~/input"), message.header
            reason = "transform"
            if self._target is not None:
                points, header = self._target.move(points, header)
            stamp_ns = pointcloud2.stamp_ns(header.stamp)
            cloud = Cloud.from_points(points, frame_id=header.frame_id, stamp_ns=stamp_ns)
            phases = {"decode": (time.perf_counter() - start) * 1e3}
            reason = "failure"
            due = (lambda: arrived + self._pace.allowance) if settings.keep_up else None
            perception = self._pipeline.perceive(cloud, due=due)
            objects = perception.objects
            self._pace.answered(perception.complete)
            budgets = perception.budgets if self._perceiver.card.budgets else []
            phases.update(perception.phases_ms)
            start = time.perf_counter()
            lifetime = settings.marker_lifetime
            self._outputs.publish(messages.to_header(header), cloud.points, objects, self._names, lifetime)
            end = time.perf_counter()
            phases["publish"] = (end - start) * 1e3
            nonfinite, latency_ms = cloud.dropped_nonfinite, (end - arrived) * 1e3
            self._statistics.processed(phases, len(objects), nonfinite, budgets, latency_ms)
        except InputError as error:
            self._reject(reason, str(error))
        except Exception as error:  # one bad frame must not end the node
            if self.context.ok():  # not while the context is being torn down
                self._reject("failure", f"~/input: {error.__class__.__name__}: {error}")

    def _reject(self, reason: str, text: str) -> None:
        self._pace.answered(complete=True)
        self._statistics.reject(reason)
        self._warnings.warn(reason, f"message rejected ({reason}): {text}")

    def _status(self) -> Status | None:
        if self._worker is None:
            return None
        self._follow_demand()
        counts, recent = self._statistics.values()
        allowance = self._pace.allowance
        if math.isfinite(allowance) and self.settings.keep_up and self.settings.deadline_ms is None:
            counts["keep_up_ms"] = 1e3 * allowance
        listeners = self._outputs.listeners()
        values = {"model": self._perceiver.card.name, "budget": self._perceiver.budget,
                  "process": processes.identity(), "rss_mb": processes.resident_mb(), "listeners": listeners,
                  "input_publishers": self._input_publishers, **self._pipeline.figures(),
                  **self._teaching.figures(), **counts}  # fmt: skip
        topic = self.resolve_topic_name("~/input")
        silence = time.monotonic() - self._heard
        level, text = judge(recent, topic, listeners, self._input_publishers, silence, self.settings.health)
        return Status(level, text, values["model"], values)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until SIGINT; exit code 2 when its parameters or its model cannot be used."""
    footprint.load_numba()
    return run(lambda: PerceptionNode(footprint.settle), arguments, autostart)


if __name__ == "__main__":
    sys.exit(main())
