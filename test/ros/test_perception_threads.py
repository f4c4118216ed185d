# SPDX-License-Identifier: Apache-2.0
"""Threads of a perception node end with what they work for; the node is in this process, and nobody spins it."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from observer import wait_for

pytest.importorskip("rclpy", reason="rclpy is not installed")

from foundry_core.card import load_card
from foundry_core.runtime.teach import TaughtClasses
from foundry_ros import teaching


@pytest.fixture
def taught_file(tiny_model, tmp_path):
    """One exemplar, and no ordinary objects: the node looks at them when it is configured."""
    taught = TaughtClasses(load_card(tiny_model))
    taught.add("hydrant", np.zeros(12), 0.5)
    taught.save(tmp_path / "taught.npz")
    return tmp_path / "taught.npz"


def looking() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ordinary objects"]


def test_ordinary_objects_are_looked_at_by_one_thread_that_ends_with_the_configuration(make, taught_file, monkeypatch):
    begun, done = [], []

    def endless(perceiver, between) -> None:
        begun.append(perceiver)
        while True:
            try:
                between()
            except BaseException:
                done.append(perceiver)
                raise
            time.sleep(0.01)

    monkeypatch.setattr(teaching, "ordinary_objects", endless)
    node = make(teach_file=str(taught_file))
    for number in range(1, 4):
        node.trigger_configure()
        wait_for(lambda number=number: len(begun) == number, what="the thread")
        node._teaching._prepare()  # as a click does
        assert len(looking()) == 1 and begun[-1] is node._perceiver
        node.trigger_cleanup()
        assert looking() == [] and len(done) == number
    node.trigger_configure()
    node.trigger_shutdown()
    assert looking() == []


def test_a_node_that_is_closed_leaves_no_thread(make, taught_file, monkeypatch):
    before = set(threading.enumerate())
    node = make(teach_file=str(taught_file))
    node.trigger_configure()
    node.trigger_activate()
    assert len(looking()) == 1
    node.close()
    assert set(threading.enumerate()) <= before


def test_what_failed_is_tried_again_with_the_next_exemplar(make, taught_file, monkeypatch):
    begun = []

    def failing(perceiver, between) -> None:
        begun.append(perceiver)
        raise ValueError("no shapes today")

    monkeypatch.setattr(teaching, "ordinary_objects", failing)
    node = make(teach_file=str(taught_file))
    node.trigger_configure()
    wait_for(lambda: begun and not looking(), what="the failure")
    node._teaching._prepare()
    wait_for(lambda: len(begun) == 2 and not looking(), what="the second failure")
