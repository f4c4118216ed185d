# SPDX-License-Identifier: Apache-2.0
"""`foundry demo` in small: simulated world, bag, real nodes over DDS, scored against the ground truth."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

KEYS = {
    "frames_sent",
    "frames_processed",
    "frames_dropped",
    "latency_ms",
    "objects_true",
    "objects_matched",
    "class_accuracy",
    "part_miou",
    "model",
    "budget",
}


@pytest.mark.slow
def test_the_demo_finds_names_and_parts_without_losing_a_frame(tmp_path):
    environment = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    command = [sys.executable, "-m", "foundry_core.cli.main", "demo", "--seconds", "1.5", "--out", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert KEYS <= report.keys()
    assert (report["frames_sent"], report["frames_processed"], report["frames_dropped"]) == (15, 15, 0)
    assert report["objects_true"] > 50 and report["objects_matched"] > 0.85 * report["objects_true"]
    assert report["class_accuracy"] > 0.75 and report["part_miou"] > 0.5
    assert report["latency_ms"]["p50"] <= report["latency_ms"]["p95"]
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".demo_*")), "temporary results left behind"
