# SPDX-License-Identifier: Apache-2.0
"""The nodes and signals while they import their modules, however they are started."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from starting import signalled

pytest.importorskip("rclpy", reason="rclpy is not installed")

import foundry_ros
from foundry_ros.processes import local_environment

NODES = ("perception_node", "bag_replay", "distill_trainer")
ROS = ["--ros-args", "--disable-external-lib-logs"]
PROGRAMS = {name: [sys.executable, "-m", f"foundry_ros.{name}", *ROS] for name in NODES} | {
    f"executable {name}": [sys.executable, str(Path(foundry_ros.__file__).parent / "executables" / name), *ROS]
    for name in NODES
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_signal_while_modules_are_imported_ends_it_without_a_word(domain, program, number):
    assert signalled(PROGRAMS[program], local_environment(domain), number) == (128 + number, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_of_the_start_leaves_no_traceback(domain, number):
    program = [*PROGRAMS["perception_node"], "-p", "autostart:=false"]
    for delay in np.random.default_rng(number).uniform(0, 2.0, 4):
        code, text = signalled(program, local_environment(domain), number, delay)
        assert code in (0, 128 + number) and "Traceback" not in text, (delay, text)
