# SPDX-License-Identifier: Apache-2.0
"""Objects answered one batch after the other within a deadline, with budgets that a controller chooses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from foundry_core.runtime.budget import BudgetController

T = TypeVar("T")


def measured_cost_ms(
    answer: Callable[[int], object], budgets: Iterable[int], objects: int, repeats: int = 3
) -> dict[int, float]:
    """Budget -> ms that one object takes with it on this machine.

    The smallest and the largest are timed; the others lie on a line between them, as one supertoken more always costs
    about the same.

    Args:
        answer: answers the same ``objects`` objects at a budget; it is run once before it is timed.
    """

    def timed(budget: int) -> float:
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            answer(budget)
            times.append(1e3 * (time.perf_counter() - start))
        return min(times[1:]) / objects

    budgets = sorted(budgets)
    ends = sorted({budgets[0], budgets[-1]})
    costs = np.interp(budgets, ends, [timed(budget) for budget in ends])
    return dict(zip(budgets, costs.tolist(), strict=True))


def answer_in_time(
    controller: BudgetController,
    points: Sequence[int],
    answer: Callable[[list[int], int], list[T]],
    deadline_ms: Callable[[], float],
    now_ms: Callable[[], float],
    max_batch: int,
    order: Sequence[int] | None = None,
    least: int = 1,
) -> tuple[list[T | None], list[int]]:
    """Answer as many objects as there is time for; the plan is made anew before every batch.

    The first object is answered even when the deadline has passed: it matters most, and from it the controller learns
    that the machine has become faster again.

    Args:
        points: of each object.
        answer: answers objects, given by their numbers, at one budget.
        deadline_ms: on the clock that ``now_ms`` reads; asked before every batch, since it may come nearer.
        order: numbers of the objects, the most important first; by default as they are numbered.
        least: budget below which an object rather waits, see :meth:`BudgetController.plan`.

    Returns:
        an answer for each object, None where there was no time; and the budget of each, 0 where there was no time.
    """
    answers: list[T | None] = [None] * len(points)
    budgets = [0] * len(points)
    waiting = list(range(len(points)) if order is None else order)
    while waiting:
        start = now_ms()
        plan = controller.plan([points[number] for number in waiting], deadline_ms() - start, least)
        if not plan[0]:
            if len(waiting) < len(points):
                break
            plan = [controller.smallest(points[waiting[0]], least)] + [0] * (len(waiting) - 1)
        batch = [number for number, budget in zip(waiting, plan, strict=True) if budget == plan[0]][:max_batch]
        for number, found in zip(batch, answer(batch, plan[0]), strict=True):
            answers[number], budgets[number] = found, plan[0]
        controller.observe([plan[0]] * len(batch), now_ms() - start)
        waiting = [number for number in waiting if not budgets[number]]
    return answers, budgets
