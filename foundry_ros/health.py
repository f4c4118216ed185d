# SPDX-License-Identifier: Apache-2.0
"""OK, WARN or ERROR: what a perception node's figures say about it."""

from __future__ import annotations

from pydantic import Field

from foundry_core.schema import Settings
from foundry_ros.counters import Recent

OK, WARN, ERROR = b"\0", b"\1", b"\2"  # diagnostic_msgs/DiagnosticStatus


class HealthConfig(Settings):
    """When /diagnostics warns."""

    stale_s: float = Field(2.0, gt=0, description="s without a cloud: WARN")
    lost_s: float = Field(10.0, gt=0, description="s without a cloud: ERROR")
    slow_ms: float = Field(500.0, gt=0, description="ms from a cloud's arrival to its answer, in the mean: WARN")


def judge(
    recent: Recent, topic: str, listeners: int, publishers: int, silence_s: float, limits: HealthConfig
) -> tuple[bytes, str]:
    """Level and one line.

    Args:
        recent: since the last diagnostics.
        topic: of the input.
        listeners: to the outputs; without any the node does not listen either.
        publishers: of the input that the node has found.
        silence_s: since the last cloud, or since the node began to listen.
    """
    if not listeners:
        return OK, f"idle: nobody listens to the outputs, so {topic} is not subscribed"
    if silence_s > limits.lost_s:
        return ERROR, f"no cloud on {topic} for {silence_s:.0f} s, {publishers} publishers"
    if recent.rejected and not recent.processed:
        return ERROR, f"every message on {topic} was rejected"
    if silence_s > limits.stale_s:
        return WARN, f"no cloud on {topic} for {silence_s:.0f} s, {publishers} publishers"
    if recent.rejected:
        return WARN, f"{recent.rejected} messages rejected"
    if recent.dropped:
        share = recent.dropped / (recent.dropped + recent.processed)
        return WARN, f"{recent.dropped} old frames dropped ({share:.0%}): {topic} is faster than the node"
    if publishers > 1:
        return WARN, f"{publishers} publishers on {topic}; tracks need one sensor"
    if recent.latency_ms > limits.slow_ms:
        return WARN, f"answers take {recent.latency_ms:.0f} ms"
    return OK, "ok"
