# SPDX-License-Identifier: Apache-2.0
"""What a replay publishes, and when; without nodes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from std_msgs.msg import String

from foundry_core.data.bag_writer import write_bag
from foundry_core.data.bags import message_class, open_bag
from foundry_core.errors import InputError
from foundry_ros.counters import Ledger
from foundry_ros.parameters import ReplayParameters
from foundry_ros.schedule import beside, expected, schedule

TEXT = "std_msgs/msg/String"


@pytest.fixture(scope="module")
def bag_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "bag"
    with write_bag(path) as bag:
        for topic in ("/a", "/b"):
            bag.add_topic(topic, TEXT)
        for number in range(10):  # /a each second, /b half a second later
            bag.write("/a", number * 10**9, message_class(TEXT)(f"a{number}"))
            bag.write("/b", number * 10**9 + 5 * 10**8, message_class(TEXT)(f"b{number}"))
    return path


def played(path, topics=("/a",), **settings):
    with open_bag(path) as bag:
        settings = ReplayParameters(bag=str(path), **settings)
        found = list(schedule(bag, list(topics), settings))
        assert expected(bag, list(topics), settings) == sum(item.topic == topics[0] for item in found)
        return found


def test_all_of_a_topic_at_the_rate(bag_path):
    assert [item.due_s for item in played(bag_path)] == list(range(10))
    assert [item.due_s for item in played(bag_path, rate=2.0)] == [number / 2 for number in range(10)]
    assert {item.due_s for item in played(bag_path, rate=0.0)} == {None}


def test_a_part_begins_at_once(bag_path):
    found = played(bag_path, start=2.5, duration=3.0)
    assert [item.stamp_ns // 10**9 for item in found] == [3, 4, 5]
    assert [item.due_s for item in found] == [0.5, 1.5, 2.5]


def test_loops_follow_each_other_with_the_same_stamps(bag_path):
    found = played(bag_path, loop=3, duration=2.0)
    assert [item.stamp_ns // 10**9 for item in found] == [0, 1] * 3
    assert [item.due_s for item in found] == [0, 1, 2, 3, 4, 5]


def test_a_loop_keeps_the_period_across_its_end(bag_path):
    assert [item.due_s for item in played(bag_path, loop=2, rate=2.0)] == [number / 2 for number in range(20)]
    part = played(bag_path, loop=2, start=2.5, duration=3.0)
    assert [item.due_s for item in part] == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    both = played(bag_path, topics=("/a", "/b"), loop=2, duration=2.0)
    assert [(item.topic, item.due_s) for item in both[3:]] == [
        ("/b", 1.5), ("/a", 2.0), ("/b", 2.5), ("/a", 3.0), ("/b", 3.5)
    ]  # fmt: skip
    late = played(bag_path, topics=("/a", "/b"), loop=2, duration=1.0)  # one /a, so that its period is not known
    assert [item.due_s for item in late] == [0.0, 0.5, 0.5, 1.0]


def test_several_topics_keep_the_order_of_the_bag(bag_path):
    found = played(bag_path, topics=("/a", "/b"), duration=2.0)
    assert [(item.topic, item.due_s) for item in found] == [("/a", 0.0), ("/b", 0.5), ("/a", 1.0), ("/b", 1.5)]


def test_nothing_to_play_is_said(bag_path):
    with pytest.raises(InputError, match="nothing on /a from 50 s on"):
        played(bag_path, start=50.0)


def test_topics_beside_the_clouds(bag_path):
    def found(also: str, output: str = "/points", node: str = "/perception_node"):
        return beside(bag, also, "/a", output, node)

    with open_bag(bag_path) as bag:
        assert found("") == ({}, {})
        assert found("all") == found("/b") == found("/a, /b") == ({"/b": String}, {})
        for also in ("all", "/b"):  # nobody else may publish it
            types, left_out = found(also, output="/b")
            assert types == {} and list(left_out) == ["/b"]
        with pytest.raises(InputError, match="no topic '/c'; it has /a, /b"):
            found("/b, /c")


def test_what_the_replay_or_the_node_publishes_is_left_out_and_so_are_types_that_are_not_there():
    own = ["/points", "/robot/eyes/objects", "/clock", "/diagnostics", "/parameter_events", "/rosout"]
    others = ["/lidar/points", "/points_2", "/robot/eyes_2/objects"]
    topics = {name: SimpleNamespace(type=TEXT) for name in (*own, *others)}
    topics["/strange"] = SimpleNamespace(type="nowhere_msgs/msg/Strange")
    topics["/walk/_action/feedback"] = SimpleNamespace(type="nav_msgs/action/Walk_FeedbackMessage")
    bag = SimpleNamespace(path="bag", topics=topics)
    types, left_out = beside(bag, "all", "/lidar/points", "/points", "/robot/eyes")
    assert list(types) == ["/points_2", "/robot/eyes_2/objects"]
    assert list(left_out) == [*own, "/strange", "/walk/_action/feedback"]
    assert left_out["/strange"] == "nowhere_msgs is not installed"
    assert left_out["/walk/_action/feedback"].endswith("is of an action or a service")
    with pytest.raises(InputError, match="'/strange': nowhere_msgs is not installed"):
        beside(bag, "/strange", "/lidar/points", "/points", "/robot/eyes")


def test_an_overtaken_frame_is_not_waited_for():
    ledger = Ledger()
    first, second = ledger.sent(1, 0.0), ledger.sent(2, 0.0)
    ledger.answered(2, 0.1, 0)
    assert ledger.wait(second, 0) and not ledger.wait(first, 60)  # at once


def test_the_timeline_has_every_frame():
    ledger = Ledger()
    for number in range(3):
        ledger.sent(number, 10.0 + number)
    ledger.answered(0, 10.5, 1)
    ledger.answered(2, 14.0, 1)
    assert ledger.timeline() == {"sent_s": [0.0, 1.0, 2.0], "latency_ms": [500.0, None, 2000.0]}
    assert ledger.report()["frames_per_s"] == 0.5
