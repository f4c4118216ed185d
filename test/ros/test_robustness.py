# SPDX-License-Identifier: Apache-2.0
"""What a robot does to a node: every driver's layout, publishers that come and go, floods, changes at run time."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from observer import wait_for

pytest.importorskip("rclpy", reason="rclpy is not installed")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped
from rcl_interfaces.srv import DescribeParameters
from rclpy.qos import QoSReliabilityPolicy
from rclpy.serialization import serialize_message
from segments import left_behind, own_segments
from sensor_msgs.msg import PointCloud2, PointField
from station import Station, cloud, diagnostics, set_parameter
from street_scene import street

from foundry_core.records import OBJECT
from foundry_ros import messages


def status(station: Station) -> tuple[bytes, str]:
    newest = [message.status[0] for message in list(station.diagnostics)][-1]
    return newest.level, newest.message


def reshaped(stamp_ns: int, kind: np.dtype, height: int = 1, row_padding: int = 0, row_step: int | None = None):
    """The street in another layout; what does not fill the last row is left out."""
    points = street()
    points = points[: len(points) // height * height]
    table = np.zeros(len(points), kind)
    for axis, column in zip("xyz", points.T):
        table[axis] = column
    rows = [row.tobytes() + b"\xaa" * row_padding for row in table.reshape(height, -1)]
    message = cloud(points[:1], stamp_ns)
    codes = {"f4": 7, "f8": 8, "u2": 4}
    message.fields = [
        PointField(name=name, offset=offset, datatype=codes[form.str[1:]], count=1)
        for name, (form, offset) in kind.fields.items()
    ]
    message.is_bigendian = kind["x"].str[0] == ">"
    message.height, message.width, message.point_step = height, len(points) // height, kind.itemsize
    message.row_step = len(rows[0]) if row_step is None else row_step
    message.data = b"".join(rows)
    return message


def test_layouts_changes_at_run_time_and_damaged_clicks(ros, tiny_model):
    parameters = {"model": str(tiny_model), "diagnostics_period": 0.2, "teach_label": "crate"}
    parameters["qos_overrides./points.subscription.reliability"] = "reliable"
    with ros.start("perception_node", parameters, {"~/input": "/points"}) as process:
        running = Station(ros).connect()
        (endpoint,) = ros.node.get_subscriptions_info_by_topic("/points")
        assert endpoint.qos_profile.reliability == QoSReliabilityPolicy.RELIABLE

        packed = np.dtype([(axis, "<f4") for axis in "xyz"])
        padded = np.dtype({"names": ["ring", "z", "y", "x"], "formats": ["<u2", "<f4", "<f4", "<f4"],
                           "offsets": [1, 5, 12, 20], "itemsize": 40})  # fmt: skip
        layouts = [
            reshaped(1, np.dtype([(axis, ">f4") for axis in "xyz"])),
            reshaped(2, np.dtype([(axis, "<f8") for axis in "zyx"])),
            reshaped(3, padded, height=4, row_padding=9),
            reshaped(4, packed, height=4, row_step=0),
        ]
        wanted = np.sort(messages.read_records(running.ask(cloud(street(), 5)), OBJECT, "objects")["class_id"])
        assert len(wanted) >= 2
        for layout in layouts:
            found = messages.read_records(running.ask(layout), OBJECT, "objects")
            np.testing.assert_array_equal(np.sort(found["class_id"]), wanted)
        running.figure("repaired", 1)

        # changes at run time are judged, and applied to the next frame
        assert not set_parameter(ros, "budget", 3).successful
        assert not set_parameter(ros, "scene.voxel", -1.0).successful
        assert "clean up" in set_parameter(ros, "tracks.memory", 0.5).reason
        assert set_parameter(ros, "budget", 1).successful
        running.ask(cloud(street(), 10))
        wait_for(lambda: int(diagnostics(running.diagnostics).get("objects_at_budget.1", 0)) >= 2, what="the budget")
        assert diagnostics(running.diagnostics)["budget"] == "1"
        assert not set_parameter(ros, "scene.crop.x_min", 100.0).successful  # no box any more
        assert "read-only" in set_parameter(ros, "autostart", "no").reason

        # a click that is none, as raw bytes: the middleware cannot deserialise it, and the node goes on
        click = ros.node.create_publisher(PointStamped, "/clicked_point", 10)
        wait_for(lambda: click.get_subscription_count())
        good = bytes(serialize_message(PointStamped()))
        for damaged in (good[:9], b"\0\1\0\0" + b"\xff" * 20, good[:12] + b"\xff\xff\xff\x7f" + good[16:]):
            click.publish(damaged)
        click.publish(PointStamped())
        wait_for(lambda: int(diagnostics(running.diagnostics)["clicks_refused"]) >= 1, what="the good click")
        assert running.ask(cloud(street(), 11)).width >= 2
        assert process.stop() == 0


def test_parameters_describe_themselves(ros, tiny_model):
    with ros.start("perception_node", {"model": str(tiny_model), "autostart": False}):
        names = ["threads", "marker_lifetime", "autostart", "model", "teach_label", "scene.max_points"]
        request = DescribeParameters.Request(names=names)
        answer = ros.call(DescribeParameters, "/perception_node/describe_parameters", request, again=2.0)
        found = dict(zip(names, answer.descriptors))
        assert all(len(item.description) > 10 for item in found.values())
        (threads,), (lifetime,) = found["threads"].integer_range, found["marker_lifetime"].floating_point_range
        assert (threads.from_value, threads.to_value) == (1, 256)
        assert (lifetime.from_value, lifetime.to_value) == (0.0, 60.0)
        assert found["autostart"].read_only and not found["model"].read_only
        assert found["model"].additional_constraints.startswith("fixed")
        assert found["teach_label"].additional_constraints == "may change at any time"


def test_publishers_come_and_go_and_floods_are_told(ros, tiny_model):
    """Nobody listens, nobody publishes, one publisher, two, a flood, none, one again."""
    parameters = {"model": str(tiny_model), "diagnostics_period": 0.2, "health.stale_s": 1.0, "health.lost_s": 4.0}
    qos = "qos_overrides./points.subscription."
    parameters |= {qos + "reliability": "reliable", qos + "depth": 200}
    told = ros.collect(DiagnosticArray, "/diagnostics")
    with ros.start("perception_node", parameters, {"~/input": "/points"}) as process:
        wait_for(lambda: diagnostics(told), what="the node")
        idle = [message.status[0] for message in told][-1]
        assert idle.level == b"\0" and "nobody listens" in idle.message
        assert ros.node.count_subscribers("/points") == 0
        station = Station(ros, depth=200).connect()
        wait_for(lambda: status(station)[0] == b"\2", what="an error for the silence")
        assert "no cloud on /points" in status(station)[1]
        assert station.ask(cloud(street(), 10**9)).width >= 2
        wait_for(lambda: status(station) == (b"\0", "ok"), what="ok")

        second = ros.node.create_publisher(PointCloud2, "/points", 5)
        station.figure("input_publishers", 2)
        second.publish(cloud(street(1), 2 * 10**9))
        station.ask(cloud(street(), 3 * 10**9))
        wait_for(
            lambda: any("2 publishers" in m.status[0].message for m in list(station.diagnostics)), what="a warning"
        )
        ros.node.destroy_publisher(second)
        station.figure("input_publishers", 1)

        before = int(diagnostics(station.diagnostics)["received"])
        for number in range(100):
            station.publisher.publish(cloud(street(), 10**10 + number))
        newest = cloud(street(), 10**10 + 100).header.stamp
        station.publisher.publish(cloud(street(), 10**10 + 100))
        wait_for(lambda: any(m.header.stamp == newest for m in list(station.objects)), what="the newest of the flood")
        station.figure("received", before + 101)
        accounted = lambda figures: int(figures["processed"]) + int(figures["dropped"]) == before + 101  # noqa: E731
        wait_for(lambda: accounted(diagnostics(station.diagnostics)), what="every cloud to be processed or dropped")
        assert int(diagnostics(station.diagnostics)["dropped"]) > 0
        statuses = [m.status[0] for m in list(station.diagnostics)]
        assert any("old frames dropped" in item.message and item.level == b"\1" for item in statuses)
        stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in station.objects]
        assert stamps == sorted(stamps)

        ros.node.destroy_publisher(station.publisher)
        station.figure("input_publishers", 0)
        wait_for(lambda: status(station)[0] == b"\2", what="an error for the silence")
        station.publisher = ros.node.create_publisher(PointCloud2, "/points", 5)
        station.figure("input_publishers", 1)
        assert station.ask(cloud(street(), 10**11)).width >= 2
        assert process.stop() == 0


def crowded(boxes: int, seed: int = 0) -> np.ndarray:
    """So many boxes on flat ground."""
    one = street(seed)
    ground, box = one[one[:, 2] < -1.5], one[(np.abs(one[:, 1] - 3) < 1) & (one[:, 2] > -1.5)] - [8, 3, 0]
    places = [(4.0 + 3 * (k % 5), 3.0 * (k // 5) - 9.0, 0.0) for k in range(boxes)]
    return np.concatenate([ground, *(box + place for place in places)]).astype(np.float32)


def test_it_keeps_up_with_a_sensor_that_is_too_fast_to_look_at_everything(ros):
    """30 boxes take several times the 25 ms between clouds on any machine, the ground and the clusters do not."""
    parameters = {"model": "foundry-edge", "diagnostics_period": 0.2}
    with ros.start("perception_node", parameters, {"~/input": "/points"}) as process:
        running = Station(ros).connect()
        running.ask(cloud(crowded(30), 1))
        figures = wait_for(lambda: diagnostics(running.diagnostics), what="figures")
        assert "keep_up_ms" not in figures and "objects_without_time" not in figures
        for number in range(40):
            running.publisher.publish(cloud(crowded(30), 10**9 + 25 * 10**6 * number))
            time.sleep(0.025)
        figures = wait_for(lambda: (found := diagnostics(running.diagnostics)).get("keep_up_ms") and found, what="pace")
        assert float(figures["keep_up_ms"]) > 0
        assert int(figures["objects_without_time"]) > 0
        assert set_parameter(ros, "keep_up", False).successful
        answer = messages.read_records(running.ask(cloud(crowded(30), 10**10)), OBJECT, "objects")
        assert len(answer) == 30 and (answer["probability"] > 0).all()
        wait_for(lambda: "keep_up_ms" not in diagnostics(running.diagnostics), what="no pace")
        assert process.stop() == 0


TF2 = '''
from geometry_msgs.msg import TransformStamped
class TransformListener:
    def __init__(self, buffer, node): pass
    def unregister(self): pass
class Buffer:
    """A quarter turn to the left and 10 m along x; there is no other frame than lidar, and time never steps back."""
    def lookup_transform(self, target, source, stamp, timeout):
        if source != "lidar":
            raise RuntimeError(f"no such frame: {source}")
        found = TransformStamped()
        found.transform.rotation.z = found.transform.rotation.w = 2 ** -0.5
        found.transform.translation.x = 10.0
        return found
'''


@pytest.mark.parametrize("installed", [True, False])
def test_target_frame(ros, tiny_model, tmp_path, monkeypatch, installed):
    """With tf2 points and frame_id change; without it one warning, and nothing does. (Here tf2 is a stand-in.)"""
    if installed:
        (tmp_path / "tf2_ros.py").write_text(TF2)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    elif __import__("importlib.util").util.find_spec("tf2_ros"):
        pytest.skip("tf2_ros is installed")
    parameters = {"model": str(tiny_model), "diagnostics_period": 0.2, "target_frame": "base_link"}
    with ros.start("perception_node", parameters, {"~/input": "/points"}) as process:
        running = Station(ros).connect()
        answer = running.ask(cloud(street(), 1))
        objects = messages.read_records(answer, OBJECT, "objects")
        box = (10 - 3, 8) if installed else (8, 3)  # (8, 3) turned is (-3, 8)
        assert answer.header.frame_id == ("base_link" if installed else "lidar")
        assert np.hypot(objects["x"] - box[0], objects["y"] - box[1]).min() < 0.3
        if installed:
            running.publisher.publish(cloud(street(), 2, frame="moon"))
            running.figure("rejected.transform", 1)
        assert process.stop() == 0
    if not installed:
        assert sum("tf2_ros is not installed" in line for line in process._tail) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_at_any_moment_leaves_nothing_behind(ros, tiny_model, number):
    """While it loads its model, while it works, and twice in a row: no traceback, no segment in /dev/shm."""
    own: set[str] = set()
    moments = np.random.default_rng(int(number)).uniform(0.0, 3.0, 2)
    for moment in moments:
        parameters = {"model": str(tiny_model), "diagnostics_period": 0.2}
        with ros.start("perception_node", parameters, {"~/input": "/points"}) as process:
            station = Station(ros)
            wait_for(
                lambda: "perception_node" in ros.node.get_node_names(), what="the node"
            )  # its modules are imported
            if moment == moments[-1]:
                station.connect()
            end = time.monotonic() + moment
            while time.monotonic() < end:
                station.publisher.publish(cloud(street(), time.monotonic_ns()))
                time.sleep(0.05)
            own |= own_segments(process.process.pid)
            process.process.send_signal(number)
            time.sleep(0.05)
            if process.running():
                process.process.send_signal(signal.SIGINT)
            code = process.process.wait(60)
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0), list(process._tail)
        assert not any("Traceback" in line for line in process._tail)
    assert own and left_behind(own) == []
