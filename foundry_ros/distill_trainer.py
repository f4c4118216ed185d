# SPDX-License-Identifier: Apache-2.0
"""Distil a student on what the robot sees: collect segments from a topic or a bag, train beside perception.

The training is a process of its own (``foundry distill``); this node never imports torch.
"""

from __future__ import annotations

if __name__ == "__main__":
    from foundry_core import startup

    startup.quiet()

import contextlib
import copy
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from foundry_core.card import find_model, load_card, share_directory
from foundry_core.data.collection import SegmentCollection
from foundry_core.data.shapes import load_shapes
from foundry_core.errors import InputError
from foundry_core.files import require_writable
from foundry_core.schema import load_settings
from foundry_core.training.config import DistillConfig
from foundry_ros import declared, parameters
from foundry_ros.diagnostics import Diagnostics, Status
from foundry_ros.node import SENSOR_QOS, Warnings, overridable, run, steady_timer
from foundry_ros.saved import save_copy
from foundry_ros.segment_cutter import SegmentCutter
from foundry_ros.training_process import TrainingProcess
from foundry_ros.worker import LatestWorker

#: s for the training to finish its step and to save, after ~/stop and when the node ends
STOP_PATIENCE, END_PATIENCE = 30.0, 8.0
#: s between writes of a collection that has grown
SAVE_PERIOD = 30.0
#: parameters that the next ~/start takes as they are then
CHANGEABLE = ("minutes", "nice")


def find_config(name_or_path: str) -> Path:
    """A configuration of the package by its name, or any file by its path."""
    shipped = share_directory() / "config" / "train" / f"{name_or_path}.yaml"
    if Path(name_or_path).name == name_or_path and shipped.is_file():
        return shipped
    return Path(name_or_path).expanduser().absolute()


def _fixed(name: str) -> str:
    return "" if name in CHANGEABLE else f"{name} is fixed while the node runs: start it anew"


