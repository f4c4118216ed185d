# SPDX-License-Identifier: Apache-2.0
"""Play the point clouds of a bag into perception_node and measure what comes back.

Frames are published as the bytes that the bag holds, reliable keep-last, so that reliable and best-effort subscribers
both match. ``rate`` 0 is lock-step: a frame is sent when the answer to the one before has arrived.
"""

from __future__ import annotations

if __name__ == "__main__":
    from foundry_core import startup

    startup.quiet()

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from foundry_core import pointcloud2
from foundry_core.data.bags import Bag, open_bag
from foundry_core.errors import InputError
from foundry_core.files import require_writable, write_atomically
from foundry_core.records import OBJECT, PART, FrameResult, ResultsWriter
from foundry_ros import declared, messages, parameters, processes, signals
from foundry_ros.answerer import Answerer, ReplayFailed
from foundry_ros.counters import Ledger
from foundry_ros.node import initialise, overridable
from foundry_ros.schedule import Companions, beside, expected, schedule

_PHASE = "phase_total_ms."
_COUNTED = ("received", "processed", "dropped", "rejected", "skipped", "objects", "objects_without_time")


class BagReplay(Node):
    """``bag_replay``: publishes on ``output``, listens to ``<node>/objects`` (and parts), ``/diagnostics``."""

    def __init__(self, **options: Any) -> None:
        super().__init__("bag_replay", automatically_declare_parameters_from_overrides=True, **options)
        declared.declare(self, parameters.ReplayParameters)
        self.settings = declared.current(self, parameters.ReplayParameters)
        if not self.settings.bag:
            raise InputError("bag_replay: bag: not set; give the path of a rosbag2 recording")
        for name in ("report", "plot", "results"):
            require_writable(getattr(self.settings, name) or None, name)
        if self.settings.plot and Path(self.settings.plot).suffix.lower() != ".png":
            raise InputError(f"bag_replay: plot: {self.settings.plot}: give a name that ends in .png")
        self.ledger = Ledger()
        self._labels = ""
        self._left_out: dict[str, str] = {}
        self._answers: dict[int, dict[str, PointCloud2]] = {}  # stamp -> topic -> message, kept for the results only
        node = self.settings.node
        latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self._cloud_out = self.create_publisher(
            PointCloud2, self.settings.output, QoSProfile(depth=5), qos_overriding_options=overridable()
        )
        self.answerer = Answerer(self, node, self._cloud_out)
        self._change = self.answerer.change
        self._listen(PointCloud2, "objects", self._on_objects, QoSProfile(depth=10))
        if self.settings.results:
            self._listen(PointCloud2, "parts", self._on_parts, QoSProfile(depth=10))
            self._listen(String, "labels", self._on_labels, latched)

    def _listen(self, kind: Any, name: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        """Subscribe to an output of the node that answers."""
        topic = f"{self.settings.node}/{name}"
        self.create_subscription(kind, topic, callback, qos, qos_overriding_options=overridable())

    # -- what arrives (executor thread) ------------------------------------------------------------------------------

    def _on_objects(self, message: PointCloud2) -> None:
        self.ledger.answered(pointcloud2.stamp_ns(message.header.stamp), time.perf_counter(), message.width)
        if self.settings.results:
            self._keep("objects", message)

    def _on_parts(self, message: PointCloud2) -> None:
        self._keep("parts", message)

    def _keep(self, kind: str, message: PointCloud2) -> None:
        with self._change:
            self._answers.setdefault(pointcloud2.stamp_ns(message.header.stamp), {})[kind] = message
            self._change.notify_all()

    def _on_labels(self, message: String) -> None:
        self._labels = message.data

    # -- the play (main thread) --------------------------------------------------------------------------------------

    def companions(self, bag: Bag, topic: str) -> Companions:
        """What is published beside the clouds of ``topic``; made early, so that who listens has found it in time."""
        name = self.resolve_topic_name(self.settings.node)
        others, self._left_out = beside(bag, self.settings.also, topic, self._cloud_out.topic_name, name)
        if self._left_out:
            listed = ", ".join(f"{topic} ({reason})" for topic, reason in self._left_out.items())
            self.get_logger().warning(f"not played: {listed}")
        latched = [name for name in others if bag.topics[name].latched]
        return Companions(self, others, self.settings.clock, latched)

    def play(self, bag: Bag, topic: str, companions: Companions, results: ResultsWriter | None) -> None:
        """Publish every frame in its turn or at its time; afterwards wait for the answers that can still come."""
        settings = self.settings
        topics = [topic, *companions.topics]
        total = expected(bag, topics, settings)
        number, stamp_ns, sent = -1, 0, []
        begin = None
        for item in schedule(bag, topics, settings):
            begin = time.perf_counter() if begin is None else begin
            if item.due_s is not None:
                time.sleep(max(0.0, begin + item.due_s - time.perf_counter()))
            companions.tick(item.stamp_ns)
            if companions.publish(item):
                continue
            try:
                stamp_ns = messages.cdr_stamp_ns(item.data)
            except ValueError as error:
                raise InputError(f"{bag.path}: topic '{topic}': frame {number + 1}: {error}; record it again") from None
            number = self.ledger.sent(stamp_ns, time.perf_counter())
            self._cloud_out.publish(item.data)
            sent.append((number, stamp_ns))
            if settings.rate == 0 and len(sent) >= settings.in_flight:
                self._finish(*sent.pop(0), results)
            elif settings.rate and results is not None:
                self._store_complete(sent, results)
            self._tell(total)
            if self._cloud_out.get_subscription_count() == 0:
                raise ReplayFailed(f"bag_replay: '{settings.node}' went away at frame {number + 1} of {total}")
        while settings.rate == 0 and sent:
            self._finish(*sent.pop(0), results)
        if number >= 0 and settings.rate:
            self.ledger.wait(number, settings.frame_timeout)  # the newest frame is never overtaken
            if results is not None:
                self._await_parts(stamp_ns)
                self._store_complete(sent, results, last=True)
        self._tell(total)
        self.answerer.refuse_late_twins()

    def _finish(self, number: int, stamp_ns: int, results: ResultsWriter | None) -> None:
        if not self.ledger.wait(number, self.settings.frame_timeout):
            self.ledger.give_up(stamp_ns)
            self.get_logger().warning(
                f"frame {number} was not answered, for up to {self.settings.frame_timeout} s: dropped"
            )
        elif results is not None:
            self._await_parts(stamp_ns)
            self._store(stamp_ns, results)

    def _await_parts(self, stamp_ns: int) -> None:
        with self._change:
            self._change.wait_for(lambda: len(self._answers.get(stamp_ns, ())) == 2, self.settings.frame_timeout)

    def _store_complete(self, sent: list[tuple[int, int]], results: ResultsWriter, last: bool = False) -> None:
        """Store, in order, the frames of ``sent`` that are answered completely; forget those that were overtaken."""
        with self._change:
            complete = [k for k, (_, stamp_ns) in enumerate(sent) if len(self._answers.get(stamp_ns, ())) == 2]
        for k in complete:
            self._store(sent[k][1], results)
        del sent[: len(sent) if last else complete[-1] + 1 if complete else 0]

    def _store(self, stamp_ns: int, results: ResultsWriter) -> None:
        with self._change:
            answer = self._answers.pop(stamp_ns, {})
        if len(answer) == 2:
            objects = messages.read_records(answer["objects"], OBJECT, "objects")
            results.add(FrameResult(stamp_ns, objects, messages.read_records(answer["parts"], PART, "parts")))
            results.labels = self._labels

    def _tell(self, total: int) -> None:
        if self.settings.progress:
            figures = {"sent": self.ledger.frames_sent, "processed": self.ledger.frames_processed, "total": total}
            print(json.dumps({"progress": figures}), flush=True)

    def report(self, before: dict[str, str]) -> dict[str, Any]:
        """The figures; phases and counts are the node's own over the frames of this replay (``/diagnostics``).

        Where the node does not tell them they are None: nothing is known of what it received.
        """
        told = self.answerer.diagnostics_after(int(before.get("processed", 0)) + self.ledger.frames_processed)
        after = before if told is None else told
        counts: dict[str, int | None] = dict.fromkeys((*_COUNTED, "lost_on_the_way", "answers_lost"))
        report, unexpected = self.ledger.report(), self.ledger.unexpected
        phases = {}
        if told is not None:
            gained = {key: int(after.get(key, 0)) - int(before.get(key, 0)) for key in _COUNTED}
            counts |= gained
            # another publisher's clouds are received and answered, too
            counts["lost_on_the_way"] = max(0, report["frames_sent"] - gained["received"])
            counts["answers_lost"] = max(0, gained["processed"] - report["frames_processed"] - unexpected)
            phases = {
                key.removeprefix(_PHASE): round(
                    (float(value) - float(before.get(key, 0.0))) / max(gained["processed"], 1), 3
                )
                for key, value in after.items()
                if key.startswith(_PHASE)
            }
        budget = after.get("budget", "")
        return {
            **report,
            "counts": {"sent": report["frames_sent"], **counts, "unexpected": unexpected},
            "left_out": self._left_out,
            "phases_ms": phases,
            "model": after.get("model", ""),
            "budget": int(budget) if budget.isdigit() else None,
            "rate": self.settings.rate,
            "timeline": self.ledger.timeline(),
        }


def replay(node: BagReplay) -> dict[str, Any]:
    """Play the node's bag and return (and, if asked to, write) the report; another thread must spin the node."""
    settings = node.settings
    with open_bag(settings.bag) as bag:
        topic = bag.choose_point_cloud_topic(settings.topic or None)
        companions = node.companions(bag, topic)
        before = node.answerer.wait_until_connected(settings.match_timeout)
        with ResultsWriter(settings.results) if settings.results else contextlib.nullcontext() as results:
            node.play(bag, topic, companions, results)
    report = node.report(before)
    figures = {key: report[key] for key in ("frames_sent", "frames_processed", "frames_dropped", "latency_ms")}
    node.get_logger().info(json.dumps(figures))  # now: what is written next may fail, on a full disk
    if settings.report:
        write_atomically(settings.report, (json.dumps(report, indent=2) + "\n").encode())
    if settings.plot:
        from foundry_core.evaluation.replay_picture import draw_replay  # matplotlib, only where it is wanted

        draw_replay(report, Path(settings.plot))
    return report


def main(arguments: list[str] | None = None) -> int:
    """Replay and exit: 0 done, 1 node not reached or disk full, 2 bad parameters or a bad bag, 130 stopped."""
    try:
        with signals.one_interrupt():
            processes.follow_parent()
            # a stop interrupts the main thread, which plays
            try:
                return _run(arguments)
            finally:
                rclpy.try_shutdown()
    except KeyboardInterrupt:
        return 130
    finally:
        signals.ignore_signals()


def _run(arguments: list[str] | None) -> int:
    node = spinner = executor = None
    try:
        initialise(arguments)
        node = BagReplay()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        spinner = threading.Thread(target=_spin, args=(executor,), daemon=True)
        spinner.start()
        replay(node)
    except (InputError, ReplayFailed, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    finally:
        if executor is not None:
            executor.shutdown()
        if spinner is not None:
            spinner.join(2.0)
        if node is not None:
            node.destroy_node()
    return 0


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


if __name__ == "__main__":
    sys.exit(main())
