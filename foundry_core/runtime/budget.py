# SPDX-License-Identifier: Apache-2.0
"""How many supertokens each object of a frame gets, so that the frame is answered within its deadline.

What one object costs at each budget is measured once; how much slower or faster the machine is now is learned from
every batch, as an exponential average of measured over expected time. Nothing here looks at a clock.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

#: an object with fewer points than this for each supertoken shows too little detail to need it
POINTS_PER_SUPERTOKEN = 16


class BudgetController:
    """Plans the supertokens of a frame's objects.

    Args:
        cost_ms: budget -> ms that one object takes with it, on an idle machine, all phases included.
        safety: standard deviations of the load that a plan keeps in reserve; 2 covers about 98 % of batches.

    Attributes:
        load: measured over expected time, an exponential average; deviation: its standard deviation.
    """

    RISE, FALL = 0.5, 0.1  # weight of a batch that was slower, or faster, than the average

    def __init__(self, cost_ms: Mapping[int, float], safety: float = 2.0) -> None:
        if not cost_ms or min(cost_ms) < 1 or not all(0 < cost < math.inf for cost in cost_ms.values()):
            raise ValueError("cost_ms must give a positive time for every budget")
        self.budgets = sorted(cost_ms)
        self.safety = safety
        self.load, self.deviation = 1.0, 0.1
        self._cost = {}
        dearest = 0.0
        for budget in self.budgets:  # more supertokens never cost less; what says so is noise
            dearest = self._cost[budget] = max(dearest, float(cost_ms[budget]))

    def expected_ms(self, budget: int) -> float:
        """Time for one object that is not exceeded as a rule."""
        return self._cost[budget] * (self.load + self.safety * self.deviation)

    def observe(self, budgets: Sequence[int], elapsed_ms: float) -> None:
        """Learn from a batch: the budgets of its objects, and the time that it took."""
        expected = sum(self._cost[budget] for budget in budgets)
        if not expected:
            return
        ratio = elapsed_ms / expected
        step = ratio - self.load
        weight = self.RISE if step > 0 else self.FALL
        self.load += weight * step
        self.deviation = math.sqrt((1 - weight) * (self.deviation**2 + weight * step**2))

    def plan(self, points: Sequence[int], left_ms: float, least: int = 1) -> list[int]:
        """Budgets for objects, the most important first.

        Args:
            points: of each object; small ones get no more than one supertoken for each
                :data:`POINTS_PER_SUPERTOKEN` of them (but always the smallest budget).
            left_ms: time that is left for all of them.
            least: no smaller budget than this is planned (but for small objects): better that some get none.

        Returns:
            a budget for each object. All get the largest that fits for all; what is left raises the first ones by a
            step. Where not even the smallest fits for all, the last ones get 0: no time for them.
        """
        caps = [self._cap(count) for count in points]
        lowest = self._lowest(least)
        level = -1
        for candidate in range(lowest, len(self.budgets)):
            if self._total([min(candidate, cap) for cap in caps]) > left_ms:
                break
            level = candidate
        if level < 0:
            levels = [min(lowest, cap) for cap in caps]
            fit = sum(spent <= left_ms for spent in accumulate(self.expected_ms(self.budgets[item]) for item in levels))
            return [self.budgets[item] for item in levels[:fit]] + [0] * (len(caps) - fit)
        levels = [min(level, cap) for cap in caps]
        spare = left_ms - self._total(levels)
        for number, cap in enumerate(caps):
            if levels[number] == level < cap:
                more = self.expected_ms(self.budgets[level + 1]) - self.expected_ms(self.budgets[level])
                if more > spare:
                    break
                levels[number] += 1
                spare -= more
        return [self.budgets[item] for item in levels]

    def smallest(self, points: int, least: int = 1) -> int:
        """The budget of an object that is answered whatever it takes."""
        return self.budgets[min(self._lowest(least), self._cap(points))]

    def _lowest(self, least: int) -> int:
        """Index of the smallest budget that is no smaller than ``least``; of the largest, where there is none."""
        return min(bisect_left(self.budgets, least), len(self.budgets) - 1)

    def _cap(self, points: int) -> int:
        """Index of the largest budget that so many points are worth."""
        affordable = [k for k, budget in enumerate(self.budgets) if budget * POINTS_PER_SUPERTOKEN <= points]
        return affordable[-1] if affordable else 0

    def _total(self, levels: Sequence[int]) -> float:
        return sum(self.expected_ms(self.budgets[level]) for level in levels)
