# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from foundry_ros.counters import Ledger, NodeStatistics, Recent
from foundry_ros.worker import LatestWorker


def test_latency_is_matched_by_stamp_in_any_order():
    ledger = Ledger()
    for number, stamp in enumerate((10, 20, 30)):
        assert ledger.sent(stamp, float(number)) == number
    ledger.answered(30, 2.5, 4)  # 0.5 s
    ledger.answered(10, 1.0, 2)  # 1.0 s
    report = ledger.report()
    assert (report["frames_sent"], report["frames_processed"], report["frames_dropped"]) == (3, 2, 1)
    assert report["latency_ms"] == {"p50": 750.0, "p95": 975.0, "max": 1000.0}
    assert report["objects_per_frame"] == 3.0


def test_equal_stamps_are_answered_in_turn():
    ledger = Ledger()
    ledger.sent(7, 0.0), ledger.sent(7, 1.0)
    ledger.answered(7, 1.5, 0)
    assert ledger.wait(0, 0) and not ledger.wait(1, 0)


def test_a_frame_that_was_overtaken_takes_no_answer_of_the_next_loop():
    ledger = Ledger()
    for number, stamp in enumerate((1, 2, 3, 1, 2, 3)):  # a bag of three, twice
        ledger.sent(stamp, float(number))
    ledger.answered(1, 2.5, 0)
    ledger.answered(3, 3.5, 0)  # 2 was dropped
    ledger.answered(2, 4.5, 0)  # so this is the second loop's
    assert ledger.timeline()["latency_ms"] == [2500.0, None, 1500.0, None, 500.0, None]
    ledger.answered(3, 5.5, 0)
    assert ledger.wait(5, 0)


def test_late_and_foreign_answers_do_not_count():
    ledger = Ledger()
    ledger.sent(1, 0.0)
    ledger.give_up(1)
    ledger.answered(1, 50.0, 1)
    ledger.answered(99, 50.0, 1)
    assert ledger.unexpected == 2
    assert ledger.report()["frames_dropped"] == 1
    assert ledger.report()["latency_ms"] == {"p50": None, "p95": None, "max": None}


def test_budgets_are_counted_per_object():
    statistics = NodeStatistics()
    statistics.processed({}, objects=3, nonfinite=0, budgets=[8, 2, 0])
    statistics.processed({}, objects=2, nonfinite=0, budgets=[8, 8])
    values, _ = statistics.values()
    assert (values["objects_at_budget.8"], values["objects_at_budget.2"], values["objects_without_time"]) == (3, 1, 1)


def test_node_statistics_report_windows_and_totals():
    statistics = NodeStatistics()
    statistics.processed({"ground": 2.0}, objects=3, nonfinite=5)
    values, recent = statistics.values()
    assert values["phase_ms.ground"] == values["phase_total_ms.ground"] == 2.0 and recent == Recent(1)
    statistics.processed({"ground": 6.0}, objects=0, nonfinite=0, latency_ms=9.0)
    statistics.reject("fields")
    values, recent = statistics.values()
    assert values["phase_ms.ground"] == 6.0 and values["phase_total_ms.ground"] == 8.0
    assert values["rejected"] == values["rejected.fields"] == 1 and recent == Recent(1, 0, 1, 9.0)
    assert values["latency_ms"] == values["latency_max_ms"] == 9.0
    assert values["nonfinite_points_dropped"] == 5
    assert statistics.values()[1] == Recent()  # nothing new


def test_worker_takes_the_newest_and_says_what_it_overtook():
    begun, go_on, done = threading.Event(), threading.Event(), []

    def work(item):
        begun.set()
        assert go_on.wait(5)
        done.append(item)

    worker = LatestWorker(work)
    assert worker.offer(1) is False
    assert begun.wait(5)
    assert worker.offer(2) is False
    assert worker.offer(3) is True  # 2 is lost
    go_on.set()
    while len(done) < 2:
        threading.Event().wait(0.01)
    assert worker.stop() == 0
    assert done == [1, 3]


@pytest.mark.parametrize("waiting", [0, 1])
def test_worker_gives_up_what_waits_when_it_is_stopped(waiting):
    begun, go_on, done = threading.Event(), threading.Event(), []

    def work(item):
        begun.set()
        assert go_on.wait(5)
        done.append(item)

    worker = LatestWorker(work)
    worker.offer("first")
    assert begun.wait(5)
    if waiting:
        worker.offer("second")
    threading.Timer(0.1, go_on.set).start()
    assert worker.stop() == waiting
    assert done == ["first"]
