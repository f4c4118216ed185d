# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import pytest

from foundry_ros.counters import Recent
from foundry_ros.health import ERROR, OK, WARN, HealthConfig, judge


@pytest.mark.parametrize(
    ("recent", "listeners", "publishers", "silence", "level", "words"),
    [
        (Recent(10), 1, 1, 0.1, OK, "^ok$"),
        (Recent(), 0, 0, 99.0, OK, "nobody listens"),
        (Recent(), 1, 0, 2.5, WARN, "no cloud on /points for 2 s, 0 publishers"),
        (Recent(), 1, 0, 11.0, ERROR, "no cloud on /points for 11 s"),
        (Recent(rejected=3), 1, 1, 0.1, ERROR, "every message"),
        (Recent(5, rejected=3), 1, 1, 0.1, WARN, "3 messages rejected"),
        (Recent(5, dropped=15), 1, 1, 0.1, WARN, r"15 old frames dropped \(75%\)"),
        (Recent(5), 1, 2, 0.1, WARN, "2 publishers"),
        (Recent(5, latency_ms=600.0), 1, 1, 0.1, WARN, "answers take 600 ms"),
    ],
)
def test_figures_are_judged(recent, listeners, publishers, silence, level, words):
    found, text = judge(recent, "/points", listeners, publishers, silence, HealthConfig())
    assert found == level
    assert re.search(words, text)
