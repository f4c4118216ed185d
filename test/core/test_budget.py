# SPDX-License-Identifier: Apache-2.0
"""The budget controller on a simulated machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.runtime.budget import POINTS_PER_SUPERTOKEN, BudgetController
from foundry_core.runtime.deadline import answer_in_time, measured_cost_ms

COST = {1: 1.0, 2: 1.2, 4: 1.6, 8: 2.4, 16: 4.0}
MANY = 16 * POINTS_PER_SUPERTOKEN


class Machine:
    """A clock that only work moves; ``speed`` is how many times slower than expected the machine is."""

    def __init__(self, speed: float = 1.0, seed: int = 0):
        self.now, self.speed, self.rng = 0.0, speed, np.random.default_rng(seed)

    def answer(self, numbers: list[int], budget: int) -> list[int]:
        jitter = self.rng.uniform(0.95, 1.05)
        self.now += len(numbers) * COST[budget] * self.speed * jitter
        return numbers

    def frame(self, controller, points, deadline, batch=8, spent=0.0):
        start, self.now = self.now, self.now + spent
        answers, budgets = answer_in_time(
            controller, points, self.answer, lambda: deadline, lambda: self.now - start, max_batch=batch
        )
        return answers, budgets, self.now - start


def test_idle_time_buys_supertokens_and_the_nearest_get_them_first():
    controller = BudgetController(COST)
    assert controller.plan([MANY] * 5, 1000.0) == [16] * 5
    plan = controller.plan([MANY] * 10, 10 * COST[4] * 1.2 + 2 * (COST[8] - COST[4]) * 1.2 + 0.01)
    assert plan == [8, 8] + [4] * 8
    assert controller.plan([MANY] * 10, 10 * COST[1] * 1.2 + 0.001) == [1] * 10
    assert controller.plan([MANY] * 10, 3 * COST[1] * 1.2 + 0.001) == [1] * 3 + [0] * 7
    assert controller.plan([MANY] * 3, -5.0) == [0, 0, 0]
    assert controller.plan([], 10.0) == []


def test_small_objects_get_few_supertokens_however_much_time_there_is():
    plan = BudgetController(COST).plan([1, 32, 63, 64, 10_000], 1e9)
    assert plan == [1, 2, 2, 4, 16]


def test_with_a_least_budget_some_wait_rather_than_that_all_get_less():
    controller = BudgetController(COST)
    time = 10 * COST[1] * 1.2 + 0.001
    assert controller.plan([MANY] * 10, time, least=4) == [4] * 6 + [0] * 4
    assert controller.plan([16, MANY, 32] + [MANY] * 4, (1.0 + 1.6 + 1.2 + 1.6) * 1.2 + 0.001, 4) == [
        1,
        4,
        2,
        4,
        0,
        0,
        0,
    ]
    assert controller.plan([MANY] * 2, 1000.0, least=4) == [16, 16]
    assert controller.plan([MANY] * 2, 2.0, least=99) == [0, 0]
    assert controller.smallest(MANY, 3) == 4 and controller.smallest(16, 4) == 1
    machine = Machine(speed=100.0)
    _, budgets, _ = machine.frame(controller, [MANY] * 3, 1.0)
    assert budgets == [1, 0, 0]


@settings(max_examples=200, deadline=None)
@given(
    points=st.lists(st.integers(1, 2000), max_size=60),
    left=st.floats(-10, 500),
    load=st.floats(0.2, 8.0),
)
def test_a_plan_fits_and_is_not_smaller_than_it_must_be(points, left, load):
    controller = BudgetController(COST)
    for _ in range(50):
        controller.observe([4] * 8, load * 8 * COST[4])
    plan = controller.plan(points, left)
    total = sum(controller.expected_ms(budget) for budget in plan if budget)
    assert len(plan) == len(points) and (total <= left + 1e-6 or not any(plan))
    assert sorted(plan, key=bool, reverse=True) == plan  # those without time are the last ones
    if 0 in plan:
        assert set(plan) <= {0, 1} and total + controller.expected_ms(1) > left - 1e-6
    for more, fewer in ((left * 2 + 1, left),):
        assert sum(controller.plan(points, more)) >= sum(controller.plan(points, fewer))


@settings(max_examples=60, deadline=None)
@given(
    speeds=st.lists(st.floats(0.5, 3.0), min_size=1, max_size=6),
    objects=st.integers(1, 40),
    batch=st.integers(1, 16),
    seed=st.integers(0, 100),
)
def test_no_deadline_is_missed_once_the_load_is_known_if_the_smallest_budget_fits(speeds, objects, batch, seed):
    """Load steps from one speed to another and stays: after some frames of each, every frame is in time and whole."""
    controller, machine = BudgetController(COST), Machine(seed=seed)
    deadline = objects * COST[1] * 3.0 * 1.6  # the smallest budget fits at the slowest speed, with the reserve
    for speed in speeds:
        machine.speed = speed
        for frame in range(12):
            _, budgets, elapsed = machine.frame(controller, [MANY] * objects, deadline, batch)
            if frame >= 6:
                assert elapsed <= deadline and 0 not in budgets


def test_a_sudden_load_is_met_within_the_frame():
    controller, machine = BudgetController(COST), Machine()
    for _ in range(10):
        machine.frame(controller, [MANY] * 24, 120.0)
    machine.speed = 3.0
    _, budgets, elapsed = machine.frame(controller, [MANY] * 24, 120.0, batch=4)
    assert elapsed <= 120.0 and 0 not in budgets and budgets[-1] < budgets[0]


def test_where_not_even_the_smallest_budget_fits_the_nearest_are_answered():
    controller, machine = BudgetController(COST), Machine()
    for _ in range(5):
        answers, budgets, elapsed = machine.frame(controller, [MANY] * 50, 20.0)
    answered = [number for number, answer in enumerate(answers) if answer is not None]
    assert 10 <= len(answered) <= 20 and answered == list(range(len(answered))) and elapsed <= 20.0
    assert all(bool(budget) == (answer is not None) for answer, budget in zip(answers, budgets))


def test_the_first_object_is_answered_when_all_time_is_gone_and_the_load_is_unlearned():
    controller, machine = BudgetController(COST), Machine(speed=100.0)
    for _ in range(5):
        answers, budgets, _ = machine.frame(controller, [MANY] * 5, 10.0, spent=50.0)
        assert answers == [0, None, None, None, None] and budgets == [1, 0, 0, 0, 0]
    machine.speed = 1.0
    for _ in range(80):
        answers, _, elapsed = machine.frame(controller, [MANY] * 5, 30.0)
    assert None not in answers and elapsed <= 30.0


def test_costs_must_be_positive_and_never_fall():
    controller = BudgetController({4: 1.0, 1: 2.0})
    assert controller.expected_ms(4) >= controller.expected_ms(1)
    for wrong in ({}, {0: 1.0}, {1: 0.0}, {1: float("nan")}):
        with pytest.raises(ValueError, match="positive time"):
            BudgetController(wrong)


def test_what_budgets_cost_is_timed_at_both_ends(monkeypatch):
    asked, clock = [], Machine()
    monkeypatch.setattr("foundry_core.runtime.deadline.time.perf_counter", lambda: 1e-3 * clock.now)

    def answer(budget: int) -> None:
        asked.append(budget)
        clock.now += 4 * (2.0 + 0.25 * budget)  # ms, of four objects

    cost = measured_cost_ms(answer, [4, 16, 1, 8], 4)
    assert set(asked) == {1, 16}
    assert cost == pytest.approx({1: 2.25, 4: 3.0, 8: 4.0, 16: 6.0})
    assert measured_cost_ms(answer, [8], 4) == pytest.approx({8: 4.0})
