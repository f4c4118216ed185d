# SPDX-License-Identifier: Apache-2.0
"""The pace on a simulated machine: a worker that takes the newest cloud, and sources of clouds."""

import math

import pytest

from foundry_core.runtime.pace import Pace

FIND, OBJECT, PUBLISH = 0.040, 0.005, 0.008  # s
BATCH = 4


class Machine:
    """Runs clouds of ``objects`` objects past a :class:`Pace`, as the node does.

    Attributes:
        latency: seconds from arrival to answer of each cloud; None: dropped.
        seen: objects that were looked at in each answered cloud.
    """

    def __init__(self, objects: int):
        self.pace, self.objects, self.now = Pace(), objects, 0.0
        self.latency: list[float | None] = []
        self.seen: list[int] = []

    def _hear(self, arrivals: list[float], waiting: list[int]) -> None:
        while len(self.latency) < len(arrivals) and arrivals[len(self.latency)] <= self.now:
            self.pace.arrived(arrivals[len(self.latency)])
            waiting[:] = [len(self.latency)]
            self.latency.append(None)

    def sensor(self, period: float, count: int, begin: float = 0.0) -> None:
        """Clouds that come whether or not the one before is answered."""
        arrivals = [*([0.0] * len(self.latency)), *(begin + period * number for number in range(count))]
        waiting: list[int] = []
        self.now = max(self.now, begin)
        while True:
            self._hear(arrivals, waiting)
            if waiting:
                number = waiting.pop()
                self._answer(arrivals[number], lambda: self._hear(arrivals, waiting))
                self.latency[number] = self.now + PUBLISH - arrivals[number]
                self.now += PUBLISH
            elif len(self.latency) < len(arrivals):
                self.now = arrivals[len(self.latency)]
            else:
                return

    def source(self, count: int, in_flight: int, delay: float = 0.003) -> None:
        """Clouds that are sent when an earlier one was answered, so many ahead."""
        sent = [self.now] * in_flight
        for arrival in sent:
            self.pace.arrived(arrival)
        for _ in range(count):
            arrival = sent.pop(0)
            heard = not sent or sent[-1] <= self.now

            def hear():
                nonlocal heard
                if not heard and sent[-1] <= self.now:
                    self.pace.arrived(sent[-1])
                    heard = True

            self.now = max(self.now, arrival)
            self._answer(arrival, hear)
            hear()
            sent.append(self.now + delay)
            if in_flight == 1:
                self.now = sent[0]
                self.pace.arrived(sent[0])
            self.latency.append(0.0)

    def _answer(self, arrival: float, hear) -> None:
        self.pace.begun(self.now)
        self.now += FIND
        hear()
        seen = 0
        while seen < self.objects and (not seen or self.now < arrival + self.pace.allowance):
            batch = min(BATCH, self.objects - seen)
            self.now += OBJECT * batch
            seen += batch
            hear()
        self.pace.answered(seen == self.objects)
        self.seen.append(seen)


@pytest.mark.parametrize("period", [0.1, 0.2])
def test_a_slow_machine_keeps_up_from_the_first_cloud_on(period):
    machine = Machine(objects=60)  # 348 ms
    machine.sensor(period, 200)
    assert None not in machine.latency
    assert sum(latency > period for latency in machine.latency) <= 1, "but for the first"
    assert 0 < min(machine.seen) < max(machine.seen) <= 60


def test_a_fast_machine_is_never_hurried():
    machine = Machine(objects=8)  # 88 ms
    machine.sensor(0.1, 50)
    assert machine.seen == [8] * 50 and machine.pace.allowance == math.inf


@pytest.mark.parametrize("in_flight", [1, 2])
def test_a_source_that_waits_for_answers_is_never_hurried(in_flight):
    machine = Machine(objects=60)
    machine.source(50, in_flight)
    assert machine.seen == [60] * 50 and machine.pace.allowance == math.inf


def test_what_comes_too_fast_for_any_answer_is_dropped_and_the_others_are_soon_answered():
    machine = Machine(objects=60)
    machine.sensor(0.01, 500)
    answered = [latency for latency in machine.latency if latency is not None]
    assert machine.latency.count(None) > 300 and len(answered) > 60
    assert max(answered[1:]) < 2 * (FIND + OBJECT * BATCH + PUBLISH)
    assert machine.pace.allowance == Pace.SHORTEST


def test_after_a_calm_time_and_after_a_silence_there_is_no_hurry():
    machine = Machine(objects=60)
    machine.sensor(0.1, 20)
    assert machine.pace.allowance == pytest.approx(0.07)
    machine.objects = 2
    machine.sensor(0.1, Pace.CALM - 1, begin=2.0)
    assert math.isfinite(machine.pace.allowance)
    machine.sensor(0.1, 1, begin=machine.now + 0.05)
    assert machine.pace.allowance == math.inf

    machine.objects = 60
    machine.sensor(0.1, 20, begin=20.0)
    assert math.isfinite(machine.pace.allowance)
    machine.pace.arrived(machine.now + 5.0)
    assert machine.pace.allowance == math.inf
    machine.pace.clear()
    assert machine.pace.allowance == math.inf
