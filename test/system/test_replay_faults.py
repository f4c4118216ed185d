# SPDX-License-Identifier: Apache-2.0
"""`foundry replay` and what can go wrong: bad input, kills, crashes, a second node of the name."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from observer import stopped
from street_bag import FRAMES, KEYS, ROOT, children, command, environment, foundry, write_street_bag
from tiny_model import write_tiny_model

from foundry_core.data.bag_writer import write_bag
from foundry_core.data.bags import message_class


def test_a_kill_at_any_moment_leaves_the_old_report_or_the_new_one(street_bag, model, tmp_path, monkeypatch):
    from foundry_ros.processes import Domain, NodeProcess, local_environment

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    report = tmp_path / "report.json"
    play = {"bag": str(street_bag), "rate": 0.0, "report": str(report)}
    with Domain() as domain:
        environment = local_environment(domain.number)
        parameters = {"model": str(model), "diagnostics_period": 0.2}
        with NodeProcess("perception_node", parameters, environment, {"~/input": "/points"}):
            begin = time.monotonic()
            with NodeProcess("bag_replay", play, environment) as player:
                assert player.process.wait(120) == 0
            whole = time.monotonic() - begin
            known = {FRAMES}
            for loop, share in enumerate(np.random.default_rng(0).uniform(0.2, 1.2, 4), 2):
                with NodeProcess("bag_replay", {**play, "loop": loop}, environment) as player:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        player.process.wait(share * whole)
                    player.process.kill()
                    player.process.wait()
                known.add(FRAMES * loop)
                found = json.loads(report.read_text())
                assert set(found) == KEYS and found["frames_sent"] in known
                assert len(found["timeline"]["sent_s"]) == found["frames_sent"]


def test_a_twin_is_refused(street_bag, model, monkeypatch):
    """Two nodes of one name would mix their answers and figures."""
    from observer import Ros, wait_for

    from foundry_ros.processes import Domain, NodeFailed, NodeProcess, local_environment

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with Domain() as domain:
        parameters = {"model": str(model), "diagnostics_period": 0.2}
        with (
            NodeProcess("perception_node", parameters, local_environment(domain.number), {"~/input": "/points"}),
            NodeProcess("perception_node", parameters, local_environment(domain.number), {"~/input": "/points"}),
        ):
            ros = Ros(domain.number)
            try:
                wait_for(lambda: ros.node.count_publishers("/perception_node/objects") == 2, what="both nodes")
            finally:
                ros.close()
            play = {"bag": str(street_bag), "rate": 0.0, "match_timeout": 100.0}
            with NodeProcess("bag_replay", play, local_environment(domain.number)) as player:
                assert player.process.wait(120) == 1
                with pytest.raises(NodeFailed, match="2 nodes are called 'perception_node'"):
                    player.check()


def test_bad_input_is_one_line_and_exit_code_2(street_bag, model, tmp_path):
    typo = tmp_path / "typo.yaml"
    typo.write_text("perception_node:\n  ros__parameters:\n    modle: x\n")
    odd = tmp_path / "odd.yaml"
    odd.write_text("bag_replay:\n  ros__parameters:\n    output: '1 2'\n")
    damaged = write_tiny_model(tmp_path / "damaged")
    (damaged / "model.onnx").write_bytes(b"not a graph")
    (tmp_path / "empty").mkdir()
    bags = {"no clouds": tmp_path / "no_clouds", "cut": tmp_path / "cut"}
    with write_bag(bags["no clouds"]) as bag:
        bag.add_topic("/text", "std_msgs/msg/String")
        bag.write("/text", 1, message_class("std_msgs/msg/String")("hello"))
    write_street_bag(bags["cut"])
    storage = next(bags["cut"].glob("*.mcap"))
    storage.write_bytes(storage.read_bytes()[: storage.stat().st_size // 2])
    cases = [
        ((tmp_path / "missing",), "missing: no such bag"),
        ((tmp_path / "empty",), "not a rosbag2 folder"),
        ((bags["no clouds"],), "no PointCloud2"),
        ((bags["cut"],), "cut"),
        ((street_bag, "--topic", "/other"), "/other"),
        ((street_bag, "--params", typo), "modle: unknown key"),
        ((street_bag, "--params", tmp_path / "none.yaml"), "no such file"),
        ((street_bag, "--params", odd), "output: '1 2'"),
        ((street_bag, "--budget", 3), "--budget 3: "),
        ((street_bag, "--results", tmp_path / "x.txt"), ".npz"),
        ((street_bag, "--model", "no-such-model"), "no-such-model: neither"),
        ((street_bag, "--model", damaged), "wrong SHA-256"),
        ((street_bag, "--picture", tmp_path), "--picture"),
    ]
    for arguments, complaint in cases:
        out = tmp_path / "report.json"
        model_option = () if "--model" in arguments else ("--model", model)
        ended = foundry("replay", *arguments, *model_option, "--json", out)
        text = ended.stderr.strip()
        assert ended.returncode == 2, (arguments, text)
        assert complaint in text and "Traceback" not in text and len(text.splitlines()) == 1, (arguments, text)
        assert not out.exists()


def test_replay_stops_its_nodes_on_ctrl_c(street_bag, model, tmp_path):
    bag = write_street_bag(tmp_path / "long", frames=100)
    process = subprocess.Popen(
        command("replay", bag, "--model", model, "--rate", 1),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    nodes = children(process.pid, 2)
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode not in (0, None)
    assert all(map(stopped, nodes))


def test_a_crashed_node_is_reported(model, tmp_path):
    bag = write_street_bag(tmp_path / "long", frames=100)
    play = command("replay", bag, "--model", model, "--rate", 1)
    process = subprocess.Popen(play, env=environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    nodes = children(process.pid, 2)
    perception = next(pid for pid in nodes if b"perception_node" in Path(f"/proc/{pid}/cmdline").read_bytes())
    time.sleep(2.0)
    os.kill(perception, signal.SIGKILL)
    _, text = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "perception_node ended with signal SIGKILL" in text and "Traceback" not in text
    assert all(map(stopped, nodes))
