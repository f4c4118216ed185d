# SPDX-License-Identifier: Apache-2.0
"""`foundry ablate`: students or teachers that differ in one choice each, trained with equal steps or equal compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from foundry_core.card import CARD_FILE, find_model, load_card
from foundry_core.errors import InputError
from foundry_core.schema import Settings, parse, read_yaml
from foundry_core.training.config import DistillConfig, PretrainConfig
from foundry_core.training.cost import flops_per_sample
from foundry_core.training.distill import distill
from foundry_core.training.loop import CHECKPOINT
from foundry_core.training.pretrain import pretrain
from foundry_core.training.run_config import CONFIG, differences
from foundry_core.training.student_config import student_architecture

Row = DistillConfig | PretrainConfig
#: keys that make no other model
_OF_NO_ACCOUNT = {
    "description": True,
    "loop": {"threads", "workers", "device", "checkpoint_seconds", "log_steps"},
}


class AblationConfig(Settings):
    """A base configuration of `foundry distill` or `foundry pretrain` and the changes to it, a model each."""

    base: Path = Field(description="YAML file, relative to this one; of a student if it names a teacher")
    steps: int = Field(ge=1, description="optimiser steps of every model")
    equal: Literal["steps", "compute"] = Field(
        "steps",
        description="compute: `steps` are the base's, and each other teacher has as many as cost the same; see "
        "foundry_core.training.cost",
    )
    rows: dict[str, dict[str, Any]] = Field(
        min_length=1, description="name -> keys of the base that change, nested as there"
    )


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``change``; mappings are merged key by key, unless they are of another ``kind``."""
    result = dict(base)
    for key, value in change.items():
        old = base.get(key)
        both = isinstance(value, dict) and isinstance(old, dict) and value.get("kind") in (None, old.get("kind"))
        result[key] = merged(old, value) if both else value
    return result


def configurations(path: Path, data: dict[str, Any] | None = None, steps: int | None = None) -> dict[str, Row]:
    """The configuration of every row, by name, validated before anything is trained.

    Args:
        data: changes to the base, as those of a row, which has the last word.
        steps: instead of the file's.

    Raises:
        InputError: a file, a key or a row that cannot be used, by name.
    """
    config = parse(AblationConfig, read_yaml(path), path)
    base = read_yaml(path.parent / config.base)
    if not isinstance(base, dict):
        raise InputError(f"{path.parent / config.base}: expected keys and their values; give a training configuration")
    schema = DistillConfig if "teacher" in base else PretrainConfig
    if config.equal == "compute" and schema is DistillConfig:
        raise InputError(f"{path}: equal: the compute of students is not known; compare them with equal steps")
    steps = steps or config.steps
    base = merged(merged(base, {"loop": {"steps": steps}}), data or {})
    reference = parse(schema, base, path.parent / config.base)
    made = {}
    for name, change in config.rows.items():
        if name in ("", ".", "..") or Path(name).name != name:
            raise InputError(f"{path}: rows: '{name}' is no folder name; use letters, digits and dashes")
        where = f"{path}: rows.{name}"
        row = parse(schema, {**merged(base, change), "name": name}, where)
        if not row.data.has_source():
            raise InputError(f"{where}: data: nothing to train on; give shape sets with --data")
        made[name] = _with_compute_of(reference, row) if config.equal == "compute" else row
    return made


def _with_compute_of(reference: PretrainConfig, row: PretrainConfig) -> PretrainConfig:
    """The row with as many steps as cost what the reference costs."""
    whole = reference.loop.steps * reference.loop.batch * flops_per_sample(reference)
    steps = max(1, round(whole / (row.loop.batch * flops_per_sample(row))))
    return row.model_copy(update={"loop": row.loop.model_copy(update={"steps": steps})})


def with_seeds(configs: dict[str, Row], seeds: int) -> dict[str, Row]:
    """Every row once for each of the training seeds 0, 1, ..., seed by seed; a second one of ``row`` is ``row-seed1``.

    A seed draws the weights and the order of a student's clouds, which stay the same; a teacher's are drawn by it too.
    """
    made = {}
    for seed in range(seeds):
        for name, config in configs.items():
            own = f"{name}-seed{seed}" if seed else name
            loop = config.loop.model_copy(update={"seed": config.loop.seed + seed})
            made[own] = config.model_copy(update={"name": own, "loop": loop})
    return made


def chosen(configs: dict[str, Row], names: list[str], source: str) -> dict[str, Row]:
    """The rows of these names, in their order; all of them where no name is given.

    Raises:
        InputError: a name that no row has.
    """
    for name in names:
        if name not in configs:
            raise InputError(f"{source}: rows: there is no '{name}'; choose from {', '.join(configs)}")
    return {name: configs[name] for name in names} if names else configs


def _require_same(config: Row, directory: Path, where: str) -> None:
    """Raise InputError if the folder holds a training, whole or half, of another configuration than this."""
    path = directory / CONFIG
    trained = (directory / config.name / CARD_FILE).is_file() or (directory / CHECKPOINT).is_file()
    if not trained or not path.is_file():
        return
    old = read_yaml(path)
    try:  # a file of an older version lacks keys; they had their defaults
        old = parse(type(config), old, path).model_dump(mode="json", exclude=_OF_NO_ACCOUNT)
    except InputError:  # of a student where this is a teacher, say: differences name it
        pass
    if changed := list(differences(old, config.model_dump(mode="json", exclude=_OF_NO_ACCOUNT))):
        raise InputError(
            f"{where}: {directory} holds a training with another configuration ({'; '.join(changed)}); "
            "choose another --out"
        )


def ablate(configs: dict[str, Row], out: Path, source: str, cache: Path) -> list[Path]:
    """Train what is not there yet, each model in ``out/<name>``; the model directories, in order.

    A run that was interrupted goes on from its checkpoint.

    Raises:
        InputError: a student's row does not fit its teacher, or a row's folder holds another configuration; found
            before anything is trained.
    """
    for name, config in configs.items():
        _require_same(config, out / name, f"{source}: {name}")
        if isinstance(config, DistillConfig):
            student_architecture(config, load_card(find_model(config.teacher)), f"{source}: {name}")
    directories = []
    for name, config in configs.items():
        directory = out / name / name
        if not (directory / CARD_FILE).is_file():
            if isinstance(config, PretrainConfig):
                pretrain(config, out / name, source=f"{source}: {name}")
            else:
                distill(config, out / name, source=f"{source}: {name}", cache=cache)
        directories.append(directory)
    return directories
