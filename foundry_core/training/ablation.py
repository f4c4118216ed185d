# SPDX-License-Identifier: Apache-2.0
"""`foundry ablate`: students that differ in one choice each, with the same clouds and the same number of steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from foundry_core.card import CARD_FILE
from foundry_core.errors import InputError
from foundry_core.schema import Settings, parse, read_yaml
from foundry_core.training.config import DistillConfig
from foundry_core.training.distill import distill


class AblationConfig(Settings):
    """A base configuration of `foundry distill` and the changes to it, a student each."""

    base: Path = Field(description="YAML file, relative to this one")
    steps: int = Field(ge=1, description="optimiser steps of every student")
    rows: dict[str, dict[str, Any]] = Field(description="name -> keys of the base that change, nested as there")


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``change``; mappings are merged key by key."""
    result = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = merged(base[key], value) if both else value
    return result


def students(path: Path, data: dict[str, Any] | None = None, steps: int | None = None) -> dict[str, DistillConfig]:
    """The configuration of every row, by name, validated before anything is trained.

    Args:
        data: changes to every row, as those of a row.
        steps: instead of the file's.

    Raises:
        InputError: a file, a key or a row that cannot be used, by name.
    """
    config = parse(AblationConfig, read_yaml(path), path)
    base = read_yaml(path.parent / config.base)
    made = {}
    for name, change in config.rows.items():
        if name in ("", ".", "..") or Path(name).name != name:
            raise InputError(f"{path}: rows: '{name}' is no folder name; use letters, digits and dashes")
        values = merged(merged(merged(base, {"loop": {"steps": steps or config.steps}}), change), data or {})
        made[name] = parse(DistillConfig, {**values, "name": name}, f"{path}: rows.{name}")
    return made


def with_seeds(configs: dict[str, DistillConfig], seeds: int) -> dict[str, DistillConfig]:
    """Every row once for each of the training seeds 0, 1, ..., seed by seed; a second one of ``row`` is ``row-seed1``.

    A seed draws the weights and the order of the clouds; the clouds stay the same.
    """
    made = {}
    for seed in range(seeds):
        for name, config in configs.items():
            own = f"{name}-seed{seed}" if seed else name
            loop = config.loop.model_copy(update={"seed": config.loop.seed + seed})
            made[own] = config.model_copy(update={"name": own, "loop": loop})
    return made


def ablate(configs: dict[str, DistillConfig], out: Path, source: str, cache: Path) -> list[Path]:
    """Train what is not there yet, each student in ``out/<name>``; the model directories, in order.

    A run that was interrupted goes on from its checkpoint.
    """
    directories = []
    for name, config in configs.items():
        directory = out / name / name
        if not (directory / CARD_FILE).is_file():
            distill(config, out / name, source=f"{source}: {name}", cache=cache)
        directories.append(directory)
    return directories
