# SPDX-License-Identifier: Apache-2.0
"""The soak's own judgement, on a run of seconds."""

from __future__ import annotations

import fcntl
import threading
import uuid
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

import segments
from soak import __main__ as soak


def test_segments_of_other_processes_are_no_concern(ros, tiny_model):
    """One that appears while the node runs, and stays."""
    stranger = Path(f"/dev/shm/fastrtps_test{uuid.uuid4().hex[:8]}_el")
    held = []

    def appear() -> None:
        held.append(stranger.open("w"))
        fcntl.flock(held[0], fcntl.LOCK_EX)  # as a living process does; others remove what is a dead one's

    appears = threading.Timer(1.0, appear)
    appears.start()
    try:
        report = soak.measure(minutes=0.1, model=str(tiny_model), patience=90)
        appears.join()
        assert stranger.exists()
    finally:
        appears.cancel()
        for file in held:
            file.close()
        stranger.unlink(missing_ok=True)
    assert report["shm_segments"]["during"] >= 2 and report["shm_segments"]["left"] == []
    assert report["exit_code"] == 0 and report["answered"] > 0


def test_what_is_left_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SHM", tmp_path)
    for name in ("fastrtps_1", "fastrtps_1_el", "fastrtps_port7", "fastrtps_port7_el", "sem.fastrtps_port7_mutex"):
        (tmp_path / name).touch()
    names = {"fastrtps_1", "fastrtps_port7", "fastrtps_gone"}
    with open(tmp_path / "fastrtps_port7_el") as taken_over:
        fcntl.flock(taken_over, fcntl.LOCK_EX)
        assert segments.left_behind(names) == ["fastrtps_1", "fastrtps_1_el"]
    assert len(segments.left_behind(names)) == 5
