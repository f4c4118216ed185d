# SPDX-License-Identifier: Apache-2.0
"""`foundry replay` and `foundry up` from the outside: real processes, real DDS."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from observer import stopped
from street_scene import BOX, POLE, street
from tiny_model import write_tiny_model

from foundry_core import pointcloud2
from foundry_core.data.bag_writer import write_bag
from foundry_core.data.bags import POINT_CLOUD, message_class
from foundry_core.records import read_labels, read_results

ROOT = Path(__file__).resolve().parents[2]
FRAMES, START_NS = 12, 1_700_000_000_000_000_000
KEYS = {
    "frames_sent", "frames_processed", "frames_dropped", "latency_ms", "phases_ms", "objects_per_frame", "model",
    "budget", "rate", "counts", "frames_per_s", "timeline",
}  # fmt: skip


def write_street_bag(path: Path, frames: int = FRAMES, copies: int = 1, topic: str = "/lidar/points") -> Path:
    """A 10 Hz recording of the street; ``copies`` makes the clouds larger."""
    header, stamp = message_class("std_msgs/msg/Header"), message_class("builtin_interfaces/msg/Time")
    field, cloud = message_class("sensor_msgs/msg/PointField"), message_class(POINT_CLOUD)
    with write_bag(path) as bag:
        bag.add_topic(topic, POINT_CLOUD)
        for number in range(frames):
            points = np.tile(street(number), (copies, 1))
            packed = pointcloud2.encode({axis: points[:, k] for k, axis in enumerate("xyz")})
            now = START_NS + number * 100_000_000
            message = cloud(
                header(stamp(now // 10**9, now % 10**9), "lidar"), packed.height, packed.width,
                [field(*item) for item in packed.fields], packed.is_bigendian, packed.point_step, packed.row_step,
                np.asarray(packed.data, np.uint8).reshape(-1), True,
            )  # fmt: skip
            bag.write(topic, now, message)
    return path


@pytest.fixture(scope="module")
def street_bag(tmp_path_factory) -> Path:
    return write_street_bag(tmp_path_factory.mktemp("bags") / "street")


@pytest.fixture
def model(tiny_model) -> Path:
    return tiny_model


def environment() -> dict[str, str]:
    path = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def foundry(*arguments, timeout: float = 120.0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "foundry_core.cli.main", *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout, cwd=ROOT)


def children_of(name: str) -> list[str]:
    """Command lines of running processes that contain ``name``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if name in line:
            found.append(line)
    return found