class DistillTrainer(Node):
    """``distill_trainer``.

    States: collecting (from the topic, or reading the bag), ready (data complete), training, done, failed.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("distill_trainer", automatically_declare_parameters_from_overrides=True, **options)
        declared.declare(self, parameters.DistillParameters)
        self.settings = settings = declared.current(self, parameters.DistillParameters)
        self.config_path = find_config(settings.config)
        self.config = load_settings(self.config_path, DistillConfig)
        self.teacher = find_model(Path(settings.teacher).expanduser()).resolve()
        load_card(self.teacher)
        self.out = Path(settings.out).expanduser().absolute()
        require_writable(self.out / "segments.npz", "out")
        self.data = Path(settings.data).expanduser().absolute() if settings.data else self.out / "segments.npz"
        self.training = TrainingProcess(self.out)
        self.collection = SegmentCollection(settings.max_segments, settings.points)
        self.failure, self.finished = "", False
        self._unsaved = ""  # why the segments could not be written, until they are
        self._cutter = SegmentCutter(
            self.collection, settings.scene, settings.sweep_period, settings.hold_out, settings.nice
        )
        self._shapes = self._test_shapes = self._rejected = self._written = 0
        self._last_save, self._warnings = time.monotonic(), Warnings(self)
        self._subscription: Any = None
        self._worker: LatestWorker | None = None
        self._autostart = settings.autostart
        declared.judge_changes(self, parameters.DistillParameters, _fixed)
        self._diagnostics = Diagnostics(self, "training", self._status)
        self._open_data()
        for name, action in (("start", self._start), ("stop", self._stop), ("save", self._save)):
            self.create_service(Trigger, f"~/{name}", self._answering(action))
        steady_timer(self, settings.diagnostics_period, self._on_timer)

    # -- data ----------------------------------------------------------------------------------------------------------

    def _open_data(self) -> None:
        if self.data.suffix == ".npz" and self.settings.data:
            shapes = load_shapes(self.data)
            self._shapes = len(shapes.train())
            self._test_shapes = len(shapes) - self._shapes
            return
        if self.settings.data:
            bag, self.data = self.data, self.out / "segments.npz"
            self._cutter.read_bag(bag, self.settings.topic or None)
            return
        if self.data.is_file():
            self.collection.restore(self.data)
            self._written = self.collection.accepted
        self._listen()

    def _listen(self) -> None:
        """Collect from the topic, where there is neither a bag nor a shape set."""
        if self._subscription is None and not self.settings.data:
            self._worker = LatestWorker(self._on_sweep, "segments")
            self._subscription = self.create_subscription(
                PointCloud2, "~/input", self._worker.offer, copy.copy(SENSOR_QOS), qos_overriding_options=overridable()
            )

    def _stop_listening(self) -> None:
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._worker.stop()
            self._subscription = self._worker = None

    def _on_sweep(self, message: PointCloud2) -> None:
        try:
            self._cutter.cut(message, time.monotonic_ns(), "~/input")
        except Exception as error:  # one bad sweep must not end the node
            self._rejected += 1
            if self.context.ok():
                self._warnings.warn("sweep", f"sweep rejected: {error}")

    def _write_segments(self) -> None:
        accepted = self.collection.accepted
        try:
            if accepted != self._written and len(self.collection):  # those of a held-out sweep alone are nothing yet
                self.collection.save(self.data)
        except (InputError, OSError) as error:
            self._unsaved = str(error)
            raise
        self._written, self._unsaved = accepted, ""

    # -- services ------------------------------------------------------------------------------------------------------

    def _answering(self, action: Callable[[], str]) -> Callable[[Any, Any], Any]:
        def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            try:
                response.message, response.success = action(), True
            except (InputError, OSError) as error:
                response.message, response.success = str(error), False
            self.get_logger().info(response.message)
            return response

        return answer

    def _start(self) -> str:
        if self.training.running():
            raise InputError("the training is under way; ~/stop ends it")
        if importlib.util.find_spec("torch") is None:
            raise InputError("training needs torch: pip install 'foundry_ros[train]'")
        if self._cutter.failure:
            raise InputError(self._cutter.failure)
        if self._cutter.reading():
            raise InputError(f"still reading the bag, {self._cutter.sweeps} sweeps so far; wait for the state ready")
        if not self._shapes:
            if not len(self.collection):
                sweeps = self._cutter.sweeps
                raise InputError(f"no segments in {sweeps} sweeps; does the input have clouds, does scene.* fit them?")
            self._write_segments()
        settings = declared.current(self, parameters.DistillParameters)
        resumes = (self.out / "checkpoint.pt").is_file()
        arguments = ["distill", "--config", str(self.config_path), "--data", str(self.data), "--fresh"]
        arguments += ["--teacher", str(self.teacher), "--resume" if resumes else "--out", str(self.out)]
        if self._held_out():
            arguments += ["--held-out", str(self.data)]
        if settings.minutes is not None:
            arguments += ["--minutes", str(settings.minutes)]
        pid = self.training.start(arguments, settings.nice)
        self._stop_listening()
        self.failure, self.finished, self._autostart = "", False, False
        how = "goes on from its checkpoint" if resumes else "starts"
        return f"the training {how} as process {pid} with {self._segments()} segments, in {self.out}"

    def _stop(self) -> str:
        if not self.training.running():
            raise InputError(f"no training is under way; the state is {self.state()}")
        if self.training.stop(STOP_PATIENCE):
            text = "the training was stopped"
        else:
            text = f"the training did not end within {STOP_PATIENCE:.0f} s and was killed"
        self._listen()
        kept = (self.out / "checkpoint.pt").is_file()
        return f"{text}; {'~/start goes on from its checkpoint' if kept else 'it had no checkpoint yet'}"

    def _save(self) -> str:
        """Copy the finished model to ``out/saved``: a reader sees the old one or the new one, never a part."""
        model = self.out / self.config.name
        if self.training.running():
            raise InputError("the training is under way; wait until it is done")
        if not (model / "card.json").is_file():
            raise InputError(f"no finished model in {self.out} yet; the state is {self.state()}")
        saved = self.out / "saved"
        card = save_copy(model, saved)
        return f"saved {card.name} to {saved}: {card.parameters:,} parameters, {card.training[-1].steps} steps"

    # -- state ---------------------------------------------------------------------------------------------------------

    def state(self) -> str:
        """One of collecting, ready, training, done and failed."""
        if self.training.running():
            return "training"
        if self._failure():
            return "failed"
        if self.finished:
            return "done"
        return "collecting" if self._cutter.reading() or self._subscription is not None else "ready"

    def _failure(self) -> str:
        return self.failure or self._unsaved or self._cutter.failure

    def _segments(self) -> int:
        return self._shapes or len(self.collection)

    def _held_out(self) -> int:
        return self._test_shapes or self.collection.held_out

    def _on_timer(self) -> None:
        if not self.context.ok():
            return
        code = self.training.ended()
        if code is not None:
            self.finished = code == 0
            if code:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                self.failure = f"the training ended with {how}: {self.training.last_words()}"
                self.get_logger().error(self.failure)
        complete = self._segments() >= self.settings.max_segments if self._subscription else self.state() == "ready"
        try:
            if (self._subscription or self._unsaved) and time.monotonic() - self._last_save > SAVE_PERIOD:
                self._last_save = time.monotonic()
                self._write_segments()
            if self._autostart and complete and not self._unsaved:
                self.get_logger().info(self._start())
        except (InputError, OSError) as error:
            if not self._unsaved:
                self.failure, self._autostart = str(error), False
            self.get_logger().error(str(error))
        self._diagnostics.publish()

    def _status(self) -> Status:
        state = self.state()
        values = {
            "state": state, "segments": self._segments(), "held_out": self._held_out(),
            "accepted": self.collection.accepted,
            "repeated": self.collection.repeated, "sweeps": self._cutter.sweeps, "rejected": self._rejected,
            "teacher": self.teacher.name, "config": self.config.name, "out": self.out,
            "checkpoint": (self.out / "checkpoint.pt").is_file(), "pid": self.training.pid or "",
            **self.training.progress(),
        }  # fmt: skip
        level, text = DiagnosticStatus.OK, state
        if state == "failed":
            level, text = DiagnosticStatus.ERROR, self._failure()
        elif self._subscription is not None and not self.count_publishers(self._subscription.topic_name):
            level, text = DiagnosticStatus.WARN, f"nobody publishes on {self._subscription.topic_name}"
        return Status(level, text, self.config.name, values)

    def close(self) -> None:
        """End the collecting and the training (it saves its checkpoint), and destroy the node."""
        self._stop_listening()
        self._cutter.close()
        if not self.settings.data and len(self.collection):
            with contextlib.suppress(InputError, OSError):
                self._write_segments()  # first: who ends the node may not wait for the training
        self.training.stop(END_PATIENCE)
        self.destroy_node()


def main(arguments: list[str] | None = None) -> int:
    """Run the node until SIGINT; exit code 2 when its parameters, its teacher or its data cannot be used."""
    return run(DistillTrainer, arguments)


if __name__ == "__main__":
    sys.exit(main())
