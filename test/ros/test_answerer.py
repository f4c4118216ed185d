# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from foundry_ros import answerer


def waiting_for(monkeypatch, *states: str) -> answerer.Answerer:
    """A node that says one state after the other, each after 0.2 s; the last one for ever."""
    found = answerer.Answerer.__new__(answerer.Answerer)
    found.name, found.change, found._processes = "perception_node", threading.Condition(), set()
    found.diagnostics = {"input_publishers": "1"}
    found._clouds = SimpleNamespace(get_subscription_count=lambda: 1, topic_name="/points")
    found._player = SimpleNamespace(subscriptions=[], count_publishers=lambda _: 1)
    said = iter(states)

    def state(_: float) -> str:
        time.sleep(0.2)
        return next(said, states[-1])

    monkeypatch.setattr(found, "_state", state)
    return found


def test_a_node_that_loads_is_waited_for(monkeypatch):
    found = waiting_for(monkeypatch, *["not answering"] * 4, "inactive", "active")
    assert found.wait_until_connected(0.5) == {"input_publishers": "1"}


def test_but_not_for_ever_nor_one_that_is_not_there(monkeypatch):
    with pytest.raises(answerer.ReplayFailed, match="no connection after 0 s: 'perception_node' is not found"):
        waiting_for(monkeypatch, "not found").wait_until_connected(0.3)
    monkeypatch.setattr(answerer, "LOADING", 0.5)
    with pytest.raises(answerer.ReplayFailed, match="is not answering"):
        waiting_for(monkeypatch, "not answering").wait_until_connected(0.3)