def test_lock_step_processes_every_frame(street_bag, model, tmp_path):
    report_file, results, picture = tmp_path / "report.json", tmp_path / "results.npz", tmp_path / "street.png"
    ended = foundry(
        "replay", street_bag, "--model", model, "--json", report_file, "--results", results, "--picture", picture
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(report_file.read_text())
    assert set(report) == KEYS
    assert (report["frames_sent"], report["frames_processed"], report["frames_dropped"]) == (FRAMES, FRAMES, 0)
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p95"] <= report["latency_ms"]["max"] < 10_000
    assert report["model"] == "tiny" and report["rate"] == 0
    assert {"decode", "publish"} < set(report["phases_ms"])
    assert sum(report["phases_ms"].values()) < report["latency_ms"]["max"] + 200

    frames = list(read_results(results))
    assert [frame.stamp_ns for frame in frames] == [START_NS + k * 100_000_000 for k in range(FRAMES)]
    names = json.loads(read_labels(results))["classes"]
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(np.stack([frame.parts[axis] for axis in "xyz"], axis=1), street(number))
        near = {
            name: [names[str(row["class_id"])] for row in frame.objects if np.hypot(row["x"] - x, row["y"] - y) < 0.3]
            for name, (x, y) in {"box": BOX, "pole": POLE}.items()
        }
        assert near == {"box": ["box"], "pole": ["pole"]}
    assert report["objects_per_frame"] == pytest.approx(np.mean([len(frame.objects) for frame in frames]), abs=1e-3)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert f"{FRAMES} processed" in ended.stdout
    assert not children_of(str(street_bag)), "a node was left running"


def test_lock_step_can_be_repeated(street_bag, model, tmp_path):
    for name in ("a", "b"):
        assert foundry("replay", street_bag, "--model", model, "--results", tmp_path / f"{name}.npz").returncode == 0
    for first, second in zip(read_results(tmp_path / "a.npz"), read_results(tmp_path / "b.npz"), strict=True):
        np.testing.assert_array_equal(first.objects, second.objects)
        np.testing.assert_array_equal(first.parts, second.parts)


def test_throughput_in_loops_with_the_clock_and_a_plot(street_bag, model, tmp_path):
    report_file, plot = tmp_path / "report.json", tmp_path / "plot.png"
    options = ("--fast", "--loop", 2, "--start", 0.05, "--duration", 0.42, "--clock", "--plot", plot)
    ended = foundry("replay", street_bag, "--model", model, "--json", report_file, *options)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(report_file.read_text())
    sent = report["frames_sent"]
    assert sent == 2 * 4 == len(report["timeline"]["sent_s"])
    counts = report["counts"]
    assert counts["sent"] == sent == counts["received"] + counts["lost_on_the_way"]
    assert counts["received"] == counts["processed"] + counts["dropped"] + counts["rejected"] + counts["skipped"]
    assert counts["processed"] == report["frames_processed"] + counts["answers_lost"] > 0
    assert report["frames_per_s"] > 0 and plot.read_bytes()[:4] == b"\x89PNG"


def test_the_node_draws_itself_and_refuses_files_that_it_cannot_write(street_bag, model, tmp_path):
    from foundry_core.errors import InputError
    from foundry_ros.cli.ros import run_replay
    from foundry_ros.processes import NodeProcess, local_environment

    plot = tmp_path / "plot.png"
    assert run_replay(street_bag, model=str(model), duration=0.25, plot=str(plot))["frames_sent"] == 3
    assert plot.read_bytes()[:4] == b"\x89PNG"
    for name, path, complaint in (
        ("plot", "plot.jpg", "ends in .png"),
        ("report", tmp_path, "is a folder; give a file to report"),
        ("results", "/dev/null/r.npz", "cannot be written"),
    ):
        play = {"bag": str(street_bag), name: str(path)}
        with NodeProcess("bag_replay", play, local_environment(99)) as player:
            assert player.process.wait(60) == 2
            with pytest.raises(InputError, match=complaint):
                player.check()


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


@pytest.mark.parametrize("rate", [1.0, 4.0])
def test_timing_of_the_recording(street_bag, model, tmp_path, rate):
    report_file, results = tmp_path / "report.json", tmp_path / "r.npz"
    ended = foundry("replay", street_bag, "--model", model, "--rate", rate, "--json", report_file, "--results", results)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(report_file.read_text())
    assert report["frames_sent"] == FRAMES and report["rate"] == rate
    assert report["frames_processed"] + report["frames_dropped"] == FRAMES
    assert report["frames_processed"] >= 1  # how many depends on the machine; who lost the others does not
    counts = report["counts"]
    assert counts["sent"] == FRAMES == counts["received"] + counts["lost_on_the_way"]
    assert counts["received"] == counts["processed"] + counts["dropped"] + counts["rejected"] + counts["skipped"]
    assert counts["processed"] == report["frames_processed"] + counts["answers_lost"]
    stamps = [frame.stamp_ns for frame in read_results(results)]
    assert len(stamps) == report["frames_processed"] and stamps == sorted(set(stamps))


def test_what_the_node_cannot_keep_up_with_is_counted(model, tmp_path):
    bag = write_street_bag(tmp_path / "large", frames=30, copies=10)
    report_file = tmp_path / "report.json"
    ended = foundry("replay", bag, "--model", model, "--rate", 100, "--json", report_file)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(report_file.read_text())
    assert report["frames_sent"] == 30
    assert report["frames_dropped"] > 0
    assert report["frames_processed"] + report["frames_dropped"] == 30


def test_bad_input_is_one_line_and_exit_code_2(street_bag, model, tmp_path):
    typo = tmp_path / "typo.yaml"
    typo.write_text("perception_node:\n  ros__parameters:\n    modle: x\n")
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
    command = [sys.executable, "-m", "foundry_core.cli.main", "replay", str(bag), "--model", str(model), "--rate", "1"]
    process = subprocess.Popen(
        command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    nodes = _children(process.pid, 2)
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode not in (0, None)
    assert all(map(stopped, nodes))


def test_a_crashed_node_is_reported(model, tmp_path):
    bag = write_street_bag(tmp_path / "long", frames=100)
    command = [sys.executable, "-m", "foundry_core.cli.main", "replay", str(bag), "--model", str(model), "--rate", "1"]
    process = subprocess.Popen(command, env=environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    nodes = _children(process.pid, 2)
    perception = next(pid for pid in nodes if b"perception_node" in Path(f"/proc/{pid}/cmdline").read_bytes())
    time.sleep(2.0)
    os.kill(perception, signal.SIGKILL)
    _, text = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "perception_node ended with signal SIGKILL" in text and "Traceback" not in text
    assert all(map(stopped, nodes))


def test_up_runs_until_ctrl_c(model):
    import rclpy
    from lifecycle_msgs.srv import GetState
    from sensor_msgs.msg import PointCloud2

    from foundry_ros.processes import Domain

    with Domain() as domain:
        env = {**environment(), "ROS_DOMAIN_ID": str(domain.number)}
        command = [sys.executable, "-m", "foundry_core.cli.main", "up", "--model", str(model), "--input", "/street"]
        process = subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        nodes = _children(process.pid, 1)
        context = rclpy.Context()
        rclpy.init(args=[], context=context, domain_id=domain.number)
        node = rclpy.create_node("observer", context=context)
        try:
            node.create_subscription(PointCloud2, "/perception_node/objects", print, 1)  # then the node listens too
            deadline = time.monotonic() + 60
            while not node.count_subscribers("/street") and time.monotonic() < deadline:
                time.sleep(0.1)
            assert node.count_subscribers("/street") == 1
            assert node.create_client(GetState, "/perception_node/get_state").wait_for_service(10)
        finally:
            node.destroy_node()
            context.try_shutdown()
            for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):  # an impatient user
                process.send_signal(number)
                time.sleep(0.1)
            try:
                _, text = process.communicate(timeout=20)
            finally:
                for pid in (*nodes, process.pid):  # leave nothing behind that would answer another test
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        assert process.returncode == 0, text
        assert "Traceback" not in text
        assert all(map(stopped, nodes))


def test_up_refuses_what_it_cannot_use(tmp_path):
    typo = tmp_path / "typo.yaml"
    typo.write_text("perception_node:\n  ros__parameters:\n    scene:\n      nothing: 1\n")
    ended = foundry("up", "--params", typo)
    assert ended.returncode == 2 and "scene.nothing: unknown key" in ended.stderr


def _children(parent: int, count: int, timeout: float = 60.0) -> list[int]:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                if int(entry.read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(entry.parent.name))
            except OSError:
                continue
        if len(found) == count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{count} child processes did not appear")
