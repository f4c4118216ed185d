# SPDX-License-Identifier: Apache-2.0
"""Parameters that ROS itself gives to every node: which they are, and what they may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundry_core.errors import InputError

SWITCHES = ("use_sim_time", "start_type_description_service")
QOS_OVERRIDES = "qos_overrides."

#: what the override of a policy may be, in any case; of the others, and of depth, see :func:`check_ros_parameter`
POLICIES = {
    "reliability": ("reliable", "best_effort", "best_available", "system_default"),
    "history": ("keep_last", "keep_all", "system_default"),
}
DEEPEST = 2**31 - 1  # DDS counts no further


def is_ros_parameter(name: str) -> bool:
    """Whether ROS declares this parameter for every node."""
    return name in SWITCHES or name.startswith(QOS_OVERRIDES)


def check_ros_parameter(name: str, value: Any, source: str | Path) -> None:
    """Raise InputError where ROS could not use the value; a topic may be made long after the start, and would fail."""
    policy = name.rpartition(".")[2]
    if name in SWITCHES:
        fits, wanted = isinstance(value, bool), "true or false"
    elif policy == "depth":
        fits, wanted = type(value) is int and 0 <= value <= DEEPEST, f"a whole number from 0 to {DEEPEST}"
    elif policy in POLICIES:
        *others, last = POLICIES[policy]
        fits, wanted = str(value).lower() in POLICIES[policy], f"{', '.join(others)} or {last}"
    else:
        fits, wanted = isinstance(value, str | int), "a word or a number"
    if not fits:
        raise InputError(f"{source}: {name}: must be {wanted}, not {value!r}")
