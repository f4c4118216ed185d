# SPDX-License-Identifier: Apache-2.0
"""`foundry replay` from the outside: real processes, real DDS."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from street_bag import FRAMES, KEYS, START_NS, foundry, write_street_bag
from street_scene import BOX, POLE, street

from foundry_core.data.bag_writer import write_bag
from foundry_core.data.bags import POINT_CLOUD, open_bag
from foundry_core.records import read_labels, read_results


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
    assert report["counts"]["objects"] > 0 == report["counts"]["objects_without_time"]  # who waits hurries nobody
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


def test_the_figures_do_not_wait_for_the_nodes_own_period(street_bag, model, tmp_path):
    from foundry_ros.cli.ros import run_replay
    from foundry_ros.parameters import write_parameters

    params = write_parameters("perception_node", {"diagnostics_period": 60.0}, tmp_path)
    report = run_replay(street_bag, params, str(model))
    counts = report["counts"]
    assert counts["received"] == counts["processed"] == report["frames_processed"] == FRAMES
    assert counts["lost_on_the_way"] == 0 and {"decode", "publish"} < set(report["phases_ms"])


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
    assert counts["processed"] == report["frames_processed"] + counts["answers_lost"] + counts["unexpected"] > 0
    assert counts["objects"] > 0
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


def test_a_recording_of_the_node_itself_is_played_without_what_the_node_publishes(street_bag, model, tmp_path):
    bag_path, report_file = tmp_path / "bag", tmp_path / "report.json"
    with open_bag(street_bag) as clouds, write_bag(bag_path) as bag:
        for topic in ("/lidar/points", "/points", "/perception_node/objects"):
            bag.add_topic(topic, POINT_CLOUD)
            for _, stamp_ns, data in clouds.messages(["/lidar/points"]):
                bag.write(topic, stamp_ns, data)
    options = ("--topic", "/lidar/points", "--also", "all", "--duration", 0.35)
    ended = foundry("replay", bag_path, "--model", model, "--json", report_file, *options)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(report_file.read_text())
    assert sorted(report["left_out"]) == ["/perception_node/objects", "/points"] and "not played" in ended.stdout
    counts = report["counts"]
    assert counts["received"] == counts["sent"] == 4 and counts["lost_on_the_way"] == counts["unexpected"] == 0


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
    assert counts["processed"] == report["frames_processed"] + counts["answers_lost"] + counts["unexpected"]
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
