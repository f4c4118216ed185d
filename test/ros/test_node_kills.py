# SPDX-License-Identifier: Apache-2.0
"""SIGKILL and SIGTERM of the real nodes while they write: old or new, whole, no process left, and a restart goes on."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from observer import stopped, wait_for

pytest.importorskip("rclpy", reason="rclpy is not installed")

from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from std_msgs.msg import String
from std_srvs.srv import Trigger

from foundry_core.card import Training, load_card
from foundry_core.runtime.teach import Ordinary, TaughtClasses

PATIENCE = 120.0  # s; the machine may be busy
TRIES = 200  # saves until one is seen while it is written
ENDINGS = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])


def unfinished(folder: Path, name: str) -> list[str]:
    """Temporary names beside ``folder``/``name`` under which something is being written."""
    return [found for found in os.listdir(folder) if found.startswith(f".{name}.")]


def strike(ros, process, service: str, target: Path, number: int) -> None:
    """Call the service again and again, and send the node the signal as soon as ``target`` is being written."""
    client = ros.node.create_client(Trigger, service)
    assert client.wait_for_service(PATIENCE), f"no service {service}"
    for _ in range(TRIES):
        answered = threading.Event()
        client.call_async(Trigger.Request()).add_done_callback(lambda _: answered.set())  # noqa: B023
        deadline = time.monotonic() + PATIENCE
        while not answered.is_set() and time.monotonic() < deadline:
            if unfinished(target.parent, target.name):
                process.process.send_signal(number)
                assert process.process.wait(PATIENCE) == (-number if number == signal.SIGKILL else 0)
                return
    raise AssertionError(f"{service}: never seen while it wrote")


@pytest.fixture
def newcomer(domain):
    """Makes an observer that has not met the killed node: others send their requests to it until its lease is over."""
    from observer import Ros

    made = []

    def make() -> Ros:
        made.append(Ros(domain))
        return made[-1]

    yield make
    for observer in made:
        observer.close()


@pytest.mark.slow
@ENDINGS
def test_perception_node_ends_while_it_writes_the_teach_file(ros, newcomer, tiny_model, tmp_path, number):
    file, rng = tmp_path / "taught.npz", np.random.default_rng(0)
    taught = TaughtClasses(load_card(tiny_model))
    for _ in range(300):  # some hundred kilobytes: the write takes a while
        taught.add("disc", rng.normal(size=12), 0.5)
    taught.set_ordinary(Ordinary(rng.normal(size=(2000, 12)), np.arange(2000) % 2, np.full(2000, 0.9)))
    taught.save(file)
    parameters = {"model": str(tiny_model), "teach_file": str(file)}
    with ros.start("perception_node", parameters) as process:
        strike(ros, process, "/perception_node/teach/save", file, number)
    assert len(TaughtClasses.load(file, taught.card)) == 300
    if number == signal.SIGTERM:
        assert not unfinished(tmp_path, file.name)
    latched, ros = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL), newcomer()
    labels = ros.collect(String, "/perception_node/labels", latched)
    with ros.start("perception_node", parameters) as process:
        wait_for(lambda: labels, PATIENCE, "labels")
        assert json.loads(labels[-1].data)["classes"]["2"] == "disc"
        assert os.listdir(tmp_path) == [file.name], "what the killed node left"
        assert ros.call(Trigger, "/perception_node/teach/save", Trigger.Request(), again=2.0).success
        assert process.stop() == 0
    assert os.listdir(tmp_path) == [file.name]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    pytest.importorskip("torch", reason="training needs torch")
    from trainer_node import write_teacher

    return write_teacher(tmp_path_factory.mktemp("teacher") / "tiny-teacher")


@pytest.fixture
def settings(teacher, tmp_path) -> dict:
    from trainer_node import write_config

    np.savez(tmp_path / "shapes.npz", points=np.random.default_rng(0).normal(size=(8, 64, 3)).astype(np.float16))
    config = write_config(tmp_path / "config.yaml", steps=10_000_000, checkpoint_seconds=1e-3, log_steps=1)
    return {
        "config": str(config), "teacher": str(teacher), "out": str(tmp_path / "run"), "diagnostics_period": 0.2,
        "data": str(tmp_path / "shapes.npz"), "autostart": False,
    }  # fmt: skip


@ENDINGS
def test_distill_trainer_ends_while_it_saves(ros, newcomer, settings, tmp_path, number):
    from trainer_node import write_teacher

    run, contents = tmp_path / "run", [letter * 30_000_000 for letter in (b"a", b"b")]
    record = Training(task="distill", data=[], seed=0, steps=7, batch=4, minutes=1.0, config="config.yaml")
    model = write_teacher(run / "tiny-student", training=[record])  # as a training leaves it
    (model / "notes.bin").write_bytes(contents[0])
    with ros.start("distill_trainer", settings) as process:
        assert ros.call(Trigger, "/distill_trainer/save", Trigger.Request(), PATIENCE, again=20.0).success
        (model / "notes.bin").write_bytes(contents[1])
        strike(ros, process, "/distill_trainer/save", run / "saved", number)
    load_card(run / "saved")  # hashes included
    assert (run / "saved" / "notes.bin").read_bytes() in contents
    if number == signal.SIGTERM:
        assert not unfinished(run, "saved")
    ros = newcomer()
    with ros.start("distill_trainer", settings) as process:
        answer = ros.call(Trigger, "/distill_trainer/save", Trigger.Request(), PATIENCE, again=20.0)
        assert answer.success, answer.message
        assert process.stop(PATIENCE) == 0
    assert (run / "saved" / "notes.bin").read_bytes() == contents[1]
    assert sorted(os.listdir(run)) == ["saved", "tiny-student"], "what the killed node left"


@pytest.mark.slow
@ENDINGS
@pytest.mark.parametrize("victim", ["node", "training"])
def test_a_checkpoint_survives_the_end_of_node_or_training_while_it_is_written(
    ros, newcomer, settings, tmp_path, victim, number
):
    from trainer_node import Trainer

    run, trainer = tmp_path / "run", Trainer(ros)
    with ros.start("distill_trainer", settings) as process:
        trainer.wait(lambda f: f["state"] == "ready", "ready")
        assert trainer.call("start").success
        pid = int(trainer.wait(lambda f: f["state"] == "training" and int(f.get("step", 0)) > 0, "progress")["pid"])
        wait_for(lambda: (run / "checkpoint.pt").is_file(), PATIENCE, "a checkpoint")
        deadline = time.monotonic() + PATIENCE
        while not unfinished(run, "checkpoint.pt"):
            assert time.monotonic() < deadline, "never seen while it wrote"
        if victim == "training":
            os.kill(pid, number)
            figures = trainer.wait(lambda f: f["state"] == "failed", "the failure")
            step = saved_step(run)
            assert figures["checkpoint"] == "True" and step > 0
            resumed = trainer.call("start")
            assert resumed.success and "goes on from its checkpoint" in resumed.message, resumed.message
            _goes_on_and_ends(trainer, process, run, step)
            return
        process.process.send_signal(number)
        process.process.wait(PATIENCE)
        wait_for(lambda: stopped(pid), PATIENCE, "the end of the training")
    step = saved_step(run)
    assert step > 0
    ros = newcomer()
    trainer = Trainer(ros)
    with ros.start("distill_trainer", settings) as process:
        trainer.wait(lambda f: f["state"] == "ready", "ready")
        resumed = trainer.call("start")
        assert resumed.success and "goes on from its checkpoint" in resumed.message, resumed.message
        _goes_on_and_ends(trainer, process, run, step)


def saved_step(run: Path) -> int:
    import torch

    return torch.load(run / "checkpoint.pt", weights_only=True)["step"]


def _goes_on_and_ends(trainer, process, run: Path, step: int) -> None:
    """It trains beyond the step of the checkpoint, ends with the node, and leaves no torn file."""
    wait_for(lambda: saved_step(run) > step, PATIENCE, "more steps")  # the log still has rows of before
    pid = int(trainer.fresh()["pid"])
    assert process.stop(PATIENCE) == 0
    assert stopped(pid)
    assert not [name for name in os.listdir(run) if name.startswith(".")]
    rows = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert rows == sorted(set(rows)) and rows[-1] > step
