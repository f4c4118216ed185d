# SPDX-License-Identifier: Apache-2.0
"""distill_trainer as a process: it collects, trains beside itself, stops, goes on, saves, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from observer import stopped, wait_for

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("torch", reason="training needs torch")

import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import QoSReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from station import cloud
from std_msgs.msg import Header
from street_scene import street
from trainer_node import PATIENCE, Trainer, write_config, write_teacher

from foundry_core.data.bag_writer import write_bag
from foundry_core.data.bags import POINT_CLOUD, message_class, typestore
from foundry_core.data.shapes import load_shapes
from foundry_core.models.registry import load_model
from foundry_ros import distill_trainer, messages
from foundry_ros.processes import local_environment


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "tiny-teacher")


def sweep(seed: int) -> PointCloud2:
    """The street, passed by: a box and a pole that are elsewhere in every sweep."""
    points = street(seed)
    points[:, 0] += 0.5 * seed
    packed = np.zeros(len(points), np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")]))
    packed["x"], packed["y"], packed["z"] = points.T
    return messages.records_message(Header(stamp=messages.to_time(seed), frame_id="lidar"), packed)


@pytest.fixture
def settings(teacher, tmp_path) -> dict:
    return {
        "config": str(write_config(tmp_path / "config.yaml", steps=10_000_000)),
        "teacher": str(teacher),
        "out": str(tmp_path / "run"),
        "points": 128,
        "sweep_period": 0.0,
        "max_segments": 6,
        "diagnostics_period": 0.2,
    }


def test_collect_train_stop_resume_and_save(ros, settings, tmp_path):
    trainer = Trainer(ros)
    publisher = ros.node.create_publisher(PointCloud2, "/points", 5)
    run = tmp_path / "run"
    with ros.start("distill_trainer", settings, {"~/input": "/points"}) as process:
        trainer.wait(lambda f: f["state"] == "collecting" and publisher.get_subscription_count(), "a subscription")
        early = trainer.call("start")
        assert not early.success and "no segments" in early.message
        for name in ("stop", "save"):
            assert not trainer.call(name).success

        # the same street again and again is one box and one pole
        for repeated in range(2):
            publisher.publish(sweep(0))
            trainer.wait(lambda f: int(f["sweeps"]) == repeated + 1, "the first sweep")  # noqa: B023
        figures = trainer.figures()
        assert figures["segments"] == figures["repeated"] == "2"
        for number in range(1, 6):
            publisher.publish(sweep(number))
            trainer.wait(lambda f: int(f["sweeps"]) == number + 2, f"sweep {number}")  # noqa: B023
        assert trainer.figures()["segments"] == "6" and trainer.figures()["accepted"] == "12"  # bounded
        bad = sweep(9)
        bad.data = bad.data[:100]
        publisher.publish(bad)
        trainer.wait(lambda f: f["rejected"] == "1", "a rejected sweep")

        started = trainer.call("start")
        assert started.success and "starts" in started.message, started.message
        segments = load_shapes(run / "segments.npz")  # the fifth sweep is held out
        assert segments.train().points.shape == (6, 128, 3) and segments.test().points.shape == (2, 128, 3)
        assert not trainer.call("start").success
        running = trainer.wait(lambda f: f["state"] == "training" and int(f.get("step", 0)) >= 50, "progress")
        assert {"loss", "r2", "unused"} <= running.keys() and float(running["loss"]) > 0
        assert running["held_out"] == "2" and running["held_out_r2"] == running["held_out_r2_before"]
        pid = int(running["pid"])
        assert os.getpriority(os.PRIO_PROCESS, pid) == 10 and os.getpgid(pid) == pid
        group = Path(f"/proc/{pid}/autogroup")
        assert not group.exists() or group.read_text().split()[-1] == "10"
        assert ros.node.count_subscribers("/points") == 0  # not while it trains
        assert not trainer.call("save").success

        end = trainer.call("stop")
        assert end.success and "goes on from its checkpoint" in end.message, end.message
        assert stopped(pid)
        step = torch.load(run / "checkpoint.pt", weights_only=True)["step"]  # periodic ones are switched off
        assert step >= 50
        assert trainer.fresh()["state"] == "collecting"
        missing = trainer.call("save")
        assert not missing.success and "no finished model" in missing.message

        # the minutes count from the first start on: a few seconds are left
        seconds = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["seconds"]
        assert set_parameter(ros, "minutes", (seconds + 6) / 60).successful
        fixed = set_parameter(ros, "sweep_period", 1.0)
        assert not fixed.successful and "sweep_period is fixed" in fixed.reason
        resumed = trainer.call("start")
        assert resumed.success and "goes on from its checkpoint" in resumed.message, resumed.message
        figures = trainer.wait(lambda f: f["state"] in ("done", "failed"), "the end")
        assert figures["state"] == "done", trainer.collected[-1]
        assert float(figures["held_out_r2"]) > float(figures["held_out_r2_before"])
        rows = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
        assert rows == sorted(set(rows)) and rows[-1] > step, "the resumed run began anew"

        saved = trainer.call("save")
        assert saved.success, saved.message
        for _ in range(2):  # and again, over the first copy
            network, card = load_model(run / "saved")
            assert card.name == "tiny-student" and card.training[-1].steps == rows[-1]
            assert "segments (train split)" in [data.name for data in card.training[-1].data]
            assert [(m.name, m.data, m.split) for m in card.metrics][0] == ("r2", "segments", "test")
            assert trainer.call("save").success
        assert network.backbone.architecture.supertokens.count == 4
        assert process.stop(PATIENCE) == 0
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]


def test_diagnostics_do_not_wait_for_a_clock_that_stands_still_and_the_inputs_qos_is_the_users(ros, settings):
    trainer = Trainer(ros)
    settings |= {"use_sim_time": True, "qos_overrides./points.subscription.reliability": "reliable"}
    with ros.start("distill_trainer", settings, {"~/input": "/points"}) as process:
        wait_for(lambda: len(trainer.collected) >= 3, PATIENCE, "diagnostics")
        (subscription,) = ros.node.get_subscriptions_info_by_topic("/points")
        assert subscription.qos_profile.reliability == QoSReliabilityPolicy.RELIABLE
        assert trainer.figures()["state"] == "collecting"
        assert process.stop(PATIENCE) == 0


def set_parameter(ros, name: str, value: float):
    value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
    request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
    return ros.call(SetParameters, "/distill_trainer/set_parameters", request, again=2.0).results[0]


def record(path: Path, sweeps: int) -> Path:
    """A bag of the street, passed by at 10 Hz."""
    point_field = message_class("sensor_msgs/msg/PointField")
    header, stamp = message_class("std_msgs/msg/Header"), message_class("builtin_interfaces/msg/Time")
    with write_bag(path) as bag:
        bag.add_topic("/points", POINT_CLOUD)
        for number in range(sweeps):
            message = sweep(number)
            fields = [point_field(f.name, f.offset, f.datatype, f.count) for f in message.fields]
            cloud = typestore().types[POINT_CLOUD](
                header(stamp(0, number), "lidar"), 1, message.width, fields, False, message.point_step,
                message.row_step, np.frombuffer(message.data, np.uint8), True,
            )  # fmt: skip
            bag.write("/points", number * 100_000_000, cloud)
    return path


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_bag_is_cut_and_trained_on_and_no_training_outlives_the_node(ros, settings, tmp_path, ending):
    settings |= {"data": str(record(tmp_path / "bag", 6)), "sweep_period": 0.2, "autostart": True}
    trainer = Trainer(ros)
    with ros.start("distill_trainer", settings) as process:
        figures = trainer.wait(lambda f: f["state"] == "training" and int(f.get("step", 0)) > 0, "progress")
        assert figures["sweeps"] == "3" and figures["segments"] == "6"  # every second of six sweeps
        pid = int(figures["pid"])
        if ending == signal.SIGINT:
            assert process.stop(PATIENCE) == 0
            assert stopped(pid)
        else:
            process.process.send_signal(ending)
            process.process.wait(PATIENCE)
            wait_for(lambda: stopped(pid), PATIENCE, "the end of the training")
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] > 0


def test_a_training_that_fails_says_why(ros, settings, tmp_path, teacher):
    shapes = tmp_path / "shapes.npz"
    np.savez(shapes, points=np.random.default_rng(0).normal(size=(4, 64, 3)).astype(np.float16))
    config = write_config(tmp_path / "other.yaml", steps=10, learning_rate=1e30)
    settings |= {"data": str(shapes), "config": str(config)}
    collected = ros.collect(DiagnosticArray, "/diagnostics")
    trainer = Trainer(ros)
    with ros.start("distill_trainer", settings):
        assert trainer.wait(lambda f: f["state"] == "ready", "ready")["segments"] == "4"
        assert trainer.call("start").success
        trainer.wait(lambda f: f["state"] == "failed", "the failure")
        status = collected[-1].status[0]
        assert status.level == b"\x02" and "exit code 2" in status.message and "not finite" in status.message


def test_a_failure_of_writing_segments_ends_when_they_are_written(ros, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(distill_trainer, "SAVE_PERIOD", -1.0)
    started, run = [], tmp_path / "run"
    settings |= {"max_segments": 2, "autostart": True}
    overrides = [rclpy.Parameter(name, value=value) for name, value in settings.items()]
    node = distill_trainer.DistillTrainer(context=ros.context, parameter_overrides=overrides)
    monkeypatch.setattr(node.training, "start", lambda *_: started.append(1) or 1)
    try:
        node._on_timer()
        assert node.state() == "collecting"
        run.write_text("in the way")
        node._on_sweep(sweep(0))
        for _ in range(2):
            node._on_timer()
            assert node.state() == "failed" and "run" in node._status().text and not started
        run.unlink()
        node._on_timer()
        assert (run / "segments.npz").is_file() and started, "it waited for this"
        assert node.state() == "ready"  # listening no longer; what stands for the training does not run
    finally:
        node.close()


def test_segments_of_a_held_out_sweep_alone_are_nothing_to_write_yet(ros, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(distill_trainer, "SAVE_PERIOD", -1.0)
    overrides = [rclpy.Parameter(name, value=value) for name, value in {**settings, "hold_out": 0.5}.items()]
    node = distill_trainer.DistillTrainer(context=ros.context, parameter_overrides=overrides)
    segments = tmp_path / "run" / "segments.npz"
    try:
        node._on_sweep(cloud(np.zeros((0, 3), np.float32), 1))
        node._on_sweep(sweep(0))  # every second one is held out
        node._on_timer()
        assert node.collection.held_out > 0 == len(node.collection)
        assert node.state() == "collecting" and not segments.exists()
        node._on_sweep(sweep(40))  # other things
        node._on_timer()
        assert node.state() == "collecting" and len(load_shapes(segments).train()) > 0
    finally:
        node.close()


def test_segments_are_kept_before_the_training_is_waited_for(ros, settings, tmp_path, monkeypatch):
    overrides = [rclpy.Parameter(name, value=value) for name, value in settings.items()]
    node = distill_trainer.DistillTrainer(context=ros.context, parameter_overrides=overrides)
    segments, there = tmp_path / "run" / "segments.npz", []
    monkeypatch.setattr(node.training, "stop", lambda patience: there.append(segments.is_file()))
    node._on_sweep(sweep(0))
    assert not segments.exists()
    node.close()
    assert there == [True] and len(load_shapes(segments)) > 0


def run_to_end(domain: int, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "foundry_ros.distill_trainer", "--ros-args", "--disable-external-lib-logs"]
    return subprocess.run(
        [*command, *arguments], env=local_environment(domain), capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"max_segmets": "3"}, "distill_trainer: max_segmets: unknown parameter"),
        ({"scene.cell": "1.0"}, "distill_trainer: scene.cell: unknown parameter"),
        ({"nice": "20"}, "distill_trainer: nice: "),
        ({"config": "/nothing.yaml"}, "/nothing.yaml: no such file"),
        ({"teacher": "nobody"}, "nobody: neither a shipped model"),
        ({"data": "/nothing.npz"}, "/nothing.npz: no such file"),
        ({"data": "/nothing"}, "/nothing: no such bag"),
        ({"out": "/dev/null"}, "/dev/null/segments.npz: cannot be written"),
    ],
)
def test_bad_parameters_end_the_node_with_one_line(ros, settings, changes, complaint):
    kept = {key: settings[key] for key in ("config", "teacher", "out")}
    arguments = [word for key, value in {**kept, **changes}.items() for word in ("-p", f"{key}:={value}")]
    ended = run_to_end(ros.domain, *arguments)
    assert ended.returncode == 2, ended.stderr
    assert complaint in ended.stderr and "Traceback" not in ended.stderr
    assert not Path(settings["out"]).exists()


def test_the_node_imports_no_torch():
    code = "import sys; sys.modules['torch'] = None; import foundry_ros.distill_trainer"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE, env=local_environment(99))
