# SPDX-License-Identifier: Apache-2.0
"""``PYTHONPATH=.:test python -m beside``: perception_node alone and beside a training, by turns, on one processor core.

The node gets 120,000 points at 10 Hz; ``distill_trainer`` adapts the shipped student on procedural shapes, at its
default niceness. Figures are latencies from publication to ``~/objects``, clouds without an answer, and steps of the
training; the publisher runs on the other cores. Exit code 1 when the node does not answer or the training stands still.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bounded_run
import numpy as np
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from observer import Ros, wait_for
from sensor_msgs.msg import PointCloud2
from soak.__main__ import RATE, sweep
from station import cloud, diagnostics
from trainer_node import Trainer

from foundry_core.card import share_directory
from foundry_core.data.procedural_set import procedural_shapes
from foundry_core.data.shapes import save_shapes
from foundry_core.pointcloud2 import stamp_ns
from foundry_ros import messages
from foundry_ros.processes import Domain

#: s for a node to start, and for the training to load and to make its first steps
PATIENCE = 600.0


@contextmanager
def on_core(core: int):
    """Processes that are started here run on one core; this one does not stay there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Stopwatch:
    """Publishes clouds and times the answers."""

    def __init__(self, ros: Ros) -> None:
        self._clouds = [cloud(sweep(seed), 1) for seed in range(8)]
        self._answered: dict[int, float] = {}
        self._lock = threading.Lock()
        self._sent = 0
        self.publisher = ros.node.create_publisher(PointCloud2, "/points", 5)
        ros.node.create_subscription(PointCloud2, "/perception_node/objects", self._on_objects, 10)

    def _on_objects(self, message: PointCloud2) -> None:
        with self._lock:
            self._answered[stamp_ns(message.header.stamp)] = time.perf_counter()

    def play(self, seconds: float) -> list[float | None]:
        """Latencies in ms of clouds at 10 Hz; None for one without an answer."""
        sent: dict[int, float] = {}
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            self._sent += 1
            message = self._clouds[self._sent % len(self._clouds)]
            stamp = self._sent * int(1e9 / RATE)
            message.header.stamp = messages.to_time(stamp)
            sent[stamp] = time.perf_counter()
            self.publisher.publish(message)
            time.sleep(max(0.0, begin + len(sent) / RATE - time.perf_counter()))
        time.sleep(2.0)  # for the last answers
        with self._lock:
            answers = dict(self._answered)
        return [1e3 * (answers[stamp] - at) if stamp in answers else None for stamp, at in sent.items()]


def step(figures: dict[str, str]) -> int:
    return int(figures.get("step", 0))


def do(trainer: Trainer, service: str) -> None:
    """Call a service of distill_trainer that must not be refused."""
    answer = trainer.call(service)
    if not answer.success:
        raise RuntimeError(answer.message)


def summary(latencies: list[float | None]) -> dict[str, Any]:
    """p50 and p95 in ms, and counts."""
    known = [value for value in latencies if value is not None]
    p50, p95 = np.percentile(known, [50, 95]) if known else (float("nan"), float("nan"))
    return {
        "sent": len(latencies), "answered": len(known), "p50_ms": round(float(p50), 1), "p95_ms": round(float(p95), 1),
    }  # fmt: skip


def measure(rounds: int, seconds: float, model: str, core: int, folder: Path) -> dict[str, Any]:
    """Alone and beside the training, ``rounds`` times each."""
    shapes = folder / "shapes.npz"
    save_shapes(shapes, procedural_shapes(train=8, test=1, points=1024))
    perception = {"model": model, "diagnostics_period": 1.0}
    config = yaml.safe_load((share_directory() / "config" / "train" / "foundry-edge-adapt.yaml").read_text())
    config["loop"] |= {"log_steps": 2}  # diagnostics tell the steps as they are done
    (folder / "adapt.yaml").write_text(yaml.safe_dump(config))
    files = {"config": str(folder / "adapt.yaml"), "data": str(shapes), "out": str(folder / "run")}
    trainer = {**files, "diagnostics_period": 0.5}
    latencies: dict[str, list[float | None]] = {"alone": [], "beside": []}
    with Domain() as domain:
        ros = Ros(domain.number)
        try:
            with on_core(core):
                nodes = ros.start("perception_node", perception, {"~/input": "/points"})
                others = ros.start("distill_trainer", trainer)
            with nodes, others:
                watch, training = Stopwatch(ros), Trainer(ros)
                told = ros.collect(DiagnosticArray, "/diagnostics")
                joined = lambda: int(diagnostics(told).get("input_publishers", 0)) > 0  # noqa: E731
                wait_for(joined, PATIENCE, "the node to hear the publisher")
                wait_for(training.figures, PATIENCE, "distill_trainer")
                watch.play(5.0)  # warm-up
                steps = 0
                for _ in range(rounds):
                    latencies["alone"] += watch.play(seconds)
                    before = step(training.figures())
                    do(training, "start")
                    begun = lambda: step(training.figures()) > before  # noqa: B023, E731
                    wait_for(begun, PATIENCE, "steps of the training")
                    at = step(training.figures())
                    latencies["beside"] += watch.play(seconds)
                    steps += step(training.figures()) - at
                    do(training, "stop")
        finally:
            ros.close()
    report = {name: summary(values) for name, values in latencies.items()}
    ratio = report["beside"]["p50_ms"] / report["alone"]["p50_ms"]
    part = {"model": model, "rounds": rounds, "seconds": seconds}
    return {**part, **report, "p50_ratio": round(ratio, 3), "steps": steps}


def main() -> int:
    parser = argparse.ArgumentParser(prog="beside", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each part of a round")
    parser.add_argument("--model", default="foundry-edge")
    parser.add_argument("--core", type=int, default=0, help="number of the processor core that both share")
    parser.add_argument("--json", type=Path, default=Path("out/beside.json"))
    options = parser.parse_args()
    bounded_run.prepare()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options.rounds, options.seconds, options.model, options.core, Path(folder))
    bounded_run.write(report, options.json)
    return 0 if report["beside"]["answered"] and report["steps"] else 1


if __name__ == "__main__":
    sys.exit(main())
