# SPDX-License-Identifier: Apache-2.0
"""``config.yaml`` of a run: what it was trained with, and what a run that goes on is trained with from now on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from foundry_core.files import write_atomically
from foundry_core.training.display import say

CONFIG = "config.yaml"
_ABSENT = "absent"


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """``key: old -> new`` for every value that differs, nested keys joined by dots."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            inner = f"{key}.{name}" if key else str(name)
            yield from differences(old.get(name, _ABSENT), new.get(name, _ABSENT), inner)
    elif old != new:
        change = f"{old} -> {new}"
        yield f"{key}: {change if len(change) <= 80 else 'changed'}"


def keep_configuration(directory: Path, values: dict[str, Any], step: int) -> None:
    """Write the configuration into the folder of the run; one that goes on says what it is that it changes."""
    path = directory / CONFIG
    if step and path.is_file():
        try:
            changed = list(differences(yaml.safe_load(path.read_bytes()), values))
        except (OSError, yaml.YAMLError):  # a person's file by now; it is written anew
            changed = []
        if changed:
            say(f"{directory}: goes on from step {step} with another configuration: {'; '.join(changed)}")
    write_atomically(path, yaml.safe_dump(values, sort_keys=False).encode())
